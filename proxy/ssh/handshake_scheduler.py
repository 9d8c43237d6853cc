"""Lets strangers' handshakes onto the event loop one slice at a time, so that known users need not wait.

A key exchange occupies the loop for milliseconds, and five hundred of them that arrive in one turn of the
loop would occupy it for seconds. Here each piece of a stranger's handshake, one slice (`ssh/slices`),
waits for its turn: sources go round, and after each piece the loop belongs to everybody else for as long as
the share of strangers says, however long the piece took. With nobody waiting a piece is done at once.
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
"""Turns of the loop: asyncssh handles a packet in a task, which may begin another."""
_QUESTIONS = 2


class Turn(NamedTuple):
    """A stranger's place among all others, by source."""

    turns: "Turns"
    source: str

    def take(self, work: Work) -> bool:
        """See Turns."""
        return self.turns.take(self.source, work)


class Turns:
    """One per event loop."""

    def __init__(self, share: float, clock: Callable[[], float] = time.thread_time) -> None:
        """`share` of the loop's time, above 0 and at most 1, is what all strangers together may take.

        `clock` gives the processor time of the event loop's thread in seconds.
        """
        self._rest_per_second = (1 - share) / share
        self._clock = clock
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()
        self._is_taken = False
        self._owed_s = 0.0
        self.questions = asyncio.Semaphore(_QUESTIONS)
        """Held by a stranger's handshake while it asks the directory, whose queue everybody shares."""

    def __len__(self) -> int:
        """Count the pieces that wait."""
        return sum(map(len, self._waiting.values()))

    def take(self, source: str, work: Work) -> bool:
        """Do `work` now, or after what the others of its source and one of every other source have to do.

        False when it was done already.
        """
        if not self._is_taken:
            self._do(work)
            return False
        self._waiting.setdefault(source, deque()).append(work)
        return True

    def charge(self, seconds: float) -> None:
        """Count processor time that strangers took; the next piece waits until it is made up for."""
        self._owed_s += seconds

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def _do(self, work: Work) -> None:
        self._is_taken = True
        begun = self._clock()
        try:
            work()
        except Exception:  # noqa: BLE001 (a bug in one piece must not keep all others waiting for ever)
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
    """Work whose steps are timed: not what else the loop does between them."""

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
            except BaseException as exc:  # noqa: BLE001 (whatever it is, it is thrown into the coroutine)
                value, step = exc, steps.throw
