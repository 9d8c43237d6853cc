"""Lines on their way to storage: bounded, in blocks, in order; and what happens when it takes none.

Storage is down from the first operation that fails or takes too long, or from the moment a full buffer has
waited too long, until an operation succeeds. A block that failed is tried again as it is, so the body has no
hole; a gap is where lines were refused at the door, and it is marked by whoever writes the lines.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from proxy.recording.chain import Chain
from proxy.recording.manifest import Place
from proxy.recording.store import StorageError, Store
from proxy.settings.recording import RecordingSettings

_INLINE_BYTES = 32 * 1024  # hashing less than this costs less than handing it to a thread


class Budget:
    """Bytes that all recordings of the process may hold together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.used = 0

    @property
    def is_spent(self) -> bool:
        return self.used >= self._limit


@dataclass(slots=True)
class Gap:
    """What is left out."""

    began_s: float
    lost_bytes: int = 0


class Watcher(Protocol):
    """Hears how storage fares; every call is quick and raises nothing."""

    def went_down(self, reason: str) -> None:
        """An operation failed, or the buffer is full: the first time of an outage."""

    def came_back(self) -> None:
        """An operation succeeded again."""

    def gave_up(self, reason: str) -> None:
        """Under `refuse`: the outage is too long. No line is taken any more."""

    def resumed(self, gap: Gap) -> None:
        """Lines are taken again; this is what is missing before the next."""


class Spool:
    """The lines of one recording. `run` belongs to a task of the process, not to that of the session."""

    def __init__(
        self,
        common: "Common",
        place: Place,
        chain: Chain,
        watcher: Watcher,
        *,
        clock: Callable[[], float],
        refuses: bool,
    ) -> None:
        """`clock` gives seconds since the recording began."""
        self._store = common.store
        self._settings = common.settings
        self._budget = common.budget
        self._place = place
        self._chain = chain
        self._watcher = watcher
        self._clock = clock
        self._refuses = refuses
        self._lines: deque[bytes] = deque()
        self._waiting = 0  # bytes in `_lines`
        self._held = 0  # those, and the block under way
        self._gap: Gap | None = None
        self._down_since: float | None = None
        self._gave_up = False
        self._deadline: float | None = None
        self._attempt: asyncio.Timeout | None = None
        self._any = asyncio.Event()
        self._enough = asyncio.Event()
        self._drained = asyncio.Event()
        self.stored = asyncio.Event()
        """The first block is safe, or there will be none."""

    # ------------------------------------------------------------------- for whoever writes the lines

    def add(self, line: bytes) -> None:
        """Take a line; or leave it out, while nothing more can be held."""
        if self._gap is not None or self._gave_up:
            if self._gap is not None:
                self._gap.lost_bytes += len(line)
            return
        self._lines.append(line)
        self._waiting += len(line)
        self._held += len(line)
        self._budget.used += len(line)
        self._any.set()
        if self._waiting >= self._settings.block_bytes:
            self._enough.set()

    @property
    def is_interrupted(self) -> bool:
        return self._gap is not None

    @property
    def has_room(self) -> bool:
        return self._held < self._settings.buffer_bytes and not self._budget.is_spent

    async def room(self) -> None:
        """Wait until another line can be held, as long as storage keeps taking any; then give it up."""
        while not (self.has_room or self._gap is not None or self._gave_up):
            self._drained.clear()
            try:
                if self._down_since is None:
                    async with asyncio.timeout(self._settings.max_delay_s):
                        await self._drained.wait()
                        continue
            except TimeoutError:
                pass
            self._overflow()

    def close(self) -> None:
        """No line follows; what is held has `close_timeout_s` to be stored."""
        if self._deadline is None:
            self._deadline = self._clock() + self._settings.close_timeout_s
            self._any.set()
            self._enough.set()
            if self._attempt is not None and not self._attempt.expired():
                loop = asyncio.get_running_loop()
                latest = loop.time() + self._patience()
                self._attempt.reschedule(min(latest, self._attempt.when() or latest))

    def _overflow(self) -> None:
        self._go_down("it takes less than is recorded", self._clock())
        if self._refuses:
            self._give_up("the buffer is full")
        else:
            self._gap = Gap(self._clock())

    # -------------------------------------------------------------------------------- towards storage

    async def run(self) -> bool:
        """Store everything until closed; tells whether all that was taken is stored."""
        try:
            while lines := await self._next():
                if not await self.insist(self._append(*await self._seal(lines))):
                    return False
                self._stored(len(lines))
            return True
        finally:
            self._budget.used -= self._held
            self._held = 0
            self.stored.set()
            self._drained.set()

    async def insist(self, operation: Callable[[], Awaitable[None]]) -> bool:
        """Try until it succeeds; False when the deadline after `close` passes first."""
        while True:
            began = self._clock()
            try:
                async with asyncio.timeout(self._patience()) as self._attempt:
                    await operation()
            except (StorageError, TimeoutError) as exc:
                self._go_down(str(exc) or "it does not answer", began)
            else:
                self._come_back()
                return True
            finally:
                self._attempt = None
            if self._patience() <= 0:
                return False
            await self._pause()

    async def _next(self) -> bytes:
        """Wait for a block's worth of lines, but not for long, and for the first not at all.

        Nothing when closed and empty.
        """
        while not self._lines and self._deadline is None:
            self._any.clear()
            await self._any.wait()
        if self._chain.blocks and self._waiting < self._settings.block_bytes and self._deadline is None:
            self._enough.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.flush_interval_s):
                    await self._enough.wait()
        taken: list[bytes] = []
        size = 0
        while self._lines and size < self._settings.block_bytes:
            taken.append(self._lines.popleft())
            size += len(taken[-1])
        self._waiting -= size
        return b"".join(taken)

    async def _seal(self, lines: bytes) -> tuple[int, int, bytes]:
        chain, at_s, offset = self._chain, self._clock(), self._chain.size
        if len(lines) < _INLINE_BYTES:
            block = chain.seal(lines, at_s)
        else:
            block = await asyncio.to_thread(chain.seal, lines, at_s)
        return chain.blocks, offset, block

    def _append(self, number: int, offset: int, block: bytes) -> Callable[[], Awaitable[None]]:
        return lambda: self._store.append(self._place, number, offset, block)

    def _stored(self, size: int) -> None:
        self._held -= size
        self._budget.used -= size
        self._drained.set()
        self.stored.set()
        if self._gap is not None and self._held <= self._settings.buffer_bytes // 2 and self.has_room:
            gap, self._gap = self._gap, None
            self._watcher.resumed(gap)

    def _patience(self) -> float:
        if self._deadline is None:
            return self._settings.write_timeout_s
        return min(self._deadline - self._clock(), self._settings.write_timeout_s)

    async def _pause(self) -> None:
        """Wait between two attempts; a close does not wait for the end of it."""
        pause_s = self._settings.retry_interval_s
        if self._deadline is not None:
            await asyncio.sleep(min(pause_s, max(self._deadline - self._clock(), 0)))
            return
        self._enough.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                while self._deadline is None:
                    await self._enough.wait()
                    self._enough.clear()

    # --------------------------------------------------------------------------------------- outages

    def _go_down(self, reason: str, since: float) -> None:
        if self._down_since is None:
            self._down_since = since
            self._watcher.went_down(reason)
        if self._refuses and self._clock() - self._down_since >= self._settings.refuse_after_s:
            self._give_up(reason)

    def _come_back(self) -> None:
        if self._down_since is not None:
            self._down_since = None
            self._watcher.came_back()

    def _give_up(self, reason: str) -> None:
        if not self._gave_up and self._deadline is None:
            self._gave_up = True
            self._drained.set()
            self._watcher.gave_up(reason)


@dataclass(frozen=True, slots=True)
class Common:
    """What all spools of a process share."""

    settings: RecordingSettings
    store: Store
    budget: Budget
