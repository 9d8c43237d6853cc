"""Errors of shelld, each with the sentence that its caller shows.

ShelldError
├─ SettingsError(problems)        start-up only; exit 78
├─ Unauthenticated(reason)        a call without a valid certificate name or token
├─ ProtocolError(reason)          a frame that the protocol does not allow here; ends one call
├─ Mismatch(reason)               the caller speaks another version, or to another workspace
├─ Unavailable(reason)            shelld is stopping and takes no new work
├─ NotFound(reason)               no app of that name was asked for
├─ CallGone(reason)               the client left during a write; no answer is sent
├─ StartError(code, reason)       a program did not start; a frame, not a gRPC status
└─ OpenError(code, reason)        a dial, listen or accept failed; a frame as well

`reason` is one sentence without secrets, fit for the user at the terminal.
"""

from __future__ import annotations

import errno
from enum import StrEnum


class ShelldError(Exception):
    """A known failure; any other exception at the end of a call is a bug."""


class SettingsError(ShelldError):
    """Every problem of a configuration, in one message."""

    def __init__(self, problems: list[str]) -> None:
        """Take sentences without a final full stop."""
        super().__init__("; ".join(problems))
        self.problems = problems


class Unauthenticated(ShelldError):
    """A caller that did not prove its identity; `str` holds a short reason without the token."""


class ProtocolError(ShelldError):
    """A frame that the protocol does not allow at this point."""


class Mismatch(ShelldError):
    """A caller that speaks another version of the protocol, or means another workspace."""


class Unavailable(ShelldError):
    """A shelld that is stopping and takes no new work; another one may."""


class NotFound(ShelldError):
    """An app that this shelld does not know."""


class CallGone(ShelldError):
    """A client that left during a write; equivalent to the cancellation that follows."""


class StartCode(StrEnum):
    """Reasons for a program that does not run. Names are those of `StartFailed.Code`."""

    NOT_FOUND = "NOT_FOUND"
    NOT_EXECUTABLE = "NOT_EXECUTABLE"
    NO_SUCH_ACCOUNT = "NO_SUCH_ACCOUNT"
    ACCOUNT_DENIED = "ACCOUNT_DENIED"
    NO_PTY = "NO_PTY"
    RESOURCES = "RESOURCES"
    INVALID = "INVALID"


class OpenCode(StrEnum):
    """Reasons for a missing connection or listener. Names are those of `OpenFailed.Code`."""

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
        """Take the code and the reason, which the user sees unchanged."""
        super().__init__(reason)
        self.code = code
        self.reason = reason


class OpenError(ShelldError):
    """A connection or a listener that could not be opened."""

    def __init__(self, code: OpenCode, reason: str) -> None:
        """Take the code and the reason, which the user sees unchanged."""
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
    """Return the code for an errno of socket(2), connect(2) or bind(2); RESOURCES for unknown ones."""
    return _OPEN_CODES.get(number or 0, OpenCode.RESOURCES)
