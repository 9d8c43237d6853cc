"""Failed init scripts, as users and the proxy see them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

EX_REQUIRED = 69
"""Exit status of a shelld whose required script failed: EX_UNAVAILABLE of sysexits.h."""

_TAIL_BYTES = 4096
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """One init script that did not succeed in this start."""

    name: str
    how: str
    """The result in words that follow the script's name: "ended with status 3"."""
    said: str = ""
    """The last line of its output; empty for none."""
    required: bool = False

    def __str__(self) -> str:
        which = ", which the workspace requires," if self.required else ""
        return f"init script {self.name}{which} {self.how}" + (f" and said: {self.said}" if self.said else "")


class RequiredScriptFailed(Exception):
    """A required script that failed, so that the workspace does not become ready."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))


def last_line(path: str, uid: int) -> str:
    """Return the last non-empty line of a file; empty when the file is not of `uid`.

    The directory is the account's, so the name may be a link to anywhere: a file that the account does not
    own is not read for it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != uid:
            return ""
        stream.seek(max(0, about.st_size - _TAIL_BYTES))
        lines = stream.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    return "".join(one if one.isprintable() else " " for one in last.strip()[:_MOST_CHARACTERS])


def note_termination(path: str, sentence: str) -> None:
    """Write the reason of this container's end where Kubernetes reads it.

    Other containers have no such file.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(sentence)
