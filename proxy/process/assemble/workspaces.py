"""Workspaces: blueprints, the backend, links into workspaces, and the gateway to programs and forwards."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from proxy.access.app_commands import AppCommands
from proxy.access.app_controls import AppControls
from proxy.access.gateway import Gateway
from proxy.blueprints.catalog import Catalog
from proxy.identity.directory import Directory
from proxy.process.assemble.backend import open_backend
from proxy.process.assemble.catalog import open_catalog, open_repositories
from proxy.process.assemble.common import Common
from proxy.process.assemble.trust import open_trust, uses_tcp
from proxy.process.parts import closing, running
from proxy.recording.service import Recordings
from proxy.settings import Settings
from proxy.trust.manager import TrustManager
from proxy.upstream.client import Links
from proxy.workspaces.backend import Backend
from proxy.workspaces.control import Control
from proxy.workspaces.idle_reaper import IdleReaper
from proxy.workspaces.lifetimes import BlueprintLifetimes
from proxy.workspaces.provisioner import Workspaces
from proxy.workspaces.start_events import publish_stopped, publish_warning


@dataclass(frozen=True, slots=True)
class WorkspaceParts:
    """Workspaces, and the gateway into them."""

    gateway: Gateway
    provisioner: Workspaces
    backend: Backend
    catalog: Catalog
    links: Links
    lifetimes: BlueprintLifetimes
    control: Control
    apps: AppControls
    app_commands: AppCommands


@asynccontextmanager
async def open_workspaces(
    common: Common, directory: Directory, recordings: Recordings
) -> AsyncIterator[WorkspaceParts]:
    """Hold the gateway, and stop idle workspaces while inside; running workspaces go on after leaving.

    Raises: BlueprintError, SettingsError, TrustError.
    """
    settings, bus = common.settings, common.bus
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        catalog = await enter(open_catalog(settings, follow=True))
        trust = await enter(_open_trust(settings))
        backend = await enter(open_backend(settings, trust))
        workspaces = Workspaces(
            catalog,
            backend,
            settings.blueprint,
            bus.publish,
            repositories=await enter(open_repositories(settings)),
            hold_s=settings.workspace.stop_hold_s,
        )
        links = await enter(closing(Links(settings.upstream, settings.proxy_id, trust)))
        common.health.add_gauge("fairlead_links", "gRPC channels to workspaces.", lambda: len(links))
        stopped = partial(publish_stopped, bus.publish)
        warned = partial(publish_warning, bus.publish)
        lifetimes = BlueprintLifetimes(workspaces, directory, settings.workspace)
        await enter(running(IdleReaper(backend, links, lifetimes, settings.workspace, stopped, warned)))
        control = Control(workspaces, backend, links, settings.workspace, stopped)
        gateway = Gateway(workspaces, links, recordings, control, drain_s=settings.workspace.drain_s)
        apps = AppControls(workspaces, backend, links)
        app_commands = AppCommands(apps)
        gateway.lobby.register(app_commands.command)
        yield WorkspaceParts(
            gateway, workspaces, backend, catalog, links, lifetimes, control, apps, app_commands
        )


@asynccontextmanager
async def _open_trust(settings: Settings) -> AsyncIterator[TrustManager | None]:
    """Read or create the credentials for workspaces over TCP; None when workspaces have private sockets."""
    if not uses_tcp(settings):
        yield None
        return
    async with open_trust(settings) as trust:
        await trust.open()
        yield trust
