"""May this be done, and if not, why: pure decisions on values. Acting on them is `gateway`'s."""

from dataclasses import dataclass
from datetime import datetime

from proxy.model import Exec, Principal, Shell, Subsystem, User

SUBSYSTEMS = frozenset({"sftp"})


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed when `reason` is empty; otherwise a sentence for the log and the person."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


ALLOWED = Decision()


def may_login(user: User, now: datetime) -> Decision:
    """Whether a user whose key was proved may have a connection at `now`."""
    if user.locked:
        return Decision("this user is locked")
    if user.expires_at is not None and user.expires_at <= now:
        return Decision(f"this user expired on {user.expires_at:%Y-%m-%d at %H:%M} UTC")
    return ALLOWED


def may_stay(user: User | None, has_key: bool, now: datetime) -> Decision:
    """Whether a connection may go on, by what the directory says at `now` of its user and its key."""
    if user is None:
        return Decision("this user was removed")
    return may_login(user, now) if has_key else Decision("the key of this connection was removed")


def may_start(principal: Principal, kind: Shell | Exec | Subsystem) -> Decision:
    """Whether a session channel may run this; rules per channel come with the session policy."""
    del principal
    if isinstance(kind, Subsystem) and kind.name not in SUBSYSTEMS:
        return Decision(f"no subsystem {kind.name!r}; there is {', '.join(sorted(SUBSYSTEMS))}")
    return ALLOWED
