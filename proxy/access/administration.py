"""The policy of the portal: pure decisions on acts that enter no workspace.

A user acts on what is the user's own; operators and viewers are named in the settings. `policy` decides about
workspaces and what runs in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from proxy.blueprints.audience import matches
from proxy.model import ALLOWED, Decision, User

NOT_AN_OPERATOR = Decision("this is for operators")
NOT_YOURS = Decision("this belongs to another user")


class Chosen(Protocol):
    """Users chosen by patterns of names and of groups."""

    @property
    def users(self) -> Sequence[str]:
        """Return the patterns of names."""

    @property
    def groups(self) -> Sequence[str]:
        """Return the patterns of groups."""


@dataclass(frozen=True, slots=True)
class Administration:
    """The rules of one installation."""

    operators: Chosen
    viewers: Chosen
    """Users who may see every recording."""
    owner_may_view: bool = False
    """Whether a user may see recordings of the user's own sessions."""

    def may_operate(self, actor: User) -> Decision:
        """Decide whether a user may see and end the sessions of others, by the groups in effect."""
        return ALLOWED if _is_among(actor, self.operators) else NOT_AN_OPERATOR

    def may_end(self, actor: User, of: str) -> Decision:
        """Decide whether a user may end a live session, or sign out a browser, of the user called `of`."""
        return ALLOWED if actor.name == of or self.may_operate(actor) else NOT_YOURS

    def may_remove_key(self, actor: User, of: str) -> Decision:
        """Decide whether a user may take an SSH key from the user called `of`."""
        return ALLOWED if actor.name == of else NOT_YOURS

    def may_lock(self, actor: User, whom: str) -> Decision:
        """Decide whether a user may lock another one out, or in again."""
        if not (decision := self.may_operate(actor)):
            return decision
        return Decision("an operator does not lock the own user") if actor.name == whom else ALLOWED

    def may_ban(self, actor: User, address: str, own: str) -> Decision:
        """Decide whether a user may ban the source `address`; `own` is the one that the user comes from."""
        if not (decision := self.may_operate(actor)):
            return decision
        return Decision("this is the address that you come from") if address == own else ALLOWED

    def may_list_recordings(self, actor: User, of: str) -> Decision:
        """Decide whether a user may look for recordings of the user called `of`; of all for an empty name."""
        if _is_among(actor, self.viewers) or (self.owner_may_view and of == actor.name):
            return ALLOWED
        return Decision("you may not see these recordings")

    def may_view(self, actor: User, of: str, began_at: datetime) -> Decision:
        """Decide whether a user may see one recording, which names its user and the time of its beginning.

        A recording from before the user's record was made is an earlier user's of that name.
        """
        if _is_among(actor, self.viewers):
            return ALLOWED
        if not (decision := self.may_list_recordings(actor, of)) or of != actor.name:
            return decision or NOT_YOURS
        is_since = actor.created_at is not None and began_at >= actor.created_at
        return ALLOWED if is_since else NOT_YOURS


def _is_among(actor: User, chosen: Chosen) -> bool:
    return matches(actor, users=chosen.users, groups=chosen.groups)
