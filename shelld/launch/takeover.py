"""The takeover of a home that was given from one account to another.

An operator may give a workspace to another user, whose uid differs from that of its files. The walk runs
before anything is served, so that no program changes the tree during the walk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from shelld.launch.account import Account
from shelld.log import Log

_log = Log("shelld.launch.takeover")
_MOUNTS = Path("/proc/self/mountinfo")


def take_home(account: Account) -> None:
    """Change the owner of every file in the home that belongs to the present owner of the home.

    The home itself comes last, and marks the end: an interrupted walk is repeated. Mounts below the home are
    left alone, and so are the files of root. Needs root; otherwise nothing happens.

    Raises: OSError when the home itself cannot be read or changed; failures below it are logged.
    """
    home = account.home
    found = os.lstat(home)
    if os.geteuid() != 0 or found.st_uid in {0, account.uid}:
        return
    left = 0
    for path in _below(home, _mount_points()):
        try:
            entry = os.lstat(path)
            if entry.st_uid == found.st_uid:
                gid = account.gid if entry.st_gid == found.st_gid else -1
                os.chown(path, account.uid, gid, follow_symlinks=False)
        except OSError:  # mostly a path that is too long
            left += 1
    os.chown(home, account.uid, account.gid)
    _log.info("home was taken over", home=home, former=found.st_uid, account=account.name, left=left)


def _below(home: str, mounted: set[str]) -> Iterator[str]:
    """Yield every path below a directory, without mounts; a loop, because users nest directories deeply."""
    waiting = [home]
    while waiting:
        directory = waiting.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            if entry.path in mounted:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            yield entry.path


def _mount_points() -> set[str]:
    """Return the mount points; proc(5) writes blanks in octal."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return set()
    return {re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines}
