"""Lets strangers' handshakes onto the event loop one piece at a time, so that known users need not wait.

A key exchange occupies the loop for milliseconds, and five hundred of them that arrive in one turn of the
loop would occupy it for seconds. Here each piece of a stranger's handshake waits for its turn: sources go
round, and after each piece the loop belongs to everybody else for as long as the piece took, at least. With
nobody waiting a piece is done at once.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

_log = structlog.get_logger("ssh")

Work = Callable[[], None]

_FOLLOWED = 3
"""Turns of the loop: asyncssh handles a packet in a task, which may begin another."""
_MAX_REST_S = 0.1
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

    def __init__(self, share: float) -> None:
        """`share` of the loop's time, above 0 and at most 1, is what all strangers together may take."""
        self._rest_per_second = (1 - share) / share
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()
        self._is_taken = False
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

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def _do(self, work: Work) -> None:
        self._is_taken = True
        begun = time.thread_time()
        try:
            work()
        except Exception:  # noqa: BLE001 (a bug in one piece must not keep all others waiting for ever)
            _log.exception("handshake failed by a bug")
        asyncio.get_running_loop().call_soon(self._follow, begun, _FOLLOWED)

    def _follow(self, begun: float, rounds: int) -> None:
        """Let the tasks that a piece began run their first steps, where most of its work is done."""
        loop = asyncio.get_running_loop()
        if rounds:
            loop.call_soon(self._follow, begun, rounds - 1)
            return
        rest_s = (time.thread_time() - begun) * self._rest_per_second
        loop.call_later(min(rest_s, _MAX_REST_S), self._next)

    def _next(self) -> None:
        self._is_taken = False
        if not self._waiting:
            return
        source, works = self._waiting.popitem(last=False)
        work = works.popleft()
        if works:
            self._waiting[source] = works
        self._do(work)
