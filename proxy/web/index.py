"""The index of public apps, in memory: the only look-up before a login, the same for every request.

Blueprints say which apps are public, and the directory which users there are. Whether a user may have the
blueprint, and whether the workspace runs, is asked only after a label was found here.
"""

import asyncio

import structlog

from proxy.aio import TaskOwner
from proxy.blueprints.catalog import Catalog
from proxy.blueprints.reading import BlueprintSet
from proxy.errors import FairleadError
from proxy.identity.directory import Directory
from proxy.model import Target
from proxy.userstring import UserString
from proxy.web.origins import Named, Place, label_of, parse_label, place_id
from proxy.web.road import Address

_log = structlog.get_logger("web")

_LOOK_S = 1.0
"""How often it is looked whether the blueprints are others."""
_AT_ONCE = 500
"""Users whose labels are worked out in one turn of the event loop."""


class PublicIndex:
    """One per process; `find` never waits."""

    def __init__(self, catalog: Catalog, directory: Directory, every_s: float) -> None:
        self._catalog = catalog
        self._directory = directory
        self._every_s = every_s
        self._set: BlueprintSet | None = None
        self._apps: dict[tuple[str, str], Target] = {}
        """Targets of public apps by app and blueprint."""
        self._users: frozenset[str] = frozenset()
        self._hashed: dict[tuple[str, str], UserString] = {}
        """Places by app and id whose label is of form 2."""
        self._found: dict[str, Address] = {}
        """What was found already, by label."""
        self._tasks = TaskOwner("web-index")

    def start(self) -> None:
        """Follow the directory until closed."""
        self._tasks.spawn(self._follow(), name="users")

    async def close(self) -> None:
        """Follow no more."""
        await self._tasks.close()

    def find(self, label: str) -> Address | None:
        """Return the address of the public app that a label stands for; None when there is none."""
        self._follow_blueprints()
        if (known := self._found.get(label)) is not None:
            return known
        workspace, target = self._look_up(label)
        if workspace is None or target is None or workspace.user not in self._users:
            return None
        address = self._found[label] = Address(workspace.user, workspace, target, share="public")
        return address

    def _look_up(self, label: str) -> tuple[UserString | None, Target | None]:
        parsed = parse_label(label)
        if parsed is None:
            return None, None
        if isinstance(parsed, Named):
            workspace: UserString | None = parsed.place.workspace
        else:
            workspace = self._hashed.get((parsed.app, parsed.id))
        # A place has one label: any other spelling that leads to it is none.
        if workspace is None or label_of(Place(parsed.app, workspace)) != label:
            return None, None
        return workspace, self._apps.get((parsed.app, workspace.blueprint))

    async def refresh(self) -> None:
        """Learn which users there are now. Raises: StoreError."""
        self._follow_blueprints()
        if not self._apps:
            self._users, self._hashed, self._found = frozenset(), {}, {}
            return
        users = [record.user.name for record in await self._directory.list_users()]
        hashed: dict[tuple[str, str], UserString] = {}
        for at, user in enumerate(users):
            if at % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            for app, blueprint in self._apps:
                place = Place(app, UserString(user, blueprint))
                if not isinstance(parse_label(label_of(place)), Named):
                    hashed[app, place_id(place.workspace)] = place.workspace
        self._users, self._hashed, self._found = frozenset(users), hashed, {}

    def _follow_blueprints(self) -> None:
        """Take over which apps are public, when the set of blueprints is another one than before."""
        current = self._catalog.current()
        if current is self._set:
            return
        self._set, self._found = current, {}
        self._apps = {
            (slug, definition.name): app.target(slug)
            for definition in current.definitions.values()
            if not definition.sample.abstract
            for slug, app in definition.sample.apps.items()
            if app.share == "public"
        }

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        known: BlueprintSet | None = None
        due = loop.time()
        while True:
            self._follow_blueprints()
            if self._set is not known or loop.time() >= due:
                known, due = self._set, loop.time() + self._every_s
                try:
                    await self.refresh()
                except FairleadError as exc:
                    _log.warning("public apps of new users are not known", code=exc.code, reason=str(exc))
            await asyncio.sleep(min(_LOOK_S, self._every_s))
