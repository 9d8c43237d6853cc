"""May this be done, and if not, why: pure decisions on values. Acting on them is `gateway`'s."""

from dataclasses import dataclass

from proxy.model import Exec, Principal, Shell, Subsystem, User

SUBSYSTEMS = frozenset({"sftp"})


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed when `reason` is empty; otherwise a sentence for the log and the person."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


ALLOWED = Decision()


def may_login(user: User) -> Decision:
    """Whether a user whose key was proved may have a connection."""
    return Decision("this user is locked") if user.locked else ALLOWED


def may_start(principal: Principal, kind: Shell | Exec | Subsystem) -> Decision:
    """Whether a session channel may run this; rules per channel come with the session policy."""
    del principal
    if isinstance(kind, Subsystem) and kind.name not in SUBSYSTEMS:
        return Decision(f"no subsystem {kind.name!r}; there is {', '.join(sorted(SUBSYSTEMS))}")
    return ALLOWED
