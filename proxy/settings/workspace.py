"""Settings of workspaces."""

from typing import Annotated, Literal

from pydantic import Field

from proxy.settings.base import Count, Seconds, Section


class WorkspaceSettings(Section):
    """Starting and ending workspaces."""

    backend: Literal["local", "kubernetes"] = "local"
    """Where workspaces run: processes of this machine, or pods of the cluster that `kubernetes` describes."""
    start_timeout_s: Seconds = 120
    """From the first channel to readiness; image pulls are the reason that it is long."""
    idle_stop_s: Annotated[float, Field(ge=0)] = 8 * 3600
    """Stop after this long without payload or CPU use; 0 means never. A blueprint may say otherwise."""
    idle_warn_s: Annotated[float, Field(ge=0, le=86_400)] = 300
    """Users are warned this long before a workspace is stopped because it is idle, at most half of the idle
    time; 0 means never."""
    stop_hold_s: Annotated[float, Field(ge=0, le=86_400 * 30)] = 900
    """A stop that a user asked for is not undone by a connection for this long, only by asking again: an
    editor that reconnects by itself must not bring back what its owner just stopped."""
    lifetime_s: Annotated[float, Field(ge=0)] = 0
    """From one start to the stop, even in use; 0 is never. A blueprint may set another value."""
    lifetime_warn_s: Annotated[float, Field(ge=0, le=86_400)] = 900
    """Users are warned this long before a workspace is stopped because of its `lifetime_s`."""
    failed_stop_s: Annotated[float, Field(ge=0, le=86_400 * 30)] = 600
    """Seconds after which a workspace that failed to start is stopped, so that it takes no room from others;
    one that has neither started nor failed gets `start_timeout_s` more. 0 is never."""
    keeper_interval_s: Seconds = 60
    """How often each proxy looks whether a workspace is to be stopped, or given new certificates."""
    keeper_parallel: Count = 16
    """Workspaces that one proxy asks at once."""
    drain_s: Seconds = 60
    """A workspace that was asked to take no new work takes some again after this long, if it was not
    stopped; requests to it wait for as long."""
    namespaces: Literal["auto", "bwrap", "unshare", "none"] = "auto"
    """How the local backend separates workspaces; `auto` takes what this machine can do."""
