"""The portal of one process: its pages, put together."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxy.access.administration import Administration
from proxy.blueprints.catalog import Catalog
from proxy.events.publisher import Publisher
from proxy.identity.directory import Directory
from proxy.protection.bans import Bans
from proxy.recording.archive import Archive
from proxy.sessions.store import SessionStore
from proxy.settings.web import PortalSettings
from proxy.upstream.client import Links
from proxy.web.login import LoginPages
from proxy.web.origins import Origins
from proxy.web.portal.apps import Apps, Tiles
from proxy.web.portal.cards import BoundsOf, Cards
from proxy.web.portal.connecting import Reached
from proxy.web.portal.desk import Desk
from proxy.web.portal.keys import Keys
from proxy.web.portal.live import Live
from proxy.web.portal.looks import Looks
from proxy.web.portal.operating import Operating, Stopping
from proxy.web.portal.overview import Overview
from proxy.web.portal.recordings import RecordingPages
from proxy.web.portal.rendering import Renderer
from proxy.web.portal.sessions import Sessions
from proxy.web.portal.starts import Controlled, Starts
from proxy.web.sessions import Held
from proxy.workspaces.backend import Backend


@dataclass(frozen=True, slots=True)
class Sources:
    """The subjects of the pages, from the other parts of the process."""

    backend: Backend
    stopping: Stopping
    links: Links
    catalog: Catalog
    bounds_of: BoundsOf
    controlled: Controlled
    apps: Apps
    origins: Origins
    reached: Reached
    directory: Directory
    sessions: SessionStore
    archive: Archive
    bans: Bans
    publisher: Publisher
    missing: frozenset[str] = frozenset()
    """Slugs of Fairlead's own apps that lack a part."""


Values = Callable[[web.Request, Held], Awaitable[Mapping[str, Any]]]
"""Makes the values of a page's template. Raises: FairleadError."""


class Portal:
    """The pages; made before the site of the login origin starts."""

    def __init__(
        self, login: LoginPages, sources: Sources, rights: Administration, settings: PortalSettings
    ) -> None:
        desk = self._desk = Desk(login, Renderer(), rights)
        every_s, timeout_s = settings.look_s, settings.read_s
        looks = self._looks = Looks(sources.backend, sources.links, every_s=every_s, timeout_s=timeout_s)
        starts = self._starts = Starts(sources.controlled, settings.starts, looks.changed)
        self.live = Live(desk, settings)
        cards = Cards(looks, starts, sources.catalog, sources.bounds_of)
        tiles = Tiles(sources.apps, sources.catalog, sources.origins, sources.missing)
        overview = Overview(desk, cards, tiles, looks, starts, sources.controlled, sources.reached)
        sessions = Sessions(desk, sources.sessions, sources.publisher)
        operating = Operating(
            desk,
            cards,
            looks,
            sessions,
            sources.backend,
            sources.stopping,
            sources.directory,
            sources.bans,
            sources.publisher,
            timeout_s,
        )
        overview.serve()
        sessions.serve()
        Keys(desk, sources.directory, sources.publisher).serve()
        RecordingPages(desk, sources.archive, timeout_s, settings.players).serve()
        operating.serve()
        self._archive = sources.archive
        login.home = desk.signed_in(overview.page)
        self._follow("workspaces", overview.values, "workspaces", "shared")
        self._follow("sessions", sessions.values, "sessions", "browsers")
        self._follow("operators", operating.workspace_values, "operators")
        self._follow("operators-sessions", operating.session_values, "operators_sessions")

    def _follow(self, page: str, values: Values, *names: str) -> None:
        """Keep the named parts of open pages up to date."""

        async def parts(request: web.Request, held: Held) -> Mapping[str, str]:
            found = await values(request, held)
            return {name: self._desk.part(request, held, f"part_{name}.html", **found) for name in names}

        self.live.serve(page, parts)

    async def close(self) -> None:
        """End streams and looks; starts go on by themselves."""
        self.live.close()
        await self._starts.close()
        await self._looks.close()
        await self._archive.close()
