"""Fair shares of the event loop for connections that have input to process.

A connection processes one slice of its input in a turn of the event loop: so many units, where a packet is
one or more, or so much processor time. All connections together have a budget for each turn. What is left
waits for a later turn, with reading paused, and everything else that the loop has to do comes in between.

The order is that of FQ-CoDel (RFC 8290 §4): connections that had nothing to process go before those that
still have, and those go round. A calm connection is served at once, in the callback that read its bytes.

What a slice took beyond twice its time, because of one costly packet (a key exchange, a signature), is a
debt. All debts are paid one after the other, and the debtor waits until its own is paid: costly packets,
however many connections send them, take half of the time at most.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Limits(NamedTuple):
    """Bounds of one turn of the event loop."""

    slice_units: int = 32
    """Of one connection."""
    new_units: int = 8
    """Of one that had nothing to process and waits because others took the turn; the rest goes round."""
    slice_s: float = 0.002
    """Processor time of one connection."""
    turn_units: int = 64
    """Of all connections that wait, and as much again of all that have just read something."""
    turn_s: float = 0.004
    """As `turn_units`, in processor time."""
    debt_share: float = 0.5
    """Of the time, above 0 and at most 1, for what slices took beyond twice `slice_s`."""


LIMITS = Limits()


class Allowance:
    """What may still be processed in one slice."""

    __slots__ = ("_clock", "_until", "units")

    def __init__(self, units: int, seconds: float, clock: Callable[[], float] = time.thread_time) -> None:
        self.units = units
        self._clock = clock
        self._until = clock() + seconds

    @classmethod
    def slice(cls, limits: Limits = LIMITS) -> "Allowance":
        """Return the allowance of one whole slice."""
        return cls(limits.slice_units, limits.slice_s)

    def spend(self, units: int = 1) -> None:
        """Count what was processed; the last packet may exceed what was left."""
        self.units -= units

    @property
    def is_spent(self) -> bool:
        """Whether the next packet has to wait."""
        return self.units <= 0 or self._clock() >= self._until


class Worker(Protocol):
    """What has input to process: a connection."""

    def process(self, allowance: Allowance) -> bool:
        """Process input until none is left or `allowance` is spent. Return whether there is more."""
        ...

    def hold(self) -> None:
        """Read no more until `process` is called."""
        ...


class Slices:
    """The scheduler; one per event loop."""

    def __init__(self, limits: Limits = LIMITS, clock: Callable[[], float] = time.thread_time) -> None:
        """`clock` gives the processor time of the event loop's thread in seconds."""
        self._limits = limits
        self._clock = clock
        self._new: dict[Worker, None] = {}
        self._old: dict[Worker, None] = {}
        self._served: dict[Worker, int] = {}
        self._resting: dict[Worker, asyncio.TimerHandle] = {}
        self._debts: dict[Worker, float] = {}
        self._paid_at = 0.0
        self._units_left = limits.turn_units
        self._seconds_left = limits.turn_s
        self._next_turn: asyncio.Handle | None = None

    def __len__(self) -> int:
        """Count the connections that wait."""
        return len(self._new) + len(self._old) + len(self._resting)

    def ready(self, worker: Worker) -> None:
        """Have `worker` process what it has: at once when this turn has room, else in a later one."""
        if worker in self._new or worker in self._old or worker in self._resting:
            return
        if self._rests(worker):
            worker.hold()
        elif self._has_room() and self._served.get(worker, 0) < self._limits.slice_units:
            self._serve_at_once(worker)
        else:
            worker.hold()
            self._wait(worker, self._old if worker in self._served else self._new)

    def forget(self, worker: Worker) -> None:
        """Drop a worker that has gone. Twice is fine."""
        for known in (self._new, self._old, self._served, self._debts):
            known.pop(worker, None)
        if (timer := self._resting.pop(worker, None)) is not None:
            timer.cancel()

    # ---------------------------------------------------------------------------------- one turn

    def _turn(self) -> None:
        """Serve those that wait, then leave as much room for what the loop reads next."""
        self._served.clear()
        self._make_room()
        try:
            self._serve_waiting()
        finally:
            self._make_room()
            self._next_turn = None
            if self._served or self._new or self._old:
                self._call_soon()

    def _serve_waiting(self) -> None:
        for worker in (*self._new, *self._old):
            if not self._has_room():
                break
            is_new = worker in self._new
            if self._take(worker):
                self._serve(worker, self._limits.new_units if is_new else self._limits.slice_units)

    def _take(self, worker: Worker) -> bool:
        """Take `worker` out of its queue; False when it has gone meanwhile."""
        queue = self._new if worker in self._new else self._old
        return queue.pop(worker, self) is None

    def _make_room(self) -> None:
        self._units_left = self._limits.turn_units
        self._seconds_left = self._limits.turn_s

    def _has_room(self) -> bool:
        return self._units_left > 0 and self._seconds_left > 0

    def _call_soon(self) -> None:
        """Schedule the next turn; the one under way does so when it ends."""
        if self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_soon(self._turn)

    def _wait(self, worker: Worker, queue: dict[Worker, None]) -> None:
        queue[worker] = None
        self._call_soon()

    def _serve_at_once(self, worker: Worker) -> None:
        """Serve `worker` in the callback that read its bytes.

        The next turn goes behind everything that the event loop has to do by now: it may have been scheduled
        long before the first packet, and a connection would have two slices with nothing in between.
        """
        was_untouched = self._units_left == self._limits.turn_units
        self._serve(worker, self._limits.slice_units)
        if was_untouched and self._units_left < self._limits.turn_units and self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
            self._call_soon()

    def _serve(self, worker: Worker, units: int) -> None:
        limits, served = self._limits, self._served.get(worker, 0)
        units = min(units - served, self._units_left)
        allowance = Allowance(units, min(limits.slice_s, self._seconds_left), self._clock)
        begun = self._clock()
        has_more = worker.process(allowance)
        took_s = self._clock() - begun
        spent = units - allowance.units
        self._served[worker] = served + spent
        self._units_left -= spent
        self._seconds_left -= took_s
        self._charge(worker, took_s - 2 * limits.slice_s)
        if not has_more:
            self._call_soon()  # the next turn begins with room again
        elif not self._rests(worker):
            self._wait(worker, self._old)

    # -------------------------------------------------------------------------------------- debts

    def _charge(self, worker: Worker, excess_s: float) -> None:
        if excess_s > 0:
            now = asyncio.get_running_loop().time()
            self._paid_at = max(self._paid_at, now) + excess_s / self._limits.debt_share
            self._debts[worker] = self._paid_at

    def _rests(self, worker: Worker) -> bool:
        """Have a debtor wait until its debt is paid; False for everybody else."""
        if worker not in self._debts:
            return False
        loop = asyncio.get_running_loop()
        rest_s = self._debts[worker] - loop.time()
        if rest_s <= 0:
            del self._debts[worker]
            return False
        self._resting[worker] = loop.call_later(rest_s, self._rested, worker)
        return True

    def _rested(self, worker: Worker) -> None:
        del self._resting[worker]
        self._debts.pop(worker, None)
        self._wait(worker, self._old)
