"""The web half, assembled from parts of the process."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from proxy.access.gateway import Gateway
from proxy.blueprints.catalog import Catalog
from proxy.identity.directory import Directory
from proxy.settings.web import WebSettings
from proxy.userstring import UserString
from proxy.web.front import Front
from proxy.web.gate import PublicGate
from proxy.web.gateway_road import GatewayRoad, Workspaces
from proxy.web.index import PublicIndex
from proxy.web.listening import IsBanned, Listener, ReadHeader, bind
from proxy.web.origins import Origins, Place
from proxy.web.upstream import Pool
from proxy.workspaces.backend import Backend

_log = structlog.get_logger("web")


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
    read_header: ReadHeader
    is_banned: IsBanned


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
    front = Front(settings, origins, PublicGate(index), Pool(road, settings))
    listener = Listener(settings, front, dependencies.read_header, dependencies.is_banned)
    index.start()
    stack.push_async_callback(index.close)
    front.start()
    listener.start(sockets)
    web = Web(front, road, listener, dependencies.catalog, port)
    stack.push_async_callback(web.close, 0)
    _log.info("web apps are served", origin=origins.origin("<app>--<blueprint>--<user>"))
    return web
