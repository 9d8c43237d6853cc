"""What lies between the proxy and shelld."""

from proxy.errors import FairleadError


class UpstreamError(FairleadError):
    """Something between the proxy and shelld."""

    code = "upstream"


class Unreachable(UpstreamError):
    """Nobody answers at the workspace's address within the deadline."""

    code = "upstream.unreachable"
    retryable = True


class Draining(Unreachable):
    """The workspace is about to be stopped and takes no new work; nothing was done there."""

    code = "upstream.draining"


class Incompatible(UpstreamError):
    """shelld speaks another major version, or is another workspace's."""

    code = "upstream.incompatible"


class UpstreamLost(UpstreamError):
    """The link broke while in use."""

    code = "upstream.lost"
    retryable = True


class TrustError(FairleadError):
    """What proves a proxy to workspaces, and them to it, cannot be read, made or kept."""

    code = "trust"
    retryable = True

    @property
    def user_message(self) -> str:
        return "Fairlead cannot prove itself to workspaces now; its operator can see why in the log"
