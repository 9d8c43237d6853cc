"""The web half, assembled from parts of the process."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from proxy.access.gateway import Gateway
from proxy.access.revocation import RevocationMonitor
from proxy.blueprints.catalog import Catalog
from proxy.events.publisher import Bus
from proxy.identity.directory import Directory
from proxy.identity.revoked_keys import Revocations
from proxy.onboarding.service import OnboardingService
from proxy.protection.guard import Guard
from proxy.sessions.tracker import Tracker
from proxy.settings import split_address
from proxy.settings.web import WebSettings
from proxy.storage.database import Database
from proxy.userstring import LOBBY, UserString
from proxy.web.banning import BanEnforcer
from proxy.web.front import Front
from proxy.web.gate import Gate, PublicGate
from proxy.web.gateway_road import GatewayRoad, Workspaces
from proxy.web.index import PublicIndex
from proxy.web.links import LinkPages
from proxy.web.listening import Listener, bind
from proxy.web.login import LoginPages, LoginRules
from proxy.web.login_gate import LoginGate
from proxy.web.origins import Origins, Place
from proxy.web.places import Places
from proxy.web.seals import Seals
from proxy.web.session_records import WebRecords
from proxy.web.session_store import SessionStore
from proxy.web.sessions import WebSessions
from proxy.web.upstream import Pool
from proxy.workspaces.backend import Backend

_log = structlog.get_logger("web")


@dataclass(frozen=True, slots=True)
class Login:
    """The parts that sign browsers in."""

    pages: LoginPages
    links: LinkPages
    sessions: WebSessions


class Web:
    """The running web half of one process."""

    def __init__(
        self, front: Front, road: GatewayRoad, listener: Listener, catalog: Catalog, port: int
    ) -> None:
        self.front = front
        self._catalog = catalog
        self.port = port
        """The port that it listens on."""
        self._road = road
        self._listener = listener

    login: Login | None = None
    """None where browsers cannot sign in."""

    @property
    def origins(self) -> Origins:
        """Return the origins of apps."""
        return self.front.origins

    @property
    def gauges(self) -> dict[tuple[str, str], Callable[[], float]]:
        """Return the gauges of the web half, by name and help."""
        front, road = self.front, self._road
        return {
            ("fairlead_web_connections", "Client connections of the web half."): lambda: len(front),
            ("fairlead_web_upgraded", "WebSockets that are open."): lambda: len(front.upgraded),
            ("fairlead_web_app_connections", "Connections with apps."): lambda: len(road),
            ("fairlead_web_app_connections_idle", "Of those, kept for the next request."): (
                lambda: len(front.pool)
            ),
        }

    def apps_of(self, user: str, blueprint: str) -> list[tuple[str, str]]:
        """Return title and address of each app that a blueprint declares, for the workspace of a user."""
        definition = self._catalog.current().definitions.get(blueprint)
        if definition is None:
            return []
        return [
            (app.title or slug, self.origins.url(Place(slug, UserString(user, blueprint))))
            for slug, app in definition.sample.apps.items()
        ]

    @property
    def login_url(self) -> str:
        """Address of the login pages; empty where there are none."""
        return "" if self.login is None else self.login.pages.url

    async def close(self, grace_s: float) -> None:
        """Stop accepting, end WebSockets with a reason, and give requests `grace_s` seconds to end."""
        await self._listener.close()
        await self.front.close(grace_s)
        await self._road.close()


@dataclass(frozen=True, slots=True)
class WebDependencies:
    """The parts that the web half uses."""

    gateway: Gateway
    workspaces: Workspaces
    backend: Backend
    directory: Directory
    catalog: Catalog
    guard: Guard
    database: Database
    bus: Bus
    door: OnboardingService
    revocations: Revocations
    tracker: Tracker
    recheck_s: float
    """Seconds between two comparisons of sessions with the directory."""
    ssh: str
    """Address of the SSH listener, `host:port`."""


async def open_web(settings: WebSettings, dependencies: WebDependencies, stack: AsyncExitStack) -> Web | None:
    """Start the front of apps when `web.listen` is set; `stack` ends it unless it was closed before.

    Raises: SettingsError naming what cannot be used.
    """
    if not settings.listen:
        return None
    sockets = await bind(settings)
    port = int(sockets[0].getsockname()[1])
    for one in sockets:
        stack.callback(one.close)
    road = GatewayRoad(
        dependencies.gateway,
        dependencies.workspaces,
        dependencies.backend,
        dependencies.directory,
        dial_s=settings.dial_s,
        buffer_bytes=settings.buffer_bytes,
    )
    index = PublicIndex(dependencies.catalog, dependencies.directory, settings.index_s)
    origins = Origins(settings.scheme, settings.apps_domain, settings.port(port))
    login = await _open_login(settings, dependencies, origins, stack)
    gate: Gate = PublicGate(index)
    if login is not None:
        places = Places(dependencies.catalog)
        url = login.pages.url
        gate = LoginGate(index, places, login.sessions, origins, url, dependencies.guard.refuses)
    front = Front(settings, origins, gate, Pool(road, settings))
    if login is not None:
        front.own = login.pages
        front.sockets = login.sessions.records
        login.sessions.start(lambda: [(one.passed.tag, one.stop) for one in front.upgraded])
    listener = Listener(settings, front, dependencies.guard.refuses)
    enforcer = BanEnforcer(dependencies.guard, front)
    enforcer.start()
    stack.push_async_callback(enforcer.close)
    index.start()
    stack.push_async_callback(index.close)
    front.start()
    listener.start(sockets)
    web = Web(front, road, listener, dependencies.catalog, port)
    web.login = login
    stack.push_async_callback(web.close, 0)
    _log.info("web apps are served", origin=origins.origin("<app>--<blueprint>--<user>"))
    return web


async def _open_login(
    settings: WebSettings, dependencies: WebDependencies, origins: Origins, stack: AsyncExitStack
) -> Login | None:
    """Open the login origin and its session store.

    Without https, names beyond this machine would carry sessions in the clear: then only public apps are
    served. Raises: StoreError.
    """
    if not settings.has_login:
        _log.warning(
            "browsers cannot sign in: web apps need https beyond this machine; public apps are served"
        )
        return None
    rules = settings.session
    store = SessionStore(dependencies.database, idle_s=rules.idle_s, per_user=rules.per_user)
    seals = Seals(await store.key())
    sessions = WebSessions(
        store,
        seals,
        dependencies.directory,
        dependencies.revocations,
        dependencies.bus,
        rules,
        WebRecords(dependencies.tracker),
    )
    stack.push_async_callback(sessions.close)
    pages = LoginPages(
        sessions,
        Places(dependencies.catalog),
        origins,
        dependencies.directory,
        list(dependencies.door.providers.values()),
        dependencies.door.http,
        LoginRules(
            settings.require == "ssh-paired",
            rules.attempts_per_minute,
            settings.dev_user,
            dependencies.guard,
            _ssh_line(settings, dependencies.ssh),
        ),
    )
    links = LinkPages(pages, dependencies.bus)
    await pages.start()
    stack.push_async_callback(pages.close)
    dependencies.door.allow_redirect(pages.redirect_uri)
    dependencies.gateway.lobby.serve_web(links.make)
    watch = RevocationMonitor(
        dependencies.directory,
        dependencies.bus,
        sessions.live,
        dependencies.recheck_s,
        dependencies.revocations,
    )
    watch.start()
    stack.push_async_callback(watch.close)
    return Login(pages, links, sessions)


def _ssh_line(settings: WebSettings, ssh: str) -> Callable[[str], str]:
    """Return the function that writes the command for signing in by SSH."""
    host, port = split_address(settings.ssh_address or ssh)
    host = host if settings.ssh_address or host.startswith("127.") else "<host>"
    option = f"-p {port} " if port != 22 else ""
    return lambda user: f"ssh {option}{user}+{LOBBY}@{host} web"
