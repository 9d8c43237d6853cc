"""The choice of an sftp server for an account: the bundle's, the image's, or shelld's own."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from shelld import bundle
from shelld.errors import StartCode, StartError
from shelld.launch.account import Account
from shelld.settings import INTERNAL_SFTP
from shelld.temp_dirs import PrivateDirectories

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib/sftp-server",
    "/usr/lib64/misc/sftp-server",
)

BUILT_IN = ""
"""As a path: the launcher serves sftp itself."""

Choice = tuple[str, list[str], dict[str, str]]
"""Path, argv, and additional environment variables."""


class SftpServers:
    """The sftp servers of this shelld."""

    def __init__(self, wanted: str | None, private: PrivateDirectories) -> None:
        """Take the setting `sftp_server` and the directories."""
        self._wanted = wanted
        self._bundle = bundle.find()
        self._private = private

    def choose(self, account: Account) -> Choice:
        """Return the command of a server for `account`.

        Raises: StartError RESOURCES.
        """
        if self._wanted == INTERNAL_SFTP:
            return BUILT_IN, [], {}
        if self._wanted is not None and _executable(self._wanted):
            return self._wanted, [os.path.basename(self._wanted)], {}
        if self._bundle is not None:
            return self._bundled(self._bundle, account)
        path = next(filter(_executable, SFTP_SERVERS), None)
        return (BUILT_IN, [], {}) if path is None else (path, [os.path.basename(path)], {})

    def _bundled(self, found: bundle.Bundle, account: Account) -> Choice:
        server, loader = found.sftp_server, str(found.loader)
        if _in_passwd(account):
            return loader, found.run(server), {}
        # It refuses to serve a uid without a name, and /etc could not be written.
        try:
            names = _write_names(self._private.shown_to(account), account)
        except OSError as error:
            raise StartError(
                StartCode.RESOURCES,
                f"sftp needs an entry for uid {account.uid} in /etc/passwd, and a substitute could not be "
                f"written: {error.strerror}",
            ) from error
        return loader, found.run(server, preload=[found.nss_wrapper]), names


def _write_names(directory: Path, account: Account) -> dict[str, str]:
    """Write passwd and group of one account; return the environment that makes nss_wrapper read them."""
    passwd, group = directory / "passwd", directory / "group"
    line = f"{account.name}:x:{account.uid}:{account.gid}::{account.home}:{account.shell}\n"
    for path, text in ((passwd, line), (group, f"{account.name}:x:{account.gid}:\n")):
        if not path.exists():
            path.write_text(text, encoding="utf-8", errors="replace")
            path.chmod(0o644)
    return {"NSS_WRAPPER_PASSWD": str(passwd), "NSS_WRAPPER_GROUP": str(group)}


def _in_passwd(account: Account) -> bool:
    try:
        pwd.getpwuid(account.uid)
    except KeyError:
        return False
    return True


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
