"""The web half: its sockets, the gate that judges requests, and the road to apps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from proxy.blueprints.catalog import Catalog
from proxy.process.assemble.common import Common
from proxy.process.assemble.identity import Identity
from proxy.process.assemble.logins import Logins
from proxy.process.assemble.sharing import open_sharing
from proxy.process.assemble.web_login import WebLogin, open_web_login
from proxy.process.assemble.workspaces import WorkspaceParts
from proxy.process.health import Health
from proxy.process.parts import closing, running
from proxy.protection.guard import Guard
from proxy.sessions.tracker import Tracker
from proxy.userstring import UserString
from proxy.web.activity import Activity
from proxy.web.banning import BanEnforcer
from proxy.web.front import Front
from proxy.web.gate import Gate, PublicGate
from proxy.web.gateway_road import GatewayRoad
from proxy.web.in_process import WithOwnApps
from proxy.web.index import OWN_APPS, TERMINAL
from proxy.web.listening import Listener, bind
from proxy.web.login_gate import LoginGate
from proxy.web.opening import DirectOpener, Opener
from proxy.web.origins import Origins, Place
from proxy.web.terminal.session import TerminalParts
from proxy.web.terminal.site import TerminalSite
from proxy.web.upstream import Pool
from proxy.web.waiting import Waiting

_log = structlog.get_logger("web")


@dataclass(frozen=True, slots=True)
class Web:
    """The running web half of one process."""

    port: int
    """The port that it listens on."""
    front: Front
    road: GatewayRoad
    listener: Listener
    catalog: Catalog
    login: WebLogin | None
    """None where browsers cannot sign in."""

    def apps_of(self, user: str, blueprint: str) -> list[tuple[str, str]]:
        """Return title and address of each app of the workspace that a blueprint makes for a user."""
        definition = self.catalog.current().definitions.get(blueprint)
        if definition is None:
            return []
        titles = {slug: app.title or slug for slug, app in definition.sample.apps.items()}
        if self.login is not None:
            titles |= OWN_APPS
        workspace = UserString(user, blueprint)
        return [(title, self.front.origins.url(Place(slug, workspace))) for slug, title in titles.items()]

    @property
    def login_url(self) -> str:
        """Address of the login pages; empty where there are none."""
        return "" if self.login is None else self.login.pages.url

    async def close(self, grace_s: float) -> None:
        """Stop accepting, end WebSockets with a reason, and give requests `grace_s` seconds to end."""
        await self.listener.close()
        if self.login is not None:
            self.login.portal.live.close()
        await self.front.close(grace_s)
        await self.road.close()


@asynccontextmanager
async def open_web(
    common: Common,
    identity: Identity,
    logins: Logins,
    tracker: Tracker,
    guard: Guard,
    workspaces: WorkspaceParts,
) -> AsyncIterator[Web | None]:
    """Serve apps while inside when `web.listen` is set; on leaving, requests still under way end at once.

    Raises: SettingsError naming what cannot be used; StoreError.
    """
    settings = common.settings.web
    if not settings.listen:
        yield None
        return
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        sockets = await bind(settings)
        for one in sockets:
            stack.callback(one.close)
        port = int(sockets[0].getsockname()[1])
        origins = Origins(settings.scheme, settings.apps_domain, settings.port(port))
        workspaces.app_commands.serve_web(lambda slug, place: origins.url(Place(slug, place)))
        sharing = await enter(open_sharing(common, identity, workspaces))
        index, places = sharing.index, sharing.places
        login = await enter(open_web_login(common, identity, tracker, guard, logins, origins, sharing))
        gate: Gate = PublicGate(index)
        if login is not None:
            gate = LoginGate(index, places, login.sessions, origins, login.pages.url, guard.refuses)
        road = GatewayRoad(
            workspaces.gateway,
            workspaces.provisioner,
            workspaces.backend,
            identity.directory,
            dial_s=settings.dial_s,
            buffer_bytes=settings.buffer_bytes,
        )
        terminals = await enter(closing(_terminals(common, tracker, workspaces)))
        await terminals.start()
        with_own = WithOwnApps(road, {TERMINAL: terminals.connection}, settings.buffer_bytes)
        pool = Pool(with_own, settings)
        opener: Opener = DirectOpener(pool)
        if login is not None:
            seals = login.sessions.seals
            opener = await enter(closing(Waiting(road, pool, seals, origins, settings.wait_s)))
        front = Front(
            settings,
            origins,
            gate,
            opener,
            activity=Activity(road.touch, settings.activity_s, asyncio.get_running_loop().time),
            own=None if login is None else login.pages,
            sockets=None if login is None else login.sessions.records,
        )
        if login is not None:
            login.sessions.start(lambda: [(one.passed.tag, one.stop) for one in front.upgraded])
        listener = Listener(settings, front, guard.refuses)
        await enter(running(BanEnforcer(guard, front)))
        await enter(running(sharing.watch(lambda: front.under_way)))
        front.start()
        listener.start(sockets)
        web = Web(port, front, road, listener, workspaces.catalog, login)
        stack.push_async_callback(web.close, 0)
        _add_values(common.health, front, road)
        _log.info("web apps are served", origin=origins.origin("<app>--<blueprint>--<user>"))
        yield web


def _terminals(common: Common, tracker: Tracker, workspaces: WorkspaceParts) -> TerminalSite:
    settings = common.settings
    return TerminalSite(
        TerminalParts(
            workspaces.gateway,
            tracker,
            settings.connection,
            settings.sessions,
            settings.protection.max_sessions_per_user,
        )
    )


def _add_values(health: Health, front: Front, road: GatewayRoad) -> None:
    health.add_gauge("fairlead_web_connections", "Client connections of the web half.", lambda: len(front))
    health.add_gauge("fairlead_web_upgraded", "WebSockets that are open.", lambda: len(front.upgraded))
    health.add_gauge("fairlead_web_app_connections", "Connections with apps.", lambda: len(road))
    health.add_gauge(
        "fairlead_web_app_connections_idle",
        "Of those, kept for the next request.",
        lambda: len(front.pool),
    )
