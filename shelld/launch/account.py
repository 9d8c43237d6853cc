"""OS accounts of the workspace: the accounts that programs run as, and their shells."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, replace

from shelld.errors import StartCode, StartError
from shelld.settings import AccountSettings, Settings

FALLBACK_SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids that the launcher takes before it acts."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """One OS account; `home` and `shell` are absolute paths that may not exist."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def ids(self) -> Ids | None:
        """Return the ids to take; None when shelld has them already, or cannot change them."""
        if os.geteuid() != 0 or (self.uid == os.geteuid() and self.gid == os.getegid()):
            return None
        return Ids(self.uid, self.gid, self.groups)


class Accounts:
    """The accounts that may be used in this workspace."""

    def __init__(self, settings: Settings) -> None:
        """Resolve the workspace's own account once; it needs no entry in passwd."""
        self.own = _own(settings.account)
        if settings.shell:
            self.own = replace(self.own, shell=settings.shell)
        self._besides = frozenset(settings.accounts)

    def find(self, name: str) -> Account:
        """Return the account called `name`; "" is the workspace's own.

        Raises: StartError ACCOUNT_DENIED when the blueprint does not name it or shelld cannot take its ids,
            NO_SUCH_ACCOUNT when passwd has no such entry.
        """
        if name in {"", self.own.name}:
            return self.own
        if name not in self._besides:
            raise StartError(StartCode.ACCOUNT_DENIED, f"account {name!r} may not be used in this workspace")
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise StartError(StartCode.NO_SUCH_ACCOUNT, f"the workspace has no account {name!r}") from None
        if os.geteuid() not in {0, entry.pw_uid}:
            raise StartError(
                StartCode.ACCOUNT_DENIED, f"the workspace runs without root and cannot become {name!r}"
            )
        return _from_passwd(entry)


def _from_passwd(entry: pwd.struct_passwd) -> Account:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    shell = entry.pw_shell or FALLBACK_SHELL  # passwd(5): an empty field means /bin/sh
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir or "/", shell)


def _own(wanted: AccountSettings) -> Account:
    base = _base(wanted)
    return Account(
        name=wanted.name if wanted.name is not None else base.name,
        uid=wanted.uid if wanted.uid is not None else base.uid,
        gid=wanted.gid if wanted.gid is not None else base.gid,
        groups=wanted.groups if wanted.groups is not None else base.groups,
        home=wanted.home or base.home,
        shell=wanted.shell or base.shell,
    )


def _base(wanted: AccountSettings) -> Account:
    """Return the entry of passwd: by name, by uid, or of the account that runs shelld."""
    try:
        if wanted.name is not None and wanted.uid is None:
            return _from_passwd(pwd.getpwnam(wanted.name))
        return _from_passwd(pwd.getpwuid(os.geteuid() if wanted.uid is None else wanted.uid))
    except KeyError:
        uid = os.geteuid() if wanted.uid is None else wanted.uid
        gid = os.getegid() if wanted.uid is None else uid
        return Account(wanted.name or str(uid), uid, gid, (gid,), "/", FALLBACK_SHELL)


def choose_shell(account: Account) -> str:
    """Return the account's shell, or /bin/sh when that shell cannot be executed.

    Raises: StartError NOT_FOUND when the workspace has neither.
    """
    for shell in _candidates(account):
        if os.path.isfile(shell) and os.access(shell, os.X_OK):
            return shell
    raise StartError(
        StartCode.NOT_FOUND,
        f"the workspace has no shell: neither {account.shell} nor {FALLBACK_SHELL} can be run; "
        "name a program of its image as the command, or use sftp",
    )


def has_shell(account: Account) -> bool:
    """Return whether `choose_shell` would find one."""
    return any(os.path.isfile(shell) and os.access(shell, os.X_OK) for shell in _candidates(account))


def _candidates(account: Account) -> Iterator[str]:
    yield account.shell
    yield FALLBACK_SHELL
