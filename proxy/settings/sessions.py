"""Settings of sessions: their records, the retention of these, and the limits that rules set."""

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from proxy.settings.base import Section

_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Limit = Annotated[float, Field(ge=0, le=86_400 * 365)]


class LimitRule(Section):
    """Limits of a session. A rule is for users who fit each of its lists; an empty list fits all."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """As the identity provider gave them."""
    blueprints: tuple[str, ...] = ()
    """Names with `*` and `?`, as in the other two."""
    idle_s: _Limit = 0
    """The connection ends after this long without payload either way; 0 for never, here and below."""
    program_idle_s: _Limit = 0
    """The same for one shell, command or file transfer; the others on its connection go on."""
    max_length_s: _Limit = 0
    """The connection ends this long after its login, even in use."""
    warn_s: _Limit = 60
    """The user is warned this long before."""

    def fits(self, user: str, groups: tuple[str, ...], blueprint: str) -> bool:
        """Return whether this rule is for such a session."""
        return _any(self.users, (user,)) and _any(self.groups, groups) and _any(self.blueprints, (blueprint,))


class SessionSettings(Section):
    """Records of connections and programs."""

    write_every_s: _Seconds = 5
    """Counts of live sessions are written this often, all of a process in one transaction."""
    write_soon_s: _Seconds = 1
    """What begins or ends is written this soon."""
    queue_size: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Ended records that wait for a database that is away; one more drops the oldest. About 1 KiB each."""
    lost_after_s: _Seconds = 30
    """A process that gave no sign for this long is gone, and others close its records."""
    keep_days: Annotated[float, Field(ge=0, le=36_500)] = 90
    """Records are deleted this long after the end; 0 keeps them for ever."""
    command_chars: Annotated[int, Field(ge=0, le=65_536)] = 1_024
    """As much is kept of a command line; 0 keeps none: people type secrets into them."""
    event_every_s: _Seconds = 60
    """A live session whose counts changed tells so this often."""
    kill_poll_s: _Seconds = 2
    """Orders to end a session are looked for this often: the bound that holds without NATS."""
    limits: tuple[LimitRule, ...] = ()
    """The first that fits holds; no other is looked at."""

    @model_validator(mode="after")
    def _signs_come_in_time(self) -> "SessionSettings":
        if self.lost_after_s < 3 * self.write_every_s:
            raise ValueError("lost_after_s must be three times write_every_s or more")
        return self

    def limit_of(self, user: str, groups: tuple[str, ...], blueprint: str) -> LimitRule | None:
        """Give the rule that holds for them, if there is one."""
        return next((rule for rule in self.limits if rule.fits(user, groups, blueprint)), None)


def _any(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
