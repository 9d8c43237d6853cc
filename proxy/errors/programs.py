"""Errors of channels: a request of a logged-in user that is not fulfilled."""

from enum import Enum

from proxy.errors import EXIT_LINK, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_REFUSED, FairleadError


class Refused(FairleadError):
    """A request of a logged-in user that a rule forbids."""

    code = "refused"
    exit_status = EXIT_REFUSED


class WorkspaceHeld(Refused):
    """A workspace that was stopped on request a moment ago, and is not started again yet."""

    code = "refused.workspace_held"


class OwnerUnknown(Refused):
    """A workspace older than the record of its owner; it may belong to an earlier user of the same name."""

    code = "refused.owner_unknown"


class NameReserved(Refused):
    """A user name that is also the name of a system account of images."""

    code = "refused.name_reserved"


class OpenFailedKind(Enum):
    """Reasons for a failed dial or bind in the workspace."""

    PROHIBITED = "prohibited"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed out"
    NOT_FOUND = "not found"
    PERMISSION = "permission denied"
    RESOURCES = "out of resources"
    ADDRESS_IN_USE = "address in use"
    INVALID = "invalid"


class OpenFailed(FairleadError):
    """A dial or bind that failed in the workspace, with the reason that the workspace gave."""

    code = "forward.open_failed"

    def __init__(self, kind: OpenFailedKind, reason: str) -> None:
        self.kind = kind
        super().__init__(reason or kind.value)


class AppNotStarted(FairleadError):
    """An app that the workspace cannot start: a bad description, no such account, too many apps."""

    code = "app.not_started"


class AppNotReady(FairleadError):
    """An app that does not answer: it starts, has failed or was stopped. The message ends with the reason."""

    code = "app.not_ready"
    retryable = True


class ProgramNotStartedKind(Enum):
    """Reasons for a program that shelld could not start."""

    NOT_FOUND = "not found"
    NOT_EXECUTABLE = "not executable"
    NO_SUCH_ACCOUNT = "no such account"
    ACCOUNT_DENIED = "account denied"
    NO_PTY = "no pty"
    RESOURCES = "out of resources"
    INVALID = "invalid"


_STATUSES = {
    ProgramNotStartedKind.NOT_FOUND: EXIT_NOT_FOUND,
    ProgramNotStartedKind.NOT_EXECUTABLE: EXIT_NOT_EXECUTABLE,
    ProgramNotStartedKind.ACCOUNT_DENIED: EXIT_REFUSED,
}


class ProgramNotStarted(FairleadError):
    """A program that did not start in a running workspace."""

    code = "program.not_started"

    def __init__(self, kind: ProgramNotStartedKind, reason: str) -> None:
        self.kind = kind
        self.exit_status = _STATUSES.get(kind, EXIT_LINK)
        super().__init__(reason or kind.value)
