"""Settings of the links to workspaces."""

from typing import Annotated

from pydantic import Field

from proxy.settings.base import Seconds, Section


class UpstreamSettings(Section):
    """The gRPC link to a workspace."""

    connect_timeout_s: Seconds = 15
    """From a workspace that says it is ready to its answer."""
    look_again_s: Annotated[float, Field(ge=0.1, le=60)] = 1
    """Seconds without an answer after which a workspace is looked for again while connecting goes on: its pod
    may be gone, or be made anew on another node."""
    rpc_timeout_s: Seconds = 30
    """One unary call, and the first frame of a stream."""
    program_timeout_s: Seconds = 90
    """The first frame of a program, which shelld keeps for up to 30 s while init scripts run."""
    keepalive_interval_s: Seconds = 30
    keepalive_timeout_s: Seconds = 20
    linger_s: Seconds = 60
    """An unused link is kept this long for the next login."""
