"""Temporary directories in images that may lack /tmp, for files during the life of this shelld."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from shelld.launch.account import Account

_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - each use makes a directory of its own
_ENOUGH = os.W_OK | os.X_OK


def temporary(account: Account) -> str:
    """Return a directory where this process can create files and which the account can enter.

    The last resorts are memory, which every container runtime mounts, and the account's home.

    Raises: OSError when there is none.
    """
    for path in (*_TEMPORARY, account.home):
        if os.path.isdir(path) and os.access(path, _ENOUGH):
            return path
    raise OSError(errno.EROFS, "no directory of this workspace can be written to")


class PrivateDirectories:
    """Directories of an account, created on demand and removed at the end of this shelld."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool], Path] = {}

    def of(self, account: Account) -> Path:
        """Return a directory of mode 0700 that belongs to the account.

        Raises: OSError.
        """
        known = self._known(account, theirs=True)
        if known is None:
            known = self._make(account, theirs=True)
            if account.ids is not None:
                os.chown(known, account.uid, account.gid)
        return known

    def shown_to(self, account: Account) -> Path:
        """Return a directory that the account can read and only shelld can write.

        Raises: OSError.
        """
        known = self._known(account, theirs=False)
        if known is None:
            known = self._make(account, theirs=False)
            known.chmod(0o755)
        return known

    def _known(self, account: Account, *, theirs: bool) -> Path | None:
        known = self._made.get((account.name, theirs))
        return known if known is not None and known.is_dir() else None

    def _make(self, account: Account, *, theirs: bool) -> Path:
        made = Path(tempfile.mkdtemp(prefix="shelld-", dir=temporary(account)))
        self._made[account.name, theirs] = made
        return made

    def close(self) -> None:
        """Remove the directories with their content."""
        for directory in self._made.values():
            shutil.rmtree(directory, ignore_errors=True)
