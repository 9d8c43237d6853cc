"""Idle and length limits of one connection: warn first, then disconnect.

Nothing is measured where bytes pass. A timer compares byte counts at intervals, so that a limit takes effect
at most a sixtieth of an idle limit late, and never early.
"""

import asyncio
from dataclasses import dataclass

from proxy.sessions.live import PROGRAMS, Controls, LiveConnection
from proxy.sessions.records import End, EndReason
from proxy.settings.sessions import LimitRule

_CHECKS_PER_LIMIT = 60
_MIN_INTERVAL_S = 0.2
_MAX_INTERVAL_S = 30.0


@dataclass(slots=True)
class _Idleness:
    """The time of the last byte, as far as the checks have seen it."""

    total: int
    since_s: float
    is_warned: bool = False

    def elapsed_s(self, total: int, now_s: float) -> float:
        """Return the seconds since the last byte."""
        if total != self.total:
            self.total, self.since_s, self.is_warned = total, now_s, False
        return now_s - self.since_s


class ConnectionLimits:
    """The limits of one connection from its login on; the rule may change meanwhile."""

    def __init__(self, connection: LiveConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._rule: LimitRule | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idleness = _Idleness(0, self._began_s)
        self._programs: dict[str, _Idleness] = {}
        self._is_warned_of_length = False

    def apply(self, rule: LimitRule | None) -> None:
        """Apply `rule` from now on; None removes all limits."""
        self._rule = rule
        self._check()

    def stop(self) -> None:
        """Stop checking."""
        self._rule = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rule = self._rule
        if rule is None or not self._connection.is_open:
            return
        now_s = self._loop.time()
        left = [self._check_length(rule, now_s), self._check_idleness(rule, now_s)]
        if rule.program_idle_s:
            left += self._check_programs(rule, now_s)
        if any(left_s <= 0 for left_s in left[:2]):
            return  # the connection was ended
        if next_s := min((each for each in left if each > 0), default=0.0):
            self._timer = self._loop.call_later(next_s, self._check)

    def _check_length(self, rule: LimitRule, now_s: float) -> float:
        if not rule.max_length_s:
            return _MAX_INTERVAL_S
        left_s = self._began_s + rule.max_length_s - now_s
        limit = humanize(rule.max_length_s)
        if left_s <= 0:
            end = End(EndReason.LENGTH, f"longer than {limit}")
            self._connection.controls.end(f"this connection has lasted for {limit}, which is the limit", end)
        elif left_s <= rule.warn_s and not self._is_warned_of_length:
            self._is_warned_of_length = True
            self._connection.controls.warn(
                f"this connection ends in {humanize(left_s)}, after {limit}, which is the limit"
            )
        return left_s if self._is_warned_of_length or left_s <= rule.warn_s else left_s - rule.warn_s

    def _check_idleness(self, rule: LimitRule, now_s: float) -> float:
        if not rule.idle_s:
            return _MAX_INTERVAL_S
        idle_s = self._idleness.elapsed_s(self._connection.bytes_total, now_s)
        return self._warn_or_end(self._idleness, idle_s, rule.idle_s, rule.warn_s, self._connection.controls)

    def _check_programs(self, rule: LimitRule, now_s: float) -> list[float]:
        live = self._connection.programs
        for gone in self._programs.keys() - live.keys():
            del self._programs[gone]
        left = []
        for id_, program in tuple(live.items()):
            if program.kind not in PROGRAMS:
                continue
            idleness = self._programs.setdefault(id_, _Idleness(program.bytes_total, now_s))
            idle_s = idleness.elapsed_s(program.bytes_total, now_s)
            left.append(
                self._warn_or_end(idleness, idle_s, rule.program_idle_s, rule.warn_s, program.controls)
            )
        # A program may begin before the next check; it is late by one interval at most.
        return [*left, _check_interval_s(rule.program_idle_s)]

    def _warn_or_end(
        self, idleness: _Idleness, idle_s: float, limit_s: float, warn_s: float, controls: Controls
    ) -> float:
        """Warn or end; return the seconds to the next check, 0 after the end."""
        left_s = limit_s - idle_s
        if left_s <= 0:
            end = End(EndReason.IDLE, f"nothing for {humanize(limit_s)}")
            controls.end(f"nothing was sent or received for {humanize(limit_s)}, which is the limit", end)
            return 0.0
        if left_s <= warn_s and not idleness.is_warned:
            idleness.is_warned = True
            controls.warn(f"idle: this ends in {humanize(left_s)} unless something is sent or received")
        due_s = left_s if idleness.is_warned else left_s - warn_s
        return min(max(due_s, _MIN_INTERVAL_S), _check_interval_s(limit_s))


def _check_interval_s(limit_s: float) -> float:
    return min(max(limit_s / _CHECKS_PER_LIMIT, _MIN_INTERVAL_S), _MAX_INTERVAL_S)


def humanize(seconds: float) -> str:
    """Return a duration for users: `45 s`, `30 min`, `8 h`, `1 h 30 min`."""
    whole = max(1, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
