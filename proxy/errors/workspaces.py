"""A workspace cannot be had, and what the cluster said when it was asked."""

from proxy.errors import FairleadError


class WorkspaceError(FairleadError):
    """A workspace cannot be had."""

    code = "workspace"


class WorkspaceNotFound(WorkspaceError):
    """A named workspace does not exist; the named form never provisions."""

    code = "workspace.not_found"


class WorkspaceStartFailed(WorkspaceError):
    """The workspace did not start; the message says why in words."""

    code = "workspace.start_failed"
    retryable = True


class WorkspaceUnstartable(WorkspaceStartFailed):
    """The workspace cannot start until somebody changes something; the message says who and what."""

    code = "workspace.unstartable"
    retryable = False


class ReadyTimeout(WorkspaceError):
    """The workspace did not become ready in time."""

    code = "workspace.ready_timeout"
    retryable = True


class StopTimeout(WorkspaceError):
    """The workspace was told to stop, and is not known to have done so in time."""

    code = "workspace.stop_timeout"
    retryable = True


class ClusterError(WorkspaceError):
    """Kubernetes did not do what was asked of it; the message has its words, for the operator."""

    code = "cluster"

    @property
    def user_message(self) -> str:
        return (
            self._user_message or "the cluster did not do what was asked; its operator can see why in the log"
        )


class ClusterForbidden(ClusterError):
    """Our service account may not; the message names verb and resource."""

    code = "cluster.forbidden"


class ClusterRefused(ClusterError):
    """A quota, an admission rule or validation said no to an object."""

    code = "cluster.refused"


class ClusterConflict(ClusterError):
    """Somebody else was faster: the object exists already, or is no longer what it was."""

    code = "cluster.conflict"
    retryable = True


class ClusterNotFound(ClusterError):
    """There is no such object, or no such namespace."""

    code = "cluster.not_found"


class ClusterUnavailable(ClusterError):
    """The API server gave no answer, or none that was its own, for as long as we kept asking."""

    code = "cluster.unavailable"
    retryable = True
    retry_after_s: float = 0.0
    """How long the server wants to be left alone, when it said so."""

    @property
    def user_message(self) -> str:
        return self._user_message or "the cluster does not answer at the moment"


class ClusterThrottled(ClusterUnavailable):
    """The API server has more to do than it can, and said so for as long as we kept asking."""

    code = "cluster.throttled"
