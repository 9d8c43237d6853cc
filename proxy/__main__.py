"""Entry of `fairlead` and `python -m proxy`."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from proxy.cli import main as commands


def main() -> NoReturn:
    """Run one command and end the process with its exit status."""
    try:
        commands.main()
    except SystemExit as exc:
        if isinstance(exc.code, int):
            _leave(exc.code)
        raise
    _leave(0)


def _leave(status: int) -> NoReturn:
    """End the process, at once where obstore was used.

    Its threads let go of Python's objects a moment after the last request has ended. When the interpreter
    is being taken down by then, they abort the process, which had done all that was asked of it.
    Source: PyO3/pyo3-async-runtimes#40.
    """
    if "obstore" not in sys.modules:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
