"""Entry of `fairlead` and `python -m proxy`."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from proxy import tuning
from proxy.cli import main as commands


def main() -> NoReturn:
    """Run one command and end the process with its exit status."""
    tuning.collect_rarely()
    try:
        commands.main()
    except SystemExit as exc:
        if isinstance(exc.code, int):
            _leave(exc.code)
        raise
    _leave(0)


def _leave(status: int) -> NoReturn:
    """End the process; after a use of obstore, without the interpreter's shutdown.

    Its threads release Python's objects a moment after the last request. If the interpreter shuts down at
    that moment, they abort the process, although its work is done. Source: PyO3/pyo3-async-runtimes#40.
    """
    if "obstore" not in sys.modules:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or its reader has ended
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
