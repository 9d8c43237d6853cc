"""Shares of apps with users besides the owner, and their limits. Pure.

    effective = what the blueprint gives, up to `web.share_max`
                + what the owner gives, up to `share_max` of the app and `web.share_max`

Shares only add: the owner always opens an app. An owner may also put the own share in the blueprint's place.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from proxy.blueprints.audience import matches
from proxy.model import VISITOR, User

Level = Literal["owner", "authenticated", "public"]
"""Users who are not named: none, every user who is signed in, every visitor."""

Cap = Literal["owner", "users", "groups", "authenticated", "public"]
"""The widest share that is permitted, in order: each permits what stands before it."""

_ORDER: tuple[Cap, ...] = get_args(Cap)


@dataclass(frozen=True, slots=True)
class Guest:
    """A user whom an owner named. A later user of the same name has another id, and is not meant."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Share:
    """The users who may open an app besides its owner."""

    level: Level = "owner"
    users: tuple[str, ...] = ()
    """Patterns of names, from a blueprint."""
    groups: tuple[str, ...] = ()
    """Patterns of groups, from a blueprint."""
    guests: tuple[Guest, ...] = ()
    """Users that the owner named."""
    guest_groups: tuple[str, ...] = ()
    """Groups that the owner named, in lower case; no patterns."""

    @property
    def is_public(self) -> bool:
        """Return whether no login is needed."""
        return self.level == "public"

    @property
    def widest(self) -> Cap:
        """Return the lowest cap that permits this whole share."""
        if self.level != "owner":
            return self.level
        if self.groups or self.guest_groups:
            return "groups"
        return "users" if self.users or self.guests else "owner"

    def admits(self, user: User) -> bool:
        """Return whether `user`, who is not the owner, may open the app; VISITOR stands for no login."""
        if self.is_public or user is VISITOR:
            return self.is_public
        groups = {group.lower().strip("/") for group in user.groups}
        return (
            self.level == "authenticated"
            or any((guest.name, guest.id) == (user.name, user.id) for guest in self.guests)
            or not groups.isdisjoint(self.guest_groups)
            or matches(user, users=self.users, groups=self.groups)
        )


OWNER_ONLY = Share()


def is_within(wanted: Cap, cap: Cap) -> bool:
    """Return whether a cap permits shares as wide as `wanted`."""
    return _ORDER.index(wanted) <= _ORDER.index(cap)


def lower(one: Cap, other: Cap) -> Cap:
    """Return the cap that permits less."""
    return min(one, other, key=_ORDER.index)


def capped(share: Share, cap: Cap) -> Share:
    """Return the part of a share that a cap permits: `public` becomes `authenticated` under that cap."""
    if is_within(share.widest, cap):
        return share
    levels: dict[Cap, Level] = {"authenticated": "authenticated", "public": "public"}
    level = levels.get(lower(share.level, cap), "owner")
    if not is_within("groups", cap):
        share = replace(share, groups=(), guest_groups=())
    if not is_within("users", cap):
        share = replace(share, users=(), guests=())
    return replace(share, level=level)


def joined(one: Share, other: Share) -> Share:
    """Return the share of the users that either admits."""
    order = _ORDER.index
    return Share(
        max(one.level, other.level, key=order),
        (*one.users, *other.users),
        (*one.groups, *other.groups),
        tuple(dict.fromkeys((*one.guests, *other.guests))),
        tuple(dict.fromkeys((*one.guest_groups, *other.guest_groups))),
    )
