"""How long somebody may stay: a watch on one connection that warns, and then strikes.

Nothing is measured where bytes pass: a timer looks at the counts now and then, often enough to be late by a
sixtieth of an idle limit at most, and never early.
"""

import asyncio
from dataclasses import dataclass

from proxy.sessions.live import PROGRAMS, Controls, LiveConnection
from proxy.sessions.records import End, EndReason
from proxy.settings.sessions import LimitRule

_LOOKS_PER_LIMIT = 60
_SHORTEST_S = 0.2
_LONGEST_S = 30.0


@dataclass(slots=True)
class _Idleness:
    """When something carried its last byte, as far as we looked."""

    total: int
    since_s: float
    is_warned: bool = False

    def look(self, total: int, now_s: float) -> float:
        """Give for how long nothing has passed."""
        if total != self.total:
            self.total, self.since_s, self.is_warned = total, now_s, False
        return now_s - self.since_s


class ConnectionLimits:
    """The limits of one connection from its login on; `rule` may change while it lasts."""

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
        """Apply `rule` from now on, or none."""
        self._rule = rule
        self._look()

    def stop(self) -> None:
        """Look no more."""
        self._rule = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rule = self._rule
        if rule is None or not self._connection.is_open:
            return
        now_s = self._loop.time()
        left = [self._look_at_length(rule, now_s), self._look_at_idleness(rule, now_s)]
        if rule.program_idle_s:
            left += self._look_at_programs(rule, now_s)
        if any(left_s <= 0 for left_s in left[:2]):
            return  # it is over, and the connection with it
        if next_s := min((each for each in left if each > 0), default=0.0):
            self._timer = self._loop.call_later(next_s, self._look)

    def _look_at_length(self, rule: LimitRule, now_s: float) -> float:
        if not rule.max_length_s:
            return _LONGEST_S
        left_s = self._began_s + rule.max_length_s - now_s
        limit = spoken(rule.max_length_s)
        if left_s <= 0:
            end = End(EndReason.LENGTH, f"longer than {limit}")
            self._connection.controls.end(f"this connection has lasted for {limit}, which is the limit", end)
        elif left_s <= rule.warn_s and not self._is_warned_of_length:
            self._is_warned_of_length = True
            self._connection.controls.warn(
                f"this connection ends in {spoken(left_s)}, after {limit}, which is the limit"
            )
        return left_s if self._is_warned_of_length or left_s <= rule.warn_s else left_s - rule.warn_s

    def _look_at_idleness(self, rule: LimitRule, now_s: float) -> float:
        if not rule.idle_s:
            return _LONGEST_S
        idle_s = self._idleness.look(self._connection.bytes_total, now_s)
        return self._judge(self._idleness, idle_s, rule.idle_s, rule.warn_s, self._connection.controls)

    def _look_at_programs(self, rule: LimitRule, now_s: float) -> list[float]:
        live = self._connection.programs
        for gone in self._programs.keys() - live.keys():
            del self._programs[gone]
        left = []
        for id_, program in tuple(live.items()):
            if program.kind not in PROGRAMS:
                continue
            idleness = self._programs.setdefault(id_, _Idleness(program.bytes_total, now_s))
            idle_s = idleness.look(program.bytes_total, now_s)
            left.append(self._judge(idleness, idle_s, rule.program_idle_s, rule.warn_s, program.controls))
        # A program that begins before the next look is not late by more than that.
        return [*left, _pace(rule.program_idle_s)]

    def _judge(
        self, idleness: _Idleness, idle_s: float, limit_s: float, warn_s: float, controls: Controls
    ) -> float:
        """Warn or strike; gives the seconds to the next look, none of which are left after the strike."""
        left_s = limit_s - idle_s
        if left_s <= 0:
            end = End(EndReason.IDLE, f"nothing for {spoken(limit_s)}")
            controls.end(f"nothing was sent or received for {spoken(limit_s)}, which is the limit", end)
            return 0.0
        if left_s <= warn_s and not idleness.is_warned:
            idleness.is_warned = True
            controls.warn(f"idle: this ends in {spoken(left_s)} unless something is sent or received")
        due_s = left_s if idleness.is_warned else left_s - warn_s
        return min(max(due_s, _SHORTEST_S), _pace(limit_s))


def _pace(limit_s: float) -> float:
    return min(max(limit_s / _LOOKS_PER_LIMIT, _SHORTEST_S), _LONGEST_S)


def spoken(seconds: float) -> str:
    """Say a duration as a person does: `45 s`, `30 min`, `8 h`, `1 h 30 min`."""
    whole = max(1, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
