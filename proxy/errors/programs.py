"""A logged-in user does not get what a channel asked for."""

from enum import Enum

from proxy.errors import EXIT_LINK, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_REFUSED, FairleadError


class Refused(FairleadError):
    """A rule forbids what a logged-in user asked for."""

    code = "refused"
    exit_status = EXIT_REFUSED


class WorkspaceHeld(Refused):
    """Somebody stopped the workspace a moment ago, and meant it."""

    code = "refused.workspace_held"


class OwnerUnknown(Refused):
    """The workspace was made before its owner was recorded, and may be an earlier user's of the same name."""

    code = "refused.owner_unknown"


class NameReserved(Refused):
    """The user's name is that of a system account, which images have."""

    code = "refused.name_reserved"


class OpenFailedKind(Enum):
    """Why a connection or a listener could not be had in the workspace."""

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
    """A dial or a bind failed in the workspace, for the reason that the workspace gave."""

    code = "forward.open_failed"

    def __init__(self, kind: OpenFailedKind, reason: str) -> None:
        self.kind = kind
        super().__init__(reason or kind.value)


class ProgramNotStartedKind(Enum):
    """Why shelld could not start a program."""

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
    """The workspace runs, but not this program."""

    code = "program.not_started"

    def __init__(self, kind: ProgramNotStartedKind, reason: str) -> None:
        self.kind = kind
        self.exit_status = _STATUSES.get(kind, EXIT_LINK)
        super().__init__(reason or kind.value)
