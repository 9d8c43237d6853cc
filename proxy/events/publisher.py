"""The interface of events for the rest of the proxy: Publisher, Bus, and the bounded queues of both buses.

No module here uses NATS. All objects belong to one event loop and are called from its thread only.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import structlog

from proxy.events import cloudevents, schema, subjects

_log = structlog.get_logger("events")


class Message(NamedTuple):
    """One event as any replica published it; `cloudevents.decode(data)` decodes it."""

    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """A mark of missed messages: a reader that keeps state must read that state again.

    It is the first item of every subscription, and the first after each reconnection, because messages may
    have been published before. So a reader needs no other initial step.
    """

    missed: int | None
    """Number of messages that a slow reader lost; None when it was not connected."""


@dataclass(slots=True)
class Counters:
    """Counts of the events given to `publish`, by outcome; they only grow.

    Given = published + dropped + failed + pending. An event is counted as dropped when its acknowledgement
    was not received, so it may have arrived all the same.
    """

    published: int = 0
    """Acknowledged by the server, or passed to the readers of this process."""
    dropped: int = 0
    """The oldest of a full queue, and the rest when the bus was closed."""
    failed: int = 0
    """Refused for good: too large, not permitted, or not encodable."""


class Publisher(Protocol):
    """A consumer of events; most of the proxy needs nothing else of this package."""

    def publish(self, event: schema.Event) -> None:
        """Accept `event` for publication.

        Guarantees: never raises, never blocks, never waits for the network.
        """


class Subscription(Protocol):
    """Messages of one pattern, for one reader: `async for item in subscription`.

    Messages come in order; a full queue drops the oldest and a Gap marks the loss. The iteration ends when
    the subscription or the bus is closed.
    """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Message | Gap: ...

    async def live(self) -> None:
        """Return when messages arrive; not before the first connection to NATS."""

    def close(self) -> None:
        """End the subscription; waiting messages are dropped. Further calls do nothing."""


class Bus(Publisher, Protocol):
    """A publisher that also delivers events."""

    @property
    def counters(self) -> Counters:
        """Return the counts of this bus."""

    @property
    def pending(self) -> int:
        """Return the number of events accepted and not yet acknowledged."""

    @property
    def connected(self) -> bool:
        """Return whether events leave this process now; always True for an in-process bus."""

    def start(self) -> None:
        """Start to carry events; needs a running loop and does not wait for any server.

        Events published before are kept.
        """

    def subscribe(self, pattern: str) -> Subscription:
        """Subscribe to `pattern` of `subjects`, as published by this replica and all others.

        Raises: ValueError for a pattern that is not below `fairlead`.
        """

    async def close(self, flush_timeout_s: float) -> None:
        """Send pending events for at most `flush_timeout_s` seconds (≥ 0), then end everything.

        The rest is counted as dropped, and so are events published later.
        """


class Rendered(NamedTuple):
    """An encoded event."""

    subject: str
    id: str
    data: bytes


def render(event: schema.Event, proxy_id: str, counters: Counters) -> Rendered | None:
    """Encode `event`; None, counted and logged, when that fails: publishing never raises."""
    try:
        subject = subjects.subject_of(event)
        data = cloudevents.encode(event, type_=subject, proxy_id=proxy_id)
    except Exception:  # noqa: BLE001 (a bug in an event must not cost a login)
        counters.failed += 1
        _log.exception("event cannot be rendered", event_type=type(event).__name__)
        return None
    return Rendered(subject, event.id, data)


class Outbox:
    """A queue of events without acknowledgement: at most `size`, plus the batch in progress."""

    __slots__ = ("_size", "_taken", "_waiting", "counters")

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: deque[Rendered] = deque()
        self._taken: list[Rendered] = []
        self.counters = Counters()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._taken)

    def put(self, item: Rendered) -> bool:
        """Append `item`; return False when the oldest was dropped for it."""
        self._waiting.append(item)
        return self._trim()

    def take(self, count: int) -> list[Rendered]:
        """Start a batch of at most `count` events, oldest first; the previous batch must be settled."""
        assert not self._taken
        self._taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        return self._taken

    def settle(self, *, published: Iterable[str], failed: Iterable[str]) -> bool:
        """End the batch by ids; events in neither list return to the front of the queue.

        Returns False when some of them had to be dropped.
        """
        done, refused = set(published), set(failed)
        back = [item for item in self._taken if item.id not in done | refused]
        self.counters.published += sum(item.id in done for item in self._taken)
        self.counters.failed += sum(item.id in refused and item.id not in done for item in self._taken)
        self._taken = []
        self._waiting.extendleft(reversed(back))
        return self._trim()

    def drop_all(self) -> int:
        """Drop every event; return their number."""
        count = len(self)
        self.counters.dropped += count
        self._waiting.clear()
        self._taken = []
        return count

    def _trim(self) -> bool:
        excess = max(0, len(self._waiting) - self._size)
        for _ in range(excess):
            self._waiting.popleft()
        self.counters.dropped += excess
        return excess == 0


class Mailbox:
    """A queue of messages for one reader; a Subscription."""

    __slots__ = ("_closed", "_gap", "_live", "_missed", "_on_close", "_size", "_waiting", "_wake", "pattern")

    def __init__(self, pattern: str, size: int, on_close: Callable[["Mailbox"], None]) -> None:
        self.pattern = pattern
        self._size = size
        self._on_close = on_close
        self._waiting: deque[Message] = deque()
        self._missed = 0
        self._gap = False
        self._closed = False
        self._wake = asyncio.Event()
        self._live = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        while not self._closed:
            if self._gap or self._missed:
                gap = Gap(None if self._gap else self._missed)
                self._gap, self._missed = False, 0
                return gap
            if self._waiting:
                return self._waiting.popleft()
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    async def live(self) -> None:
        """See Subscription."""
        await self._live.wait()

    def went_live(self) -> None:
        """Make `live` return; messages published before are a gap."""
        self.put_gap()
        self._live.set()

    def put(self, message: Message) -> None:
        """Append `message`; drop the oldest when the queue is full."""
        if self._closed:
            return
        if len(self._waiting) >= self._size:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(message)
        self._wake.set()

    def put_gap(self) -> None:
        """Mark that an unknown number of messages was missed."""
        self._gap = True
        self._wake.set()

    def close(self) -> None:
        """See Subscription."""
        if not self._closed:
            self._closed = True
            self._waiting.clear()
            self._wake.set()
            self._live.set()
            self._on_close(self)
