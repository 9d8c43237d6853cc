"""The apps that a signed-in user may open: decided in memory, alike for absent and forbidden ones."""

from datetime import datetime

from proxy.access import policy
from proxy.model import User
from proxy.web.index import Opened, SharedIndex
from proxy.web.origins import Named, parse_label

__all__ = ["Opened", "Places"]

_MOST_SHARED = 500
"""Apps of others that are listed for one user."""


class Places:
    """One per process; never waits."""

    def __init__(self, index: SharedIndex) -> None:
        self._index = index

    def find(self, actor: User, label: str) -> Opened | None:
        """Return the app of a label that `actor` owns, or that is shared with `actor`.

        None for a label that stands for nothing, and for an app that is not shared with `actor`, after the
        same look-ups.
        """
        own = self._index.own(actor.name, label)
        if own is not None:
            return own
        shared = self._index.opened(label)
        return shared if shared is not None and shared.share.admits(actor) else None

    def is_offered(self, opened: Opened, owner: User | None, now: datetime) -> bool:
        """Return whether the owner of an app, as the directory has that user at `now`, still offers it.

        The owner may log in, is the user who shared it, and may use the blueprint.
        """
        if owner is None or opened.owner_id not in ("", owner.id) or not policy.may_login(owner, now):
            return False
        return self.may_have(owner, opened.workspace.blueprint)

    def may_have(self, user: User, blueprint: str) -> bool:
        """Return whether a blueprint is there, and for this user."""
        return self._index.may_have(user, blueprint)

    def declared(self, label: str) -> Opened | None:
        """Return the app that a label names, whether or not its owner exists or may have it.

        Only from the label and the blueprints, so that it tells nothing of users.
        """
        parsed = parse_label(label)
        if not isinstance(parsed, Named):
            return None
        return next((one for one in self._index.of(parsed.user, parsed.app) if one.label == label), None)

    def public(self, label: str) -> Opened | None:
        """Return the app of a label if every visitor may open it."""
        opened = self._index.opened(label)
        return opened if opened is not None and opened.share.is_public else None

    def of(self, actor: str) -> list[Opened]:
        """Return the apps that blueprints declare for the workspaces of a user, with their shares."""
        return self._index.of(actor)

    def shared_with(self, user: User) -> list[Opened]:
        """Return apps of other users that `user` may open, by owner: at most 500.

        Those that an owner shares, and those that a blueprint shares with users or groups by name. An app
        that a blueprint shows to all users is not listed: there is one for each user.
        """
        found = (one for one in self._index.listed() if one.owner != user.name and one.share.admits(user))
        return sorted(found, key=lambda one: (one.owner, one.title, one.label))[:_MOST_SHARED]
