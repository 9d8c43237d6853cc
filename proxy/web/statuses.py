"""HTTP statuses for failures of the road. Pure."""

from proxy.errors import FairleadError
from proxy.errors.blueprints import BlueprintNotFound
from proxy.errors.programs import AppNotReady, AppNotStarted, OpenFailed, OpenFailedKind, Refused
from proxy.errors.upstream import UpstreamError
from proxy.errors.workspaces import ReadyTimeout, WorkspaceError, WorkspaceNotFound

_NOT_STARTED = "The app is not started"
_NOT_RUNNING = "The app does not run yet"
_TIMED_OUT = "The app takes too long"


def status_of(exc: FairleadError) -> tuple[int, str]:
    """Return status and title of the answer to a request that failed so."""
    match exc:
        case OpenFailed(kind=OpenFailedKind.TIMED_OUT):
            return 504, _TIMED_OUT
        case OpenFailed(kind=OpenFailedKind.PROHIBITED):
            return 403, "The workspace does not permit this connection"
        case OpenFailed(kind=OpenFailedKind.RESOURCES):
            return 503, "The workspace has no room for more connections"
        case OpenFailed():
            return 502, _NOT_STARTED
        case AppNotReady() | AppNotStarted():
            return 503, _NOT_RUNNING
        case WorkspaceNotFound() | BlueprintNotFound():
            return 404, "There is nothing here"
        case Refused():
            return 403, "Not permitted"
        case ReadyTimeout():
            return 504, _TIMED_OUT
        case WorkspaceError() | UpstreamError():
            return 503, "The workspace does not answer"
        case _:
            return 503, "Not possible now"
