"""May this be done, and if not, why: pure decisions on values. Acting on them is `gateway`'s."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from fnmatch import fnmatchcase

from proxy.model import Exec, Principal, Shell, Subsystem, User
from proxy.settings.blueprints import PersonRule

PROGRAM_SUBSYSTEMS = frozenset({"sftp"})
"""Run in the workspace."""
CONTROLS = frozenset({"workspace-start", "workspace-stop", "workspace-status"})
"""Subsystems that are about the workspace and not in it; Fairlead answers them itself."""
SUBSYSTEMS = PROGRAM_SUBSYSTEMS | CONTROLS


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed when `reason` is empty; otherwise a sentence for the log and the person."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


ALLOWED = Decision()
GROUPS_ENDED = Decision(
    "your groups do not open this workspace any more; log in again to have them read anew"
)


def may_login(user: User, now: datetime) -> Decision:
    """Whether a user whose key was proved may have a connection at `now`."""
    if user.locked:
        return Decision("this user is locked")
    if user.expires_at is not None and user.expires_at <= now:
        return Decision(f"this user expired on {user.expires_at:%Y-%m-%d at %H:%M} UTC")
    return ALLOWED


_SYSTEM_NAMES = frozenset(
    word
    # The accounts that Debian, Ubuntu, Fedora and Alpine have or make, and those of common services.
    for line in (
        "root toor daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats",
        "nobody adm operator shutdown halt ftp ftpuser at cron squid xfs ntp smmsp guest postmaster cyrus",
        "vpopmail svn messagebus dbus polkitd sshd avahi rpc rpcuser nfsnobody tss uuidd tcpdump syslog",
        "rtkit colord geoclue pulse gdm lightdm dnsmasq named bind chrony nslcd sssd saslauth dhcpcd",
        "systemd nonroot apache httpd nginx caddy haproxy tomcat postgres mysql mariadb redis mongodb",
        "rabbitmq memcached elasticsearch kibana grafana prometheus zookeeper kafka cassandra etcd",
        "containerd dockerd fairlead shelld",
    )
    for word in line.split()
)
_SYSTEM_PREFIXES = ("_", "systemd-", "systemd_", "debian-")


def may_be_account(name: str) -> Decision:
    """Whether a user's name may become an OS account of an image, where `root` has every right.

    Names of system accounts may not: the image may hold one, with groups and files of its own.
    """
    if name in _SYSTEM_NAMES or name.startswith(_SYSTEM_PREFIXES):
        return Decision(f"the user name {name} is reserved: it is a system account's")
    return ALLOWED


def may_stay(user: User | None, has_key: bool, now: datetime, *, ended_at_provider: str = "") -> Decision:
    """Whether a connection may go on, by what the directory says at `now` of its user and its key.

    `ended_at_provider` names a provider that vouched for the key and does not any more.
    """
    if user is None:
        return Decision("this user was removed")
    if ended_at_provider and may_login(user, now):
        return account_ended(ended_at_provider)
    return may_login(user, now) if has_key else Decision("the key of this connection was removed")


def account_ended(provider: str) -> Decision:
    """Refuse a key whose account has ended at the provider that vouched for it."""
    return Decision(f"{provider} does not vouch for this account any more; log in again to ask it")


def may_start(principal: Principal, kind: Shell | Exec | Subsystem) -> Decision:
    """Whether a session channel may run this; rules per channel come with the session policy."""
    del principal
    if isinstance(kind, Subsystem) and kind.name not in SUBSYSTEMS:
        return Decision(f"no subsystem {kind.name!r}; there is {', '.join(sorted(SUBSYSTEMS))}")
    return ALLOWED


def matches(user: User, *, users: Sequence[str], groups: Sequence[str]) -> bool:
    """Whether a pattern of names or of groups is this user's; groups are compared without regard to case."""
    own = [group.lower().strip("/") for group in user.groups]
    return any(fnmatchcase(user.name, pattern) for pattern in users) or any(
        fnmatchcase(group, pattern.lower().strip("/")) for pattern in groups for group in own
    )


def may_use(user: User, *, users: Sequence[str], groups: Sequence[str]) -> Decision:
    """Whether what is for these users and groups, or without any for everybody, is for this one."""
    if not (users or groups) or matches(user, users=users, groups=groups):
        return ALLOWED
    return Decision("this is for other users and groups")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How many workspaces there may be; None for any number."""

    total: int | None = None
    """Existing, running or not."""
    running: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A workspace that counts, by what a person calls it."""

    name: str
    blueprint: str
    running: bool


def default_blueprint(user: User, rules: Sequence[PersonRule], otherwise: str) -> str:
    """Name the blueprint of a user string that names none: the first rule for this user that gives one."""
    return next(
        (rule.default for rule in rules if rule.default is not None and _holds(rule, user)), otherwise
    )


def ceiling_of(user: User, rules: Sequence[PersonRule]) -> Ceiling:
    """Give how many workspaces a user may have, each number by the first rule that gives it."""
    own = [rule for rule in rules if _holds(rule, user)]
    return Ceiling(
        total=next((rule.max_workspaces for rule in own if rule.max_workspaces is not None), None),
        running=next((rule.max_running for rule in own if rule.max_running is not None), None),
    )


def _holds(rule: PersonRule, user: User) -> bool:
    return bool(may_use(user, users=rule.users, groups=rule.groups))


def may_own(ceiling: Ceiling, held: Sequence[Held], *, exists: bool) -> Decision:
    """Whether a person may start one more workspace beside those `held`; `exists`: it need not be made."""
    if not exists and ceiling.total is not None and len(held) >= ceiling.total:
        return Decision(
            f"you may have {_count(ceiling.total)} and have {_listed(held)}; "
            "delete one, or ask an operator for more"
        )
    running = [one for one in held if one.running]
    if ceiling.running is not None and len(running) >= ceiling.running:
        return Decision(
            f"you may have {_count(ceiling.running)} running and have {_listed(running)}; "
            "stop one, or ask an operator for more"
        )
    return ALLOWED


def may_fill(blueprint: str, ceiling: Ceiling, held: Sequence[Held], *, exists: bool) -> Decision:
    """Whether a blueprint has room for one workspace more beside everybody's of it, which are `held`."""
    if not exists and ceiling.total is not None and len(held) >= ceiling.total:
        return Decision(
            f"blueprint {blueprint} has room for {_count(ceiling.total)} of all users together, and those "
            "exist; try another blueprint, or ask an operator"
        )
    if ceiling.running is not None and sum(one.running for one in held) >= ceiling.running:
        return Decision(
            f"blueprint {blueprint} has room for {_count(ceiling.running)} running of all users together, "
            "and those run; try again when one has stopped, or ask an operator"
        )
    return ALLOWED


class Due(Enum):
    """What is to be done with a workspace that runs."""

    NOTHING = "nothing"
    WARN = "warn"
    """Of the end of its life."""
    STOP_IDLE = "stop, idle"
    STOP_OLD = "stop, old"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a workspace may do nothing, and live, in seconds; 0 for ever."""

    idle_stop_s: float = 0
    lifetime_s: float = 0
    lifetime_warn_s: float = 0

    def due(self, idle_s: float, age_s: float) -> Due:
        """Say what is to be done with a workspace that has done nothing and has run for so long."""
        if self.lifetime_s and age_s >= self.lifetime_s:
            return Due.STOP_OLD
        if self.idle_stop_s and idle_s >= self.idle_stop_s:
            return Due.STOP_IDLE
        if self.lifetime_s and age_s >= self.lifetime_s - self.lifetime_warn_s:
            return Due.WARN
        return Due.NOTHING

    def next_due_s(self, idle_s: float, age_s: float) -> float | None:
        """Give the seconds until anything can be due; None for never."""
        moments = [self.idle_stop_s - idle_s] if self.idle_stop_s else []
        if self.lifetime_s:
            to_end_s = self.lifetime_s - age_s
            to_warning_s = to_end_s - self.lifetime_warn_s
            moments.append(to_warning_s if to_warning_s > 0 else to_end_s)
        return max(0.0, min(moments)) if moments else None


NOT_ASKED_FOR = frozenset({"idle", "lifetime", "init", "failed"})
"""Who stops workspaces without anybody having asked: the next connection starts them again."""


def held_for(stopped_by: str, stopped_at: datetime, now: datetime, hold_s: float) -> timedelta:
    """Give how much longer a stop is not undone by a connection; zero for not at all."""
    if stopped_by in NOT_ASKED_FOR:
        return timedelta()
    return max(timedelta(), stopped_at + timedelta(seconds=hold_s) - now)


def _count(number: int) -> str:
    return "no workspace" if number == 0 else f"{number} workspace{'' if number == 1 else 's'}"


def _listed(held: Sequence[Held]) -> str:
    return ", ".join(f"{one.name} ({one.blueprint})" for one in held[:10]) or "none"
