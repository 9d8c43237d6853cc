"""`python -m tests.wire.older serve`: a proxy whose local workspaces run the shelld of another commit.

The variable OLDER_SHELLD names the directory that has its packages `shelld` and `protos`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.__main__ import main
from proxy.workspaces.local.backend import LocalBackend

REPOSITORY = Path(__file__).parents[2]
DIRECTORY = "OLDER_SHELLD"
_RUN = "import runpy, sys; sys.path.insert(0, {!r}); runpy.run_module('shelld', run_name='__main__')"


def unpack(commit: str, directory: Path) -> None:
    """Put shelld as of a commit into a directory; skip the test where the history is not there."""
    packed = subprocess.run(
        ["git", "archive", commit, "shelld", "protos"], cwd=REPOSITORY, capture_output=True
    )
    if packed.returncode != 0:
        pytest.skip(f"optional, not found here: git with commit {commit}: {packed.stderr.decode()[:200]}")
    subprocess.run(["tar", "-x", "-C", directory], input=packed.stdout, check=True)


def _serve() -> None:
    command = (sys.executable, "-P", "-c", _RUN.format(os.environ.pop(DIRECTORY)))
    defaults = LocalBackend.__init__.__kwdefaults__
    assert defaults is not None
    defaults["command"] = command
    main()


if __name__ == "__main__":
    _serve()
