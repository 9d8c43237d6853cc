"""The Unix socket that shelld serves: one shelld a socket, and removal of a dead one's socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shelld.errors import SettingsError


class SocketInUse(Exception):
    """A socket that another shelld serves."""


class UnixSocket:
    """A Unix socket path, held by a lock file beside it for as long as the process lives.

    The socket is bound under the name `hidden` and renamed when it listens, so that a client that sees it can
    connect to it.
    """

    def __init__(self, path: str) -> None:
        """Take the lock and remove the socket of a dead predecessor.

        The lock file is never removed: otherwise two processes could lock two files of one name.

        Raises: SocketInUse; SettingsError when the path cannot be used.
        """
        self.path = path
        self.hidden = f"{path}~"
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SettingsError([f"--listen: {path}.lock: {error.strerror}"]) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise SocketInUse(f"another shelld serves {path}") from None
        for stale in (path, self.hidden):
            self._remove_stale(stale)

    @staticmethod
    def _remove_stale(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise SettingsError([f"--listen: {path} exists and is no socket"])
            os.unlink(path)

    def hide(self) -> None:
        """Hide the socket from new clients without closing it."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, self.hidden)

    def show(self) -> None:
        """Make the socket visible to clients."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.hidden, self.path)

    def close(self) -> None:
        """Remove the socket, and release the lock for a successor."""
        for path in (self.path, self.hidden):
            Path(path).unlink(missing_ok=True)
        os.close(self._lock)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Limit the mode of new files and sockets to 0600, from their creation on."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
