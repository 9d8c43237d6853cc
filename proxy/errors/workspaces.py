"""Errors of workspaces, and of the cluster that runs them."""

from proxy.errors import FairleadError


class WorkspaceError(FairleadError):
    """A workspace that is not available."""

    code = "workspace"


class WorkspaceNotFound(WorkspaceError):
    """A named workspace that does not exist; the named form never provisions."""

    code = "workspace.not_found"


class WorkspaceStartFailed(WorkspaceError):
    """A workspace that did not start; the message gives the reason in words."""

    code = "workspace.start_failed"
    retryable = True


class WorkspaceUnstartable(WorkspaceStartFailed):
    """A workspace that cannot start until a user or operator changes something.

    The message names who and what.
    """

    code = "workspace.unstartable"
    retryable = False


class ReadyTimeout(WorkspaceError):
    """A workspace that did not become ready in time."""

    code = "workspace.ready_timeout"
    retryable = True


class StopTimeout(WorkspaceError):
    """A workspace that was asked to stop, and is not known to have stopped in time."""

    code = "workspace.stop_timeout"
    retryable = True


class ClusterError(WorkspaceError):
    """A failed request to Kubernetes; the message quotes Kubernetes, for the operator."""

    code = "cluster"

    @property
    def user_message(self) -> str:
        """Return the sentence for the user; without one of its own, a general one."""
        return (
            self._user_message or "the cluster did not do what was asked; its operator can see why in the log"
        )


class ClusterForbidden(ClusterError):
    """A request that the service account may not make; the message names verb and resource."""

    code = "cluster.forbidden"


class ClusterRefused(ClusterError):
    """An object that a quota, an admission rule or validation refused."""

    code = "cluster.refused"


class ClusterConflict(ClusterError):
    """An object that another writer created or changed first."""

    code = "cluster.conflict"
    retryable = True


class ClusterNotFound(ClusterError):
    """An object or a namespace that does not exist."""

    code = "cluster.not_found"


class ClusterUnavailable(ClusterError):
    """An API server that gave no answer of its own within the deadline."""

    code = "cluster.unavailable"
    retryable = True
    retry_after_s: float = 0.0
    """Seconds that the server asks clients to wait; 0 when it does not say."""

    @property
    def user_message(self) -> str:
        """Return the sentence for the user; without one of its own, a general one."""
        return self._user_message or "the cluster does not answer at the moment"


class ClusterThrottled(ClusterUnavailable):
    """An API server that refused requests as too many until the deadline."""

    code = "cluster.throttled"
