"""Rules that choose users by patterns of names and of groups. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from proxy.model import ALLOWED, Decision, User


def matches(user: User, *, users: Sequence[str], groups: Sequence[str]) -> bool:
    """Return whether a pattern of names or groups matches the user.

    Groups are compared without regard to case.
    """
    own = [group.lower().strip("/") for group in user.groups]
    return any(fnmatchcase(user.name, pattern) for pattern in users) or any(
        fnmatchcase(group, pattern.lower().strip("/")) for pattern in groups for group in own
    )


def may_use(user: User, *, users: Sequence[str], groups: Sequence[str]) -> Decision:
    """Decide whether something for these users and groups is for this user.

    Without any pattern it is for all.
    """
    if not (users or groups) or matches(user, users=users, groups=groups):
        return ALLOWED
    return Decision("this is for other users and groups")
