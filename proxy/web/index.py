"""The index of shared apps, in memory: the only look-up before a login, the same for every request.

Blueprints and owners say which apps are shared, and the directory which users there are. Whether a user may
have the blueprint, and whether the workspace runs, is asked only after a label was found here.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

import structlog

from proxy.aio import TaskOwner
from proxy.blueprints.apps import PLAIN, App, Crossing
from proxy.blueprints.catalog import Catalog
from proxy.blueprints.reading import BlueprintSet
from proxy.blueprints.resolve import usable
from proxy.blueprints.sharing import OWNER_ONLY, Cap, Share, capped, joined, lower
from proxy.errors import FairleadError
from proxy.identity.directory import Directory
from proxy.model import Target, User
from proxy.userstring import UserString
from proxy.web.origins import Named, Place, label_of, parse_label, place_id
from proxy.web.road import Address, OwnApp
from proxy.web.share_store import AppOf, ShareRecord
from proxy.web.shares import Shares

_log = structlog.get_logger("web")

_LOOK_S = 1.0
"""How often it is looked whether the blueprints are others."""
_MOST_OWNED = 10_000
"""Apps that are remembered for their own users."""
_AT_ONCE = 500
"""Users whose labels are worked out in one turn of the event loop."""


TERMINAL = "terminal"
OWN_APPS = {TERMINAL: "Terminal"}
"""Titles of the apps that the proxy itself serves for every workspace, by slug; for its owner only."""


class Opened(NamedTuple):
    """An app of a workspace, and the users who may open it."""

    workspace: UserString
    target: Target | OwnApp
    share: Share
    """The users who may open it besides its owner."""
    title: str
    label: str
    slug: str
    """Name of the app in its blueprint."""
    owner_id: str = ""
    """Id of the owner whose share this is; empty where only the blueprint shares. The name alone may have
    become another user's."""
    wakes: bool = False
    """Whether requests of signed-in users who are not the owner start the workspace."""
    activity: str = "http"
    """The preset of what counts as activity."""
    crossing: Crossing = PLAIN
    """The app's dealings with pages of other origins."""

    @property
    def owner(self) -> str:
        """Return the name of the user to whom the workspace belongs."""
        return self.workspace.user


class SharedIndex:
    """One per process; `find` and `opened` never wait."""

    def __init__(
        self, catalog: Catalog, directory: Directory, shares: Shares, *, every_s: float, share_max: Cap
    ) -> None:
        """Create it; `share_max` is the widest share of this installation."""
        self._catalog = catalog
        self._directory = directory
        self._shares = shares
        self._every_s = every_s
        self._share_max = share_max
        self._set: BlueprintSet | None = None
        self._apps: dict[tuple[str, str], App] = {}
        """Apps that their blueprints share, by app and blueprint."""
        self._users: frozenset[str] = frozenset()
        self._hashed: dict[tuple[str, str], UserString] = {}
        """Places by app and id whose label is of form 2, of apps that their blueprints share."""
        self._own: dict[tuple[str, str], UserString] | None = None
        """The same of apps that their owners share; None: to be worked out."""
        self._found: dict[str, Opened] = {}
        """What was found already, by label."""
        self._owned: dict[tuple[str, str], Opened] = {}
        """Apps that were found for their own users, by user and label: each request asks, and each open
        exchange is compared every second.
        """
        self._public: dict[str, Address] = {}
        """Addresses of public apps that were found already: their hashes are kept."""
        self._observers: list[Callable[[], None]] = []
        self._tasks = TaskOwner("web-index")
        shares.on_change(self._forget)

    def start(self) -> None:
        """Follow the directory until closed."""
        self._tasks.spawn(self._follow(), name="users")

    async def close(self) -> None:
        """Follow no more."""
        await self._tasks.close()

    def on_change(self, observer: Callable[[], None]) -> None:
        """Call `observer` after each change of blueprints from now on; it must not raise."""
        self._observers.append(observer)

    def find(self, label: str) -> Address | None:
        """Return the address of the public app that a label stands for; None when there is none."""
        opened = self.opened(label)
        if opened is None or not opened.share.is_public:
            return None
        if (known := self._public.get(label)) is None:
            known = self._public[label] = Address(
                opened.owner,
                opened.workspace,
                opened.target,
                opened.share,
                owner_id=opened.owner_id,
                label=label,
                app=opened.slug,
                crossing=opened.crossing,
            )
        return known

    def opened(self, label: str) -> Opened | None:
        """Return the app of a label if it is shared with any user; None when there is none."""
        self._follow_blueprints()
        if (known := self._found.get(label)) is not None:
            return known
        opened = self._look_up(label)
        if opened is not None:
            self._found[label] = opened
        return opened

    def _look_up(self, label: str) -> Opened | None:
        parsed = parse_label(label)
        if parsed is None:
            return None
        if isinstance(parsed, Named):
            workspace: UserString | None = parsed.place.workspace
        else:
            key = parsed.app, parsed.id
            workspace = self._hashed.get(key) or self._own_hashed().get(key)
        # A place has one label: any other spelling that leads to it is none.
        if workspace is None or label_of(Place(parsed.app, workspace)) != label:
            return None
        app = self._app(workspace.blueprint, parsed.app)
        if app is None:
            return None
        opened = self._opened(workspace, parsed.app, app)
        is_known = opened.owner_id or workspace.user in self._users
        return opened if is_known and opened.share != OWNER_ONLY else None

    def of(self, user: str, wanted: str = "") -> list[Opened]:
        """Return the apps of the workspaces of a user, with their shares, those of the proxy included.

        `wanted` names one slug.
        """
        found: list[Opened] = []
        for definition in self._catalog.current().definitions.values():
            if definition.sample.abstract:
                continue
            workspace = UserString(user, definition.name)
            apps = definition.sample.apps.items()
            found += (self._opened(workspace, slug, app) for slug, app in apps if wanted in ("", slug))
            found += (_own(workspace, slug) for slug in OWN_APPS if wanted in ("", slug))
        return found

    def own(self, user: str, label: str) -> Opened | None:
        """Return the app of a label if it belongs to a user; None for any other."""
        self._follow_blueprints()
        if (known := self._owned.get((user, label))) is not None:
            return known
        parsed = parse_label(label)
        if parsed is None:
            return None
        found = next((one for one in self.of(user, parsed.app) if one.label == label), None)
        if found is not None:
            if len(self._owned) >= _MOST_OWNED:
                self._owned.clear()
            self._owned[user, label] = found
        return found

    def may_have(self, user: User, blueprint: str) -> bool:
        """Return whether a blueprint is there, and for this user."""
        return any(one.name == blueprint for one in usable(self._catalog.current(), user))

    def listed(self) -> Iterator[Opened]:
        """Yield the apps that owners share, and those that blueprints share with users or groups by name."""
        self._follow_blueprints()
        for record in self._shares.all:
            place = record.place
            app = self._app(place.blueprint, place.app)
            if app is not None and record.own.share != OWNER_ONLY:
                workspace = UserString(place.owner, place.blueprint)
                yield self._opened(workspace, place.app, app)
        for (slug, blueprint), app in self._apps.items():
            if app.share.users or app.share.groups:
                for user in self._users:
                    own = self._shares.of(AppOf(user, blueprint, slug))
                    if own is None or own.own.share == OWNER_ONLY:
                        yield self._opened(UserString(user, blueprint), slug, app)

    def _app(self, blueprint: str, slug: str) -> App | None:
        definition = self._catalog.current().definitions.get(blueprint)
        if definition is None or definition.sample.abstract:
            return None
        return definition.sample.apps.get(slug)

    def _opened(self, workspace: UserString, slug: str, app: App) -> Opened:
        record = self._shares.of(AppOf(workspace.user, workspace.blueprint, slug))
        return Opened(
            workspace,
            app.target(slug),
            effective(app, record, self._share_max),
            app.title or slug,
            label_of(Place(slug, workspace)),
            slug,
            "" if record is None else record.owner_id,
            app.wake == "visitors",
            app.activity,
            app.crossing,
        )

    def _own_hashed(self) -> dict[tuple[str, str], UserString]:
        if self._own is None:
            self._own = {}
            for record in self._shares.all:
                place = Place(record.place.app, UserString(record.place.owner, record.place.blueprint))
                if not isinstance(parse_label(label_of(place)), Named):
                    self._own[place.app, place_id(place.workspace)] = place.workspace
        return self._own

    async def refresh(self) -> None:
        """Learn which users there are now. Raises: StoreError."""
        self._follow_blueprints()
        if not self._apps:
            self._users, self._hashed = frozenset(), {}
            self._clear()
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
        self._users, self._hashed = frozenset(users), hashed
        self._clear()

    def _forget(self) -> None:
        """Work out anew the labels of apps that owners share."""
        self._own = None
        self._clear()

    def _clear(self) -> None:
        self._found, self._owned, self._public = {}, {}, {}

    def _follow_blueprints(self) -> None:
        """Take over which apps are shared, when the set of blueprints is another one than before."""
        current = self._catalog.current()
        if current is self._set:
            return
        self._set = current
        self._clear()
        self._apps = {
            (slug, definition.name): app
            for definition in current.definitions.values()
            if not definition.sample.abstract
            for slug, app in definition.sample.apps.items()
            if effective(app, None, self._share_max) != OWNER_ONLY
        }

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        known: BlueprintSet | None = None
        due = loop.time()
        while True:
            self._follow_blueprints()
            if self._set is not known or loop.time() >= due:
                is_other = known is not None and self._set is not known
                known, due = self._set, loop.time() + self._every_s
                if is_other:
                    for observer in self._observers:
                        observer()
                try:
                    await self.refresh()
                except FairleadError as exc:
                    _log.warning("shared apps of new users are not known", code=exc.code, reason=str(exc))
            await asyncio.sleep(min(_LOOK_S, self._every_s))


def _own(workspace: UserString, slug: str) -> Opened:
    label = label_of(Place(slug, workspace))
    return Opened(workspace, OwnApp(slug), OWNER_ONLY, OWN_APPS[slug], label, slug)


def effective(app: App, record: ShareRecord | None, share_max: Cap) -> Share:
    """Return the users who may open an app besides its owner. Pure."""
    by_blueprint = capped(app.share.share, share_max)
    if record is None:
        return by_blueprint
    by_owner = capped(record.own.share, lower(app.share_max, share_max))
    return by_owner if record.own.replaces else joined(by_blueprint, by_owner)
