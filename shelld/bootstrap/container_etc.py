"""Files below /etc of a container: the workspace's account, its right to sudo, its PATH.

An image does not know the workspace's user, and may lack `useradd`. These files are written only where they
are the workspace's own: never on a machine that shelld shares. A failed write is logged and skipped: every
program runs under the right ids either way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from shelld.launch.account import FALLBACK_SHELL
from shelld.log import Log
from shelld.settings import AccountSettings, Settings

_log = Log("shelld.bootstrap.container_etc")

FIRST_ID = 1000
"""Uid of an account without a configured number: the same in every image, because a home outlives images."""

SUDOERS = "sudoers.d/fairlead"
PROFILE = "profile.d/fairlead.sh"
_SHELLS = ("/bin/bash", "/usr/bin/bash")
_SUDO = ("/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ROOT_LINE = f"root:x:0:0:root:/root:{FALLBACK_SHELL}\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    shadowed: str = "x"
    """The password, or `x` for one in shadow(5)."""
    comment: str = ""

    def __str__(self) -> str:
        """Return the line without its end."""
        numbers = f"{self.uid}:{self.gid}"
        return f"{self.name}:{self.shadowed}:{numbers}:{self.comment}:{self.home}:{self.shell}"


def prepare(settings: Settings, etc: Path = Path("/etc")) -> Settings:
    """Create the account and let it use sudo, as far as the settings require it.

    Returns the settings with every field of the account decided. So an image whose files cannot be written,
    or contain another account of that name or number, does not change the ids of programs.
    """
    if not settings.create_account or settings.account.name is None:
        return settings
    entry = decide(settings.account, settings.shell, _read(etc / "passwd"))
    if not _NAME.fullmatch(entry.name) or set(":\n") & set(entry.home + entry.shell):
        _log.warning("the account's name, home or shell cannot be written to passwd", account=entry.name)
    else:
        _make(entry, etc)
        _keep_path(settings.container_env.get("PATH", ""), etc)
        if settings.sudo:
            _grant_sudo(entry.name, etc)
    return replace(settings, account=_decided(settings.account, entry))


def decide(wanted: AccountSettings, shell: str | None, passwd: str) -> Entry:
    """Return the entry of the account: from the settings, else the image's entry of that name, else defaults.

    A shelld without root can only be the account that it runs as.
    """
    assert wanted.name is not None
    entries = filter(None, map(_parse, passwd.splitlines()))
    known = next((entry for entry in entries if entry.name == wanted.name), None)
    uid, gid = _ids(wanted, known)
    return Entry(
        name=wanted.name,
        uid=uid,
        gid=gid,
        home=wanted.home or (known and known.home) or ("/root" if uid == 0 else f"/home/{wanted.name}"),
        shell=shell or wanted.shell or (known and known.shell) or _first_executable(_SHELLS),
        shadowed=known.shadowed if known else "x",
        comment=known.comment if known else "",
    )


def _ids(wanted: AccountSettings, known: Entry | None) -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    uid = wanted.uid
    if uid is None:
        uid = FIRST_ID if known is None else known.uid
    if wanted.gid is not None:
        return uid, wanted.gid
    return uid, known.gid if known is not None and known.uid == uid else uid


def _first_executable(paths: tuple[str, ...]) -> str:
    found = (path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK))
    return next(found, FALLBACK_SHELL)


def _decided(wanted: AccountSettings, entry: Entry) -> AccountSettings:
    groups = wanted.groups
    if groups is None and os.geteuid() == 0:
        groups = tuple(os.getgrouplist(entry.name, entry.gid))
    return AccountSettings(entry.name, entry.uid, entry.gid, groups, entry.home, entry.shell)


def _parse(line: str) -> Entry | None:
    fields = line.split(":")
    if len(fields) != 7 or not fields[2].isdecimal() or not fields[3].isdecimal():
        return None
    name, shadowed, uid, gid, comment, home, shell = fields
    return Entry(name, int(uid), int(gid), home, shell, shadowed, comment)


# ------------------------------------------------------------------------------------ the files


def passwd_with(text: str, entry: Entry) -> str:
    """Return passwd(5) with the entry in it, before any other of its uid: the first one names files."""
    lines = [line for line in text.splitlines() if line.split(":")[0] != entry.name]
    place = next(
        (index for index, line in enumerate(lines) if (other := _parse(line)) and other.uid == entry.uid),
        len(lines),
    )
    return "\n".join([*lines[:place], str(entry), *lines[place:]]) + "\n"


def group_with(text: str, entry: Entry) -> str:
    """Return group(5) with a group for the entry's gid; an existing one with that number is sufficient."""
    lines = [line.split(":") for line in text.splitlines()]
    if any(len(fields) >= 3 and fields[2] == str(entry.gid) for fields in lines):
        return text
    taken = {fields[0] for fields in lines}
    name = entry.name if entry.name not in taken else f"{entry.name}-{entry.gid}"
    return _whole_lines(text) + f"{name}:x:{entry.gid}:\n"


def shadow_with(text: str, entry: Entry) -> str:
    """Return shadow(5) with a line that permits no password but is not locked, as PAM requires."""
    if any(line.split(":")[0] == entry.name for line in text.splitlines()):
        return text
    return _whole_lines(text) + f"{entry.name}:*:::::::\n"


def _whole_lines(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _make(entry: Entry, etc: Path) -> None:
    edits: dict[str, Callable[[str, Entry], str]] = {"passwd": passwd_with, "group": group_with}
    if (etc / "shadow").exists():
        edits["shadow"] = shadow_with
    for name, edit in edits.items():
        path = etc / name
        before = _read(path)
        if not before and name == "passwd":  # an image that holds only one program
            before = _ROOT_LINE
        try:
            if (after := edit(before, entry)) != before:
                write(path, after)
        except OSError as error:
            _log.info("account not written", file=str(path), account=entry.name, reason=error.strerror)


def _keep_path(path: str, etc: Path) -> None:
    """Keep the PATH of the image in login shells, which the profile of most distributions resets."""
    if os.geteuid() != 0 or not path or not (etc / PROFILE).parent.is_dir():
        return
    try:
        write(etc / PROFILE, f"# The PATH that this image was made with.\nexport PATH={shlex.quote(path)}\n")
    except OSError as error:
        _log.info("PATH of the image not kept for login shells", reason=error.strerror)


def _grant_sudo(name: str, etc: Path) -> None:
    if os.geteuid() != 0:
        _log.warning("the blueprint grants sudo, but shelld does not run as root in this workspace")
    elif not any(os.path.isfile(path) for path in _SUDO):
        _log.warning("the blueprint grants sudo, but the image has no sudo; install the package in it")
    else:
        try:
            (etc / SUDOERS).parent.mkdir(mode=0o750, exist_ok=True)
            write(etc / SUDOERS, f"{name} ALL=(ALL:ALL) NOPASSWD: ALL\n", mode=0o440)
        except OSError as error:
            _log.warning("sudo not granted", file=str(etc / SUDOERS), reason=error.strerror)


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file atomically; a reader sees the old one or the new one. Mode and owner are kept.

    A file with a mount on it cannot be replaced, and is written in place.

    Raises: OSError.
    """
    path.parent.mkdir(exist_ok=True)
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=".fairlead-")  # sudo ignores names with a dot
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.chmod(made, mode)
        with contextlib.suppress(FileNotFoundError):
            known = path.stat()
            os.chmod(made, known.st_mode & 0o7777)
            os.chown(made, known.st_uid, known.st_gid)
        os.replace(made, path)
    except OSError as error:
        os.unlink(made)
        if error.errno != errno.EBUSY:
            raise
        path.write_text(text, encoding="utf-8", errors="surrogateescape")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
