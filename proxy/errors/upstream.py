"""Errors between the proxy and shelld."""

from proxy.errors import FairleadError


class UpstreamError(FairleadError):
    """A failure between the proxy and shelld."""

    code = "upstream"


class Unreachable(UpstreamError):
    """A workspace whose address does not answer within the deadline."""

    code = "upstream.unreachable"
    retryable = True


class Draining(Unreachable):
    """A workspace that is about to be stopped and takes no new work; nothing was done there."""

    code = "upstream.draining"


class Incompatible(UpstreamError):
    """A shelld of another major version, or of another workspace."""

    code = "upstream.incompatible"


class UpstreamLost(UpstreamError):
    """A link that broke while in use."""

    code = "upstream.lost"
    retryable = True


class TrustError(FairleadError):
    """Certificates or keys, of proxies or of workspaces, that cannot be read, made or stored."""

    code = "trust"
    retryable = True

    @property
    def user_message(self) -> str:
        """Return the sentence for the user; the reason is for the log only."""
        return "Fairlead cannot prove itself to workspaces now; its operator can see why in the log"
