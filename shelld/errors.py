"""The errors of shelld, each with the words its caller shows.

ShelldError
├─ SettingsError(problems)        start-up only; exit 78
├─ Unauthenticated(reason)        a call without a valid certificate name or token
├─ ProtocolError(reason)          a frame that has no business here; ends one call
├─ Mismatch(reason)               the caller speaks another version, or to another workspace
├─ Unavailable(reason)            shelld is stopping and takes no new work
├─ CallGone(reason)               the client left while it was written to; nobody is told
├─ StartError(code, reason)       a program did not start; a frame, not a gRPC status
└─ OpenError(code, reason)        a dial, listen or accept failed; a frame as well

`reason` is one sentence without secrets, fit to be shown to the person at the terminal.
"""

from __future__ import annotations

import errno
from enum import StrEnum


class ShelldError(Exception):
    """The root: anything else that reaches the edge of a call is a bug."""


class SettingsError(ShelldError):
    """Every problem of a configuration, in one message."""

    def __init__(self, problems: list[str]) -> None:
        """Take sentences without a final full stop."""
        super().__init__("; ".join(problems))
        self.problems = problems


class Unauthenticated(ShelldError):
    """The caller did not prove who it is; `str` holds a short reason without the token."""


class ProtocolError(ShelldError):
    """The caller sent what the contract does not allow at this point."""


class Mismatch(ShelldError):
    """The caller speaks another version of the protocol, or means another workspace."""


class Unavailable(ShelldError):
    """shelld is stopping and takes no new work; another one may."""


class CallGone(ShelldError):
    """The client left while it was written to: as good as a cancellation, which follows."""


class StartCode(StrEnum):
    """Why no program runs. Names are those of `StartFailed.Code`."""

    NOT_FOUND = "NOT_FOUND"
    NOT_EXECUTABLE = "NOT_EXECUTABLE"
    NO_SUCH_ACCOUNT = "NO_SUCH_ACCOUNT"
    ACCOUNT_DENIED = "ACCOUNT_DENIED"
    NO_PTY = "NO_PTY"
    RESOURCES = "RESOURCES"
    INVALID = "INVALID"


class OpenCode(StrEnum):
    """Why no connection or listener exists. Names are those of `OpenFailed.Code`."""

    PROHIBITED = "PROHIBITED"
    REFUSED = "REFUSED"
    UNREACHABLE = "UNREACHABLE"
    TIMED_OUT = "TIMED_OUT"
    NOT_FOUND = "NOT_FOUND"
    PERMISSION = "PERMISSION"
    RESOURCES = "RESOURCES"
    ADDRESS_IN_USE = "ADDRESS_IN_USE"
    INVALID = "INVALID"


class StartError(ShelldError):
    """A program that did not start."""

    def __init__(self, code: StartCode, reason: str) -> None:
        """`reason` is shown to the user as it stands."""
        super().__init__(reason)
        self.code = code
        self.reason = reason


class OpenError(ShelldError):
    """A connection or a listener that did not come to be."""

    def __init__(self, code: OpenCode, reason: str) -> None:
        """`reason` is shown to the user as it stands."""
        super().__init__(reason)
        self.code = code
        self.reason = reason


_OPEN_CODES = {
    errno.ECONNREFUSED: OpenCode.REFUSED,
    errno.ECONNRESET: OpenCode.REFUSED,
    errno.EPIPE: OpenCode.REFUSED,
    errno.ETIMEDOUT: OpenCode.TIMED_OUT,
    errno.EHOSTUNREACH: OpenCode.UNREACHABLE,
    errno.ENETUNREACH: OpenCode.UNREACHABLE,
    errno.EHOSTDOWN: OpenCode.UNREACHABLE,
    errno.ENETDOWN: OpenCode.UNREACHABLE,
    errno.EADDRNOTAVAIL: OpenCode.UNREACHABLE,
    errno.EAFNOSUPPORT: OpenCode.UNREACHABLE,
    errno.ENOENT: OpenCode.NOT_FOUND,
    errno.ENOTDIR: OpenCode.NOT_FOUND,
    errno.EACCES: OpenCode.PERMISSION,
    errno.EPERM: OpenCode.PERMISSION,
    errno.EROFS: OpenCode.PERMISSION,
    errno.EADDRINUSE: OpenCode.ADDRESS_IN_USE,
    errno.EEXIST: OpenCode.ADDRESS_IN_USE,
    errno.ENAMETOOLONG: OpenCode.INVALID,
    errno.EINVAL: OpenCode.INVALID,
    errno.EPROTOTYPE: OpenCode.REFUSED,
    errno.ENOTSOCK: OpenCode.REFUSED,
}


def open_code(number: int | None) -> OpenCode:
    """Translate an errno of socket(2), connect(2) or bind(2); unknown ones mean a shortage."""
    return _OPEN_CODES.get(number or 0, OpenCode.RESOURCES)
