"""Sharing by the lobby: `ssh alice+lobby@host share lab --with bob`, `unshare`, `shares`.

share APP    adds users, groups or all visitors, up to `share_max` of the app and `web.share_max`
unshare APP  takes them away; without any named, closes the app to its owner, also against its blueprint
shares       lists what is shared, both ways
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from proxy.access.lobby import Answer, Command, UsageError, Words
from proxy.blueprints.apps import App
from proxy.blueprints.catalog import Catalog
from proxy.blueprints.resolve import default_blueprint, find, usable
from proxy.blueprints.sharing import OWNER_ONLY, Cap, Guest, Level, Share, is_within, lower
from proxy.errors.programs import Refused
from proxy.identity.directory import Directory
from proxy.model import User, Visit
from proxy.settings.blueprints import BlueprintSettings
from proxy.userstring import UserString, workspace_name
from proxy.web.index import Opened
from proxy.web.origins import Origins, Place, label_of
from proxy.web.places import Places
from proxy.web.share_store import NOTHING_OWN, OwnShare
from proxy.web.shares import Shares

MOST_GUESTS = 200
"""Users, and groups as many, that an owner may name for one app."""
_MOST_GROUP_CHARS = 256
_WHOM = "[--with USER]... [--group GROUP]... [--signed-in | --public]"
_PERMITTED: dict[Cap, str] = {
    "owner": "no other user",
    "users": "users by name",
    "groups": "users and groups by name",
    "authenticated": "all users who are signed in",
    "public": "all visitors",
}


class ShareCommands:
    """One per process."""

    def __init__(
        self,
        shares: Shares,
        places: Places,
        catalog: Catalog,
        directory: Directory,
        origins: Origins,
        settings: BlueprintSettings,
        *,
        share_max: Cap,
    ) -> None:
        """Create it; `share_max` is the widest share of this installation."""
        self._shares = shares
        self._places = places
        self._catalog = catalog
        self._directory = directory
        self._origins = origins
        self._settings = settings
        self._share_max = share_max

    @property
    def commands(self) -> tuple[Command, ...]:
        """Return the commands, to be registered with the lobby."""
        where = "[-w BLUEPRINT]"
        return (
            Command(
                "share",
                "Share an app of your workspace with other users.",
                self._share,
                f"APP {_WHOM} [--as-blueprint] {where}",
            ),
            Command(
                "unshare",
                "Share an app no more: with those named, or with any other user.",
                self._unshare,
                f"APP {_WHOM} {where}",
            ),
            Command("shares", "List the apps that you share, and those shared with you.", self._list),
        )

    # -------------------------------------------------------------------------------- commands

    async def _share(self, visit: Visit, words: Sequence[str]) -> Answer:
        parser = _parser("share")
        parser.add_argument("--as-blueprint", action="store_true")
        given = parser.parse_args(words)
        blueprint, app = self._app(visit.actor, given.app, given.blueprint)
        if given.as_blueprint and _names_any(given):
            raise UsageError("share: --as-blueprint undoes your own changes and takes no others")
        if not (given.as_blueprint or _names_any(given)):
            raise UsageError("share: say with whom: --with, --group, --signed-in or --public")
        cap = lower(app.share_max, self._share_max)
        for wanted in _wanted(given):
            if not is_within(wanted, cap):
                raise Refused(
                    f"{given.app} of blueprint {blueprint} may be shared by its owner with {_PERMITTED[cap]}"
                )
        added = await self._named(visit.actor, given)

        def edit(own: OwnShare) -> OwnShare:
            if given.as_blueprint:
                return NOTHING_OWN
            share = own.share
            guests = dict.fromkeys((*share.guests, *added.guests))
            groups = dict.fromkeys((*share.guest_groups, *added.guest_groups))
            if max(len(guests), len(groups)) > MOST_GUESTS:
                raise Refused(f"an app is shared with at most {MOST_GUESTS} users and as many groups")
            level: Level = added.level if added.level != "owner" else share.level
            return replace(own, share=Share(level, guests=tuple(guests), guest_groups=tuple(groups)))

        await self._shares.change(visit.actor, blueprint, given.app, edit, visit.actor.name)
        return self._answer(visit.actor, blueprint, given.app)

    async def _unshare(self, visit: Visit, words: Sequence[str]) -> Answer:
        given = _parser("unshare").parse_args(words)
        blueprint, app = self._app(visit.actor, given.app, given.blueprint)
        names = {name.lower() for name in given.users}
        groups = set(_groups(given.groups))
        level: Level = "public" if given.public else "authenticated" if given.signed_in else "owner"

        def edit(own: OwnShare) -> OwnShare:
            if not _names_any(given):
                return OwnShare(replaces=app.share.share != OWNER_ONLY)
            share = own.share
            _require_there(share, names, groups, level)
            return replace(
                own,
                share=Share(
                    "owner" if level == share.level else share.level,
                    guests=tuple(guest for guest in share.guests if guest.name not in names),
                    guest_groups=tuple(group for group in share.guest_groups if group not in groups),
                ),
            )

        await self._shares.change(visit.actor, blueprint, given.app, edit, visit.actor.name)
        return self._answer(visit.actor, blueprint, given.app)

    async def _list(self, visit: Visit, words: Sequence[str]) -> Answer:
        del words
        own = [
            one
            for one in self._places.of(visit.actor.name)
            if one.share != OWNER_ONLY and self._places.may_have(visit.actor, one.workspace.blueprint)
        ]
        others = self._places.shared_with(visit.actor)
        document = {
            "shared": [self._document(one) for one in own],
            "shared_with_me": [
                {"owner": one.owner, "title": one.title, "address": self._url(one)} for one in others
            ],
        }
        lines = [f"{self._url(one)}  {_in_words(one.share)}" for one in own] or ["You share no app."]
        if others:
            lines += ["", "Shared with you:", ""]
            lines += [f"{self._url(one)}  {one.title}, of {one.owner}" for one in others]
        return Answer(document, "\n".join([*lines, ""]))

    # ----------------------------------------------------------------------------------- parts

    def _app(self, user: User, slug: str, blueprint: str) -> tuple[str, App]:
        """Return the blueprint and the app that are meant. Raises: BlueprintNotFound, Refused."""
        definitions = self._catalog.current(wanted=blueprint)
        if not blueprint:
            with_app = [one.name for one in usable(definitions, user) if slug in one.sample.apps]
            default = default_blueprint(user, self._settings.rules, self._settings.default)
            blueprint = with_app[0] if len(with_app) == 1 and default not in with_app else default
        else:
            blueprint = next(
                (
                    one.name
                    for one in usable(definitions, user)
                    if workspace_name(UserString(user.name, one.name), one.name) == blueprint
                ),
                blueprint,
            )
        apps = find(definitions, blueprint, user).sample.apps
        if slug not in apps:
            there = ", ".join(sorted(apps)) or "none"
            raise Refused(f"blueprint {blueprint} has no app {slug[:40]!r}; it has: {there}")
        return blueprint, apps[slug]

    async def _named(self, owner: User, given: argparse.Namespace) -> Share:
        """Return the share of the users that are named. Raises: Refused for a user who is not there."""
        guests = []
        for name in dict.fromkeys(text.lower() for text in given.users):
            user = await self._directory.find(name)
            if user is None:
                raise Refused(f"there is no user {name[:40]!r}")
            if user.name == owner.name:
                raise Refused(f"{owner.name} is the owner, and opens the app in any case")
            guests.append(Guest(user.name, user.id))
        level: Level = "public" if given.public else "authenticated" if given.signed_in else "owner"
        return Share(level, guests=tuple(guests), guest_groups=tuple(_groups(given.groups)))

    def _answer(self, user: User, blueprint: str, slug: str) -> Answer:
        label = label_of(Place(slug, UserString(user.name, blueprint)))
        opened = next(one for one in self._places.of(user.name) if one.label == label)
        text = f"{self._url(opened)}\n{slug} of {blueprint} is shared with {_in_words(opened.share)}.\n"
        return Answer(self._document(opened), text)

    def _document(self, opened: Opened) -> dict[str, object]:
        share = opened.share
        return {
            "app": opened.slug,
            "blueprint": opened.workspace.blueprint,
            "address": self._url(opened),
            "level": share.level,
            "users": [*share.users, *(guest.name for guest in share.guests)],
            "groups": [*share.groups, *share.guest_groups],
        }

    def _url(self, opened: Opened) -> str:
        return f"{self._origins.origin(opened.label)}/"


def _parser(name: str) -> Words:
    parser = Words(name)
    parser.add_argument("app")
    parser.add_argument("--with", dest="users", action="append", default=[])
    parser.add_argument("--group", dest="groups", action="append", default=[])
    levels = parser.add_mutually_exclusive_group()
    levels.add_argument("--signed-in", action="store_true")
    levels.add_argument("--public", action="store_true")
    parser.add_argument("-w", "--workspace", "--blueprint", dest="blueprint", default="")
    return parser


def _names_any(given: argparse.Namespace) -> bool:
    return bool(given.users or given.groups or given.signed_in or given.public)


def _wanted(given: argparse.Namespace) -> list[Cap]:
    """Return the caps that a command needs."""
    needs: dict[Cap, bool] = {
        "users": bool(given.users),
        "groups": bool(given.groups),
        "authenticated": given.signed_in,
        "public": given.public,
    }
    return [cap for cap, is_needed in needs.items() if is_needed]


def _groups(given: Sequence[str]) -> list[str]:
    """Return names of groups as they are compared. Raises: UsageError for a pattern and for no name."""
    names = []
    for text in given:
        name = text.lower().strip("/")
        if not name or len(name) > _MOST_GROUP_CHARS or not name.isprintable() or set(name) & set("*?["):
            raise UsageError(f"{text[:40]!r} is not the name of a group")
        names.append(name)
    return list(dict.fromkeys(names))


def _require_there(share: Share, names: set[str], groups: set[str], level: Level) -> None:
    """Refuse to take away a share that the owner did not give. Raises: Refused."""
    gone = sorted(names - {guest.name for guest in share.guests}) + sorted(groups - set(share.guest_groups))
    if level not in ("owner", share.level):
        gone.append("all visitors" if level == "public" else "all users who are signed in")
    if gone:
        raise Refused(f"you do not share it with {', '.join(gone)}; without names, unshare closes it to you")


def _in_words(share: Share) -> str:
    parts = [*share.users, *(guest.name for guest in share.guests)]
    parts += [f"group {name}" for name in (*share.groups, *share.guest_groups)]
    if share.level != "owner":
        parts.append(_PERMITTED[share.level])
    return ", ".join(parts) or _PERMITTED["owner"]
