"""The spool of one recording: bounded lines on their way to storage, in blocks and in order, through outages.

An outage begins with the first operation that fails or takes too long, or when a full buffer has waited too
long; it ends when an operation succeeds. A failed block is stored again unchanged, so the body has no hole. A
gap is where lines were refused; the writer of the lines marks it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from proxy.recording.chain import Chain
from proxy.recording.manifest import Place
from proxy.recording.store import RecordingStore, StorageError
from proxy.settings.recording import RecordingSettings

_INLINE_BYTES = 32 * 1024  # hashing less than this is cheaper than passing it to a thread


class Budget:
    """The bytes that all recordings of the process may hold together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.used = 0

    @property
    def is_spent(self) -> bool:
        """Return whether no more bytes may be held."""
        return self.used >= self._limit


@dataclass(slots=True)
class RecordingGap:
    """Lines that were left out."""

    began_s: float
    lost_bytes: int = 0


class StorageObserver(Protocol):
    """An observer of the storage; every call returns soon and raises nothing."""

    def went_down(self, reason: str) -> None:
        """Handle the first failure of an outage, or a full buffer."""

    def came_back(self) -> None:
        """Handle the first success after an outage."""

    def gave_up(self, reason: str) -> None:
        """Handle, under `refuse`, that the outage is too long. No line is taken any more."""

    def resumed(self, gap: RecordingGap) -> None:
        """Handle that lines are taken again after `gap`."""


class Spool:
    """The lines of one recording. `run` belongs in a task of the process, not of the session."""

    def __init__(
        self,
        context: "SpoolContext",
        place: Place,
        chain: Chain,
        observer: StorageObserver,
        *,
        clock: Callable[[], float],
        refuses: bool,
    ) -> None:
        """Create it; `clock` returns the seconds since the recording began."""
        self._store = context.store
        self._settings = context.settings
        self._budget = context.budget
        self._place = place
        self._chain = chain
        self._observer = observer
        self._clock = clock
        self._refuses = refuses
        self._lines: deque[bytes] = deque()
        self._waiting = 0  # bytes in `_lines`
        self._held = 0  # those, and the block that is being stored
        self._gap: RecordingGap | None = None
        self._down_since: float | None = None
        self._gave_up = False
        self._deadline: float | None = None
        self._attempt: asyncio.Timeout | None = None
        self._any = asyncio.Event()
        self._enough = asyncio.Event()
        self._drained = asyncio.Event()
        self.stored = asyncio.Event()
        """Set when the first block is stored, or never will be."""

    # ------------------------------------------------------------------------ the writer of the lines

    def add(self, line: bytes) -> None:
        """Take a line, or leave it out while no more can be held."""
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
        """Return whether lines are being left out now."""
        return self._gap is not None

    @property
    def has_room(self) -> bool:
        """Return whether another line can be held."""
        return self._held < self._settings.buffer_bytes and not self._budget.is_spent

    async def room(self) -> None:
        """Wait for room for another line as long as storage works; then begin an outage."""
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
        """Take no more lines; held lines have `close_timeout_s` to be stored."""
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
            self._gap = RecordingGap(self._clock())

    # -------------------------------------------------------------------------------- towards storage

    async def run(self) -> bool:
        """Store everything until closed; return whether everything taken is stored."""
        try:
            while lines := await self._next():
                if not await self.retry_until_stored(self._append(*await self._seal(lines))):
                    return False
                self._stored(len(lines))
            return True
        finally:
            self._budget.used -= self._held
            self._held = 0
            self.stored.set()
            self._drained.set()

    async def retry_until_stored(self, operation: Callable[[], Awaitable[None]]) -> bool:
        """Repeat an operation until it succeeds; return False at the deadline after `close`."""
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
        """Wait for a block of lines, but not for long, and for the first block not at all.

        Return nothing when closed and empty.
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
            self._observer.resumed(gap)

    def _patience(self) -> float:
        if self._deadline is None:
            return self._settings.write_timeout_s
        return min(self._deadline - self._clock(), self._settings.write_timeout_s)

    async def _pause(self) -> None:
        """Wait between two attempts; a close shortens the wait."""
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
            self._observer.went_down(reason)
        if self._refuses and self._clock() - self._down_since >= self._settings.refuse_after_s:
            self._give_up(reason)

    def _come_back(self) -> None:
        if self._down_since is not None:
            self._down_since = None
            self._observer.came_back()

    def _give_up(self, reason: str) -> None:
        if not self._gave_up and self._deadline is None:
            self._gave_up = True
            self._drained.set()
            self._observer.gave_up(reason)


@dataclass(frozen=True, slots=True)
class SpoolContext:
    """The parts that all spools of a process share."""

    settings: RecordingSettings
    store: RecordingStore
    budget: Budget
