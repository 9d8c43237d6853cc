"""The portal of one process: its pages, put together."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from proxy.access.administration import Administration
from proxy.blueprints.catalog import Catalog
from proxy.settings.web import PortalSettings
from proxy.upstream.client import Links
from proxy.web.login import LoginPages
from proxy.web.origins import Origins
from proxy.web.portal.apps import OwnApps, SharedApps, Tiles
from proxy.web.portal.cards import BoundsOf, Cards
from proxy.web.portal.connecting import Reached
from proxy.web.portal.desk import Desk
from proxy.web.portal.live import Live
from proxy.web.portal.looks import Looks
from proxy.web.portal.overview import Overview
from proxy.web.portal.rendering import Renderer
from proxy.web.portal.starts import Controlled, Starts
from proxy.web.sessions import Held
from proxy.workspaces.backend import Backend


@dataclass(frozen=True, slots=True)
class Sources:
    """What the pages are about, from the other parts of the process."""

    backend: Backend
    links: Links
    catalog: Catalog
    bounds_of: BoundsOf
    controlled: Controlled
    apps: OwnApps
    shared: SharedApps
    origins: Origins
    reached: Reached


class Portal:
    """The pages; made before the site of the login origin starts."""

    def __init__(
        self, login: LoginPages, sources: Sources, rights: Administration, settings: PortalSettings
    ) -> None:
        desk = Desk(login, Renderer(), rights)
        self._looks = Looks(
            sources.backend, sources.links, every_s=settings.look_s, timeout_s=settings.read_s
        )
        self._starts = Starts(sources.controlled, settings.starts, self._looks.changed)
        self.live = Live(desk, settings)
        cards = Cards(self._looks, self._starts, sources.catalog, sources.bounds_of)
        tiles = Tiles(sources.apps, sources.shared, sources.origins)
        overview = Overview(
            desk, cards, tiles, self._looks, self._starts, sources.controlled, sources.reached
        )
        overview.serve()

        async def workspaces(request: web.Request, held: Held) -> Mapping[str, str]:
            values = await overview.values(held)
            names = ("workspaces", "shared")
            return {name: desk.part(request, held, f"part_{name}.html", **values) for name in names}

        self.live.serve("workspaces", workspaces)
        login.home = desk.signed_in(overview.page)

    async def close(self) -> None:
        """End streams and looks; starts go on by themselves."""
        self.live.close()
        await self._starts.close()
        await self._looks.close()
