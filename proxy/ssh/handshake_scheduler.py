"""Scheduling of handshakes: clients before their login share a limited part of the event loop.

A key exchange takes milliseconds of processor time. Five hundred that arrive at once would block the event
loop, and with it all users, for seconds. So a handshake runs in pieces; each piece is one slice (see
`asyncssh_ext.slices`). The sources of connections take turns. After each piece the loop is left to other
work, for a time in proportion to the time that the piece took. When no piece waits, a new one runs at once.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple

import structlog

_log = structlog.get_logger("ssh")

Work = Callable[[], None]

_FOLLOWED = 3
"""Loop iterations to wait after a piece: asyncssh handles a packet in a task, which may begin another."""
_MAX_QUERIES = 2


class HandshakeSlot(NamedTuple):
    """The place of one connection in the scheduler; `source` groups connections for fairness."""

    scheduler: "HandshakeScheduler"
    source: str

    def run(self, work: Work) -> bool:
        """Run `work` as HandshakeScheduler.run does."""
        return self.scheduler.run(self.source, work)


class HandshakeScheduler:
    """The scheduler of all handshakes; one for each event loop."""

    def __init__(self, share: float, clock: Callable[[], float] = time.thread_time) -> None:
        """Set `share`: the part of the loop's time for all handshakes together, above 0 and at most 1.

        `clock` returns the processor time of the event loop's thread in seconds.
        """
        self._rest_per_second = (1 - share) / share
        self._clock = clock
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()
        self._is_taken = False
        self._owed_s = 0.0
        self.query_slots = asyncio.Semaphore(_MAX_QUERIES)
        """Limits queries of handshakes to the directory, whose queue logged-in users need as well."""

    def __len__(self) -> int:
        """Return the number of waiting pieces."""
        return sum(map(len, self._waiting.values()))

    def run(self, source: str, work: Work) -> bool:
        """Run `work` now, or later when other pieces wait or the share is used up.

        Later means: after the earlier pieces of its source, and after one piece of every other source.
        Return whether `work` waits.
        """
        if not self._is_taken:
            self._do(work)
            return False
        self._waiting.setdefault(source, deque()).append(work)
        return True

    def charge(self, seconds: float) -> None:
        """Add processor time that handshakes took; the next piece waits for it in proportion."""
        self._owed_s += seconds

    def close(self) -> None:
        """Drop all waiting pieces."""
        self._waiting.clear()

    def _do(self, work: Work) -> None:
        self._is_taken = True
        begun = self._clock()
        try:
            work()
        except Exception:  # noqa: BLE001 (a bug in one piece must not stop all other handshakes)
            _log.exception("handshake failed by a bug")
        self.charge(self._clock() - begun)
        asyncio.get_running_loop().call_soon(self._follow, _FOLLOWED)

    def _follow(self, rounds: int) -> None:
        """Let the tasks that a piece began run their first steps, where most of its work is done."""
        loop = asyncio.get_running_loop()
        if rounds:
            loop.call_soon(self._follow, rounds - 1)
            return
        rest_s, self._owed_s = self._owed_s * self._rest_per_second, 0.0
        loop.call_later(rest_s, self._next)

    def _next(self) -> None:
        self._is_taken = False
        if not self._waiting:
            return
        source, works = self._waiting.popitem(last=False)
        work = works.popleft()
        if works:
            self._waiting[source] = works
        self._do(work)


async def metered(work: Awaitable[None], charge: Callable[[float], None]) -> None:
    """Await `work`, and charge the processor time of each of its steps in seconds."""
    await _Metered(work, charge)


class _Metered:
    """An awaitable that measures its own steps, without the work of the event loop between them."""

    def __init__(self, work: Awaitable[None], charge: Callable[[float], None]) -> None:
        self._work = work
        self._charge = charge

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        step: Callable[[Any], Any] = steps.send
        value: Any = None
        while True:
            begun = time.thread_time()
            try:
                awaited = step(value)
            except StopIteration:
                return
            finally:
                self._charge(time.thread_time() - begun)
            try:
                value, step = (yield awaited), steps.send
            except BaseException as exc:  # noqa: BLE001 (every exception is thrown into the coroutine)
                value, step = exc, steps.throw
