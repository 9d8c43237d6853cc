"""Fair shares of the event loop for connections with input to process.

A connection processes one slice of its input in an iteration of the event loop: a number of units, where a
packet is one or more, or an amount of processor time. All connections together have a budget for each
iteration. The rest waits for a later iteration, with reading paused, and the loop does its other work
between.

The order is that of FQ-CoDel (RFC 8290 §4): connections that had nothing to process go before those that
still have, and those take turns. An idle connection is served at once, in the callback that read its bytes.

A slice that took more than twice its time, because of one costly packet (a key exchange, a signature), leaves
a debt. Debts are paid one after the other, and the debtor waits until its own is paid: costly packets,
however many connections send them, take half of the time at most.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Limits(NamedTuple):
    """Bounds of one iteration of the event loop."""

    slice_units: int = 32
    """Units of one connection."""
    new_units: int = 8
    """Units of a connection that was idle and waits because the budget was used up; the rest waits like
    others.
    """
    slice_s: float = 0.002
    """Processor time of one connection."""
    turn_units: int = 64
    """Units of all waiting connections, and as many again of all connections that have just read
    something.
    """
    turn_s: float = 0.004
    """As `turn_units`, in processor time."""
    debt_share: float = 0.5
    """Share of the time, above 0 and at most 1, for what slices took beyond twice `slice_s`."""


LIMITS = Limits()


class Allowance:
    """The units and the time that one slice has left."""

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
        """Count processed units; the last packet may exceed the allowance."""
        self.units -= units

    @property
    def is_spent(self) -> bool:
        """Return whether the next packet has to wait."""
        return self.units <= 0 or self._clock() >= self._until


class Worker(Protocol):
    """A connection with input to process."""

    def process(self, allowance: Allowance) -> bool:
        """Process input until none is left or `allowance` is spent. Return whether there is more."""
        ...

    def hold(self) -> None:
        """Stop reading until `process` is called."""
        ...


class Slices:
    """The scheduler of slices; one for each event loop."""

    def __init__(self, limits: Limits = LIMITS, clock: Callable[[], float] = time.thread_time) -> None:
        """Start with empty queues.

        `clock` returns the processor time of the event loop's thread in seconds.
        """
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
        """Return the number of waiting connections."""
        return len(self._new) + len(self._old) + len(self._resting)

    def ready(self, worker: Worker) -> None:
        """Let `worker` process its input: at once when this iteration has room, else in a later one."""
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
        """Drop a worker that has gone. A second call does nothing."""
        for known in (self._new, self._old, self._served, self._debts):
            known.pop(worker, None)
        if (timer := self._resting.pop(worker, None)) is not None:
            timer.cancel()

    # ---------------------------------------------------------------------------------- one turn

    def _turn(self) -> None:
        """Serve waiting connections, then leave as much room for the next reads of the loop."""
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
        """Remove `worker` from its queue; return False when it has gone."""
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
            self._call_soon()  # the next iteration begins with room again
        elif not self._rests(worker):
            self._wait(worker, self._old)

    # -------------------------------------------------------------------------------------- debts

    def _charge(self, worker: Worker, excess_s: float) -> None:
        if excess_s > 0:
            now = asyncio.get_running_loop().time()
            self._paid_at = max(self._paid_at, now) + excess_s / self._limits.debt_share
            self._debts[worker] = self._paid_at

    def _rests(self, worker: Worker) -> bool:
        """Let a debtor wait until its debt is paid; return False for all others."""
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
