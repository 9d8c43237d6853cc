"""A bus that reaches every replica through NATS, and survives outages of every NATS server.

    publish ─▶ Outbox ─▶ batch ─▶ Link ─▶ server
                 ▲                 │ acknowledged: published · refused for good: failed
                 └──── the rest ───┘ connection lost or silent: sent again by the next one

Connections are in `nats`; between two of them, events wait here in a bounded queue.
"""

import asyncio
from contextlib import suppress

import structlog

from proxy.aio import TaskOwner
from proxy.events import subjects
from proxy.events.nats import Link
from proxy.events.publisher import Mailbox, Outbox, Subscription, render
from proxy.events.schema import Event
from proxy.nats.outages import OutageLog, stay_connected
from proxy.nats.wire import LinkFailed
from proxy.settings.events import EventsSettings

_log = structlog.get_logger("events")


class NatsBus:
    """A bus that carries events through NATS; see publisher.Bus.

    Guarantees: an event given to `publish` is kept until a server has acknowledged it, or until more than
    `queue_size` newer ones wait, which is counted. Start-up and logins never wait for NATS. Every kind of
    NATS failure is logged once when it begins and once when it ends.
    """

    def __init__(self, settings: EventsSettings, *, proxy_id: str) -> None:
        assert settings.urls, "without a URL there is nothing to connect to: InProcessBus"
        self._settings = settings
        self._proxy_id = proxy_id
        self._outbox = Outbox(settings.queue_size)
        self.counters = self._outbox.counters
        self._mailboxes: list[Mailbox] = []
        self._tasks = TaskOwner("events")
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._link: Link | None = None
        self._outages = OutageLog("nats")
        self._overflowing = False
        self._closed = False

    @property
    def pending(self) -> int:
        """See publisher.Bus."""
        return len(self._outbox)

    @property
    def connected(self) -> bool:
        """Return whether a server is connected, as far as is known."""
        return self._link is not None and self._link.opened and not self._link.lost.done()

    def start(self) -> None:
        """See publisher.Bus."""
        self._tasks.spawn(stay_connected(self._settings, self._hold), name="nats")

    def publish(self, event: Event) -> None:
        """See publisher.Publisher."""
        item = render(event, self._proxy_id, self.counters)
        if item is None:
            return
        if self._closed:
            self.counters.dropped += 1
            return
        self._note_overflow(fitted=self._outbox.put(item))
        self._wake.set()

    def subscribe(self, pattern: str) -> Subscription:
        """See publisher.Bus."""
        subjects.check_pattern(pattern)
        mailbox = Mailbox(pattern, self._settings.subscription_queue_size, self._unsubscribed)
        self._mailboxes.append(mailbox)
        if self._closed:
            mailbox.close()
        self._wake.set()
        return mailbox

    def _unsubscribed(self, mailbox: Mailbox) -> None:
        self._mailboxes.remove(mailbox)
        self._wake.set()

    async def close(self, flush_timeout_s: float) -> None:
        """See publisher.Bus. Returns shortly after `flush_timeout_s` at most, with or without a server."""
        self._closed = True
        self._wake.set()
        if self._outbox and len(self._tasks):
            self._drained.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(flush_timeout_s):
                    await self._drained.wait()
        if self._link is not None:
            self._link.fail("closing")
        await self._tasks.close()
        if left := self._outbox.drop_all():
            _log.warning("events not delivered before shutdown", dropped=left)
        for mailbox in tuple(self._mailboxes):
            mailbox.close()

    # ------------------------------------------------------------------------------ the connection

    async def _hold(self, url: str) -> bool:
        """Keep one connection until it is lost."""
        before = self.counters.published
        link = self._link = Link(self._settings, url, self._wake.set)
        try:
            await link.open()
            delivery = "stream" if link.in_stream else "core"
            self._outages.connected(url, delivery=delivery, **self._figures())
            await self._carry(link)
        except LinkFailed as exc:
            self._outages.disconnected(url, str(exc), **self._figures())
        except Exception:  # noqa: BLE001 (a bug here or in nats-py must not end events until a restart)
            _log.exception("events failed", server=url)
        finally:
            self._link = None
            await link.dispose()
        return link.opened and (self.counters.published > before or not self._outbox)

    def _figures(self) -> dict[str, int]:
        return {"pending": self.pending, "dropped": self.counters.dropped}

    async def _carry(self, link: Link) -> None:
        """Serve readers and send batches until the link fails, which raises."""
        while True:
            self._wake.clear()
            await link.read_for(self._mailboxes)
            if batch := self._outbox.take(self._settings.batch_size):
                try:
                    await link.send(batch)
                finally:
                    kept = self._outbox.settle(published=link.published, failed=link.refused)
                    self._note_overflow(fitted=kept)
                    if not self._outbox:
                        self._drained.set()
                self._overflowing = self._overflowing and len(self._outbox) >= self._settings.queue_size
            else:
                await link.idle(self._wake)

    def _note_overflow(self, *, fitted: bool) -> None:
        if not fitted and not self._overflowing:
            self._overflowing = True
            _log.warning("event queue full: dropping the oldest", queue_size=self._settings.queue_size)
