"""The first page: workspaces with apps and ways to connect, and apps that others share with the user."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxy.errors.login import UserStringInvalid
from proxy.errors.programs import Refused
from proxy.model import Visit
from proxy.userstring import parse
from proxy.web.portal.apps import Tiles
from proxy.web.portal.cards import Cards
from proxy.web.portal.connecting import Reached, ways
from proxy.web.portal.desk import Desk
from proxy.web.portal.looks import Looks
from proxy.web.portal.starts import Controlled, Starts
from proxy.web.sessions import Held


@dataclass(frozen=True, slots=True)
class Overview:
    """The page and its forms."""

    desk: Desk
    cards: Cards
    tiles: Tiles
    looks: Looks
    starts: Starts
    controlled: Controlled
    reached: Reached

    def serve(self) -> None:
        """Add the routes; the page itself is the login origin's `/`."""
        self.desk.post("/workspaces/start", self._start)
        self.desk.post("/workspaces/stop", self._stop)

    async def page(self, request: web.Request, held: Held) -> web.StreamResponse:
        """Return the page. Raises: WorkspaceError, StoreError."""
        return self.desk.page(request, held, "overview.html", **await self.values(request, held))

    async def values(self, request: web.Request, held: Held) -> dict[str, Any]:
        """Return the values of the template. Raises: WorkspaceError, StoreError."""
        del request
        cards = await self.cards.of(held.user, self.tiles.by_workspace(held.user))
        return {
            "cards": cards,
            "ways": {card.address: ways(parse(card.address), self.reached) for card in cards},
            "shared": self.tiles.shared_with(held.user),
            "is_starting": any(card.phase == "starting" for card in cards),
        }

    async def _start(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        visit = visit_of(held, form)
        self.starts.begin(visit)
        self.desk.note(held, "start", workspace=form["address"])
        return self.desk.forms.done(request, "/", f"{title_of(visit)} is being started.")

    async def _stop(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        visit = visit_of(held, form)
        await self.controlled.control(visit, "workspace-stop", lambda _: None)
        self.looks.changed()
        self.desk.note(held, "stop", workspace=form["address"])
        return self.desk.forms.done(request, "/", f"{title_of(visit)} is stopped. Its files stay.")


def visit_of(held: Held, form: dict[str, str]) -> Visit:
    """Return the visit of a user at the own workspace that a form names. Raises: Refused."""
    try:
        value = parse(form.get("address", ""))
    except UserStringInvalid as exc:
        raise Refused(f"this names no workspace: {exc.reason}") from exc
    if value.user != held.user.name:
        raise Refused("this workspace belongs to another user")
    return Visit(held.actor, held.user, value)


def title_of(visit: Visit) -> str:
    """Return the name of a workspace for its owner."""
    value = visit.address
    return f"Workspace {value.blueprint or value.repo or value.pod or value.workload}"
