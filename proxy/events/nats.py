"""One connection to NATS: the only importer of nats-py, whose exceptions end here as LinkFailed.

nats-py carries a single connection and never reconnects by itself: when a connection is lost it is thrown
away with all that it holds, and `natsbus` makes the next. So every event that no server has acknowledged is
in our own bounded queue and nowhere else.

An acknowledgement is JetStream's, one per event, or, without JetStream, the PONG behind a batch. Both mean at
least once: `id` tells duplicates, and JetStream removes those of two minutes by itself. See docs/events.md.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js.api import StorageType, StreamConfig

from proxy.aio import TaskOwner, settle
from proxy.events import subjects
from proxy.events.credentials import connect_options
from proxy.events.publisher import Mailbox, Message, Rendered
from proxy.settings.events import EventsSettings

_log = structlog.get_logger("events")

_HEADER_ROOM_BYTES = 1_024
"""The server counts headers into the payload; ours are far smaller."""
_NO_JETSTREAM = {None, 10039, 10076}
"""503 of the JetStream API: nobody answers, not enabled for the account, not enabled at all. Other codes,
such as 10008 while a cluster elects its leader, pass by themselves."""
_STREAM_EXISTS = 10058
_DENIED = re.compile(r'permissions violation for (publish|subscription) (?:to )?"([^"\s]*)"')


class LinkFailed(Exception):
    """This connection cannot be used any longer; the text is for the log."""


class _Client(Client):
    """nats-py's client, with TLS that cannot be stripped and an end that cannot hang.

    Both need its private parts; tests/contract/test_events_nats.py notices when these change.
    """

    must_encrypt = False

    def _connect_command(self) -> bytes:
        """Refuse to send credentials and events in the clear: nats-py encrypts only if the server asks."""
        if self.must_encrypt and not self.encrypted:
            raise nats.errors.Error("the server offers no TLS")
        return super()._connect_command()

    @property
    def _writer(self) -> asyncio.StreamWriter | None:
        return getattr(self._transport, "_io_writer", None)

    @property
    def encrypted(self) -> bool:
        return self._writer is not None and self._writer.get_extra_info("ssl_object") is not None

    def abort(self) -> None:
        """Drop the connection and what is unsent, so that nothing waits for it any longer."""
        self._pending, self._pending_data_size = [], 0
        if self._writer is not None:
            self._writer.transport.abort()

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Every task that runs for this connection; they may outlive `close`."""
        own = (self._reading_task, self._ping_interval_task, self._flusher_task)
        readers = (sub._wait_for_msgs_task for sub in self._subs.values())
        return [task for task in (*own, *readers) if task is not None]


class Link:
    """One connection to one server, from connecting to its end."""

    def __init__(self, settings: EventsSettings, url: str, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._url = url
        self._wake = wake
        self._tasks = TaskOwner("events-link")
        self._client = _Client()
        self._client.must_encrypt = settings.encrypted
        self._reason = ""
        self._readers: dict[Mailbox, NatsSubscription] = {}
        self._denied: set[str] = set()
        self._inbox = ""
        self._sent: dict[str, Rendered] = {}
        self._acknowledged = asyncio.Event()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.opened = False
        """Whether events can be sent; stays true when the connection is lost."""
        self.in_stream = False
        """Whether JetStream acknowledges."""
        self.published: set[str] = set()
        self.refused: set[str] = set()
        """Ids of the last batch that need not be sent again."""

    def fail(self, reason: str) -> None:
        """End the connection now; whoever uses it gets LinkFailed."""
        if not self.lost.done():
            self.lost.set_result(reason)
        self._client.abort()
        self._wake()

    async def _within(self, work: Callable[[], Awaitable[None]], timeout_s: float, late: str) -> None:
        """Run `work` until it ends, the deadline passes or the connection is lost.

        A task of its own, because nats-py swallows cancellation in places: the connection is aborted first.

        Raises: LinkFailed.
        """
        task = self._tasks.spawn(self._guarded(work), name="work")
        either: set[asyncio.Future[Any]] = {task, self.lost}
        try:
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.fail(late)
            elif task.cancelled() or task.exception() is not None:
                self.fail("internal error")
            if self.lost.done():
                raise LinkFailed(self.lost.result())
        finally:
            if not task.done():
                self._client.abort()
                await settle(task)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (nats.errors.Error, OSError, ValueError, AssertionError, AttributeError) as exc:
            self.fail(self._reason or _words(exc))

    async def _ping(self) -> None:
        """Return when the server has read all that was sent; `_within` bounds it."""
        await self._client.flush(timeout=86_400)

    # ------------------------------------------------------------------------------------ connecting

    async def open(self) -> None:
        """Connect, log in, and find out how events are acknowledged.

        Raises: LinkFailed.
        """
        timeout_s = self._settings.connect_timeout_s
        await self._within(self._connect, timeout_s, "no answer")
        if self._settings.delivery != "core":
            await self._within(self._find_stream, timeout_s * 2, "no answer from JetStream")
        if self.in_stream:
            self._inbox = self._client.new_inbox()
            await self._within(self._take_acknowledgements, timeout_s, "no answer")
        self.opened = True

    async def _connect(self) -> None:
        options = await asyncio.to_thread(connect_options, self._settings)
        await self._client.connect(
            [self._url],
            name="fairlead",
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=self._settings.connect_timeout_s,  # type: ignore[arg-type] # seconds, fractions too
            ping_interval=86_400,  # `idle` asks, with a deadline
            pending_size=1,  # a command leaves before `publish` returns, and so before the PING behind it
            flush_timeout=self._settings.ack_timeout_s,
            **options,
        )
        if not self._client.is_connected:
            raise nats.errors.Error("the server hung up")

    async def _find_stream(self) -> None:
        jetstream, settings = self._client.jetstream(), self._settings
        try:
            await jetstream.stream_info(settings.stream)
        except nats.js.errors.NotFoundError:
            await self._make_stream()
        except nats.js.errors.ServiceUnavailableError as exc:
            if exc.err_code not in _NO_JETSTREAM:
                raise
            if settings.delivery == "stream":
                raise nats.errors.Error("the account has no JetStream, and delivery is `stream`") from exc
            return
        self.in_stream = True

    async def _make_stream(self) -> None:
        settings = self._settings
        try:
            await self._client.jetstream().add_stream(
                StreamConfig(
                    name=settings.stream,
                    description="what happens at Fairlead",
                    subjects=[subjects.to_wire(subjects.ALL, settings.prefix)],
                    max_age=settings.stream_max_age_s,
                    max_bytes=settings.stream_max_bytes,
                    num_replicas=settings.stream_replicas,
                    storage=StorageType.FILE,
                )
            )
        except nats.js.errors.BadRequestError as exc:
            if exc.err_code != _STREAM_EXISTS:  # another replica was faster
                raise
        _log.info("nats stream made", stream=settings.stream)

    async def _take_acknowledgements(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_acknowledgement)

    # ------------------------------------------------------------------------------------ publishing

    async def send(self, batch: list[Rendered]) -> None:
        """Send `batch` and wait for its acknowledgement; `published` and `refused` tell of each id.

        Raises: LinkFailed; these two are right all the same.
        """
        self.published, self.refused = set(), set()
        self._sent = {str(number): item for number, item in enumerate(batch)}
        self._acknowledged.clear()
        await self._within(self._send, self._settings.ack_timeout_s, self._silence())

    def _silence(self) -> str:
        whole = subjects.to_wire(subjects.ALL, self._settings.prefix)
        captures = f" (does stream {self._settings.stream!r} capture {whole}?)" if self.in_stream else ""
        return f"no acknowledgement{captures}"

    async def _send(self) -> None:
        for number, item in tuple(self._sent.items()):
            wire = subjects.to_wire(item.subject, self._settings.prefix)
            if len(item.data) + _HEADER_ROOM_BYTES > self._client.max_payload:
                self._refuse(number, f"{len(item.data)} bytes is more than the server takes")
            elif self.in_stream:
                headers = {"Nats-Msg-Id": item.id, "Nats-Expected-Stream": self._settings.stream}
                await self._client.publish(wire, item.data, reply=f"{self._inbox}.{number}", headers=headers)
            else:
                await self._client.publish(wire, item.data)
            if self.lost.done():
                return
        await self._ping()  # what the server refuses to take, it says before it answers
        for number, item in tuple(self._sent.items()):
            if subjects.to_wire(item.subject, self._settings.prefix).lower() in self._denied:
                self._refuse(number, "not permitted")
        if not self.in_stream:
            self.published.update(item.id for item in self._sent.values())
        else:
            while self._sent:
                self._acknowledged.clear()
                await self._acknowledged.wait()

    def _refuse(self, number: str, reason: str) -> None:
        item = self._sent.pop(number)
        self.refused.add(item.id)
        _log.warning("event refused", subject=item.subject, id=item.id, reason=reason)

    async def _on_acknowledgement(self, msg: Msg) -> None:
        number = msg.subject.rpartition(".")[2]
        if number not in self._sent:
            return
        error: dict[str, Any] | None = None
        with suppress(ValueError):
            answer = json.loads(msg.data or b"null")
            error = answer.get("error") if isinstance(answer, dict) else {"description": "no stream takes it"}
        if error is None:
            self.published.add(self._sent.pop(number).id)
        elif error.get("code") == 400 and error.get("err_code") != 10060:  # 10060: another stream took it
            self._refuse(number, str(error.get("description")))
        else:  # full, without a leader, not there: sent again later
            self.fail(f"JetStream: {error.get('description')}")
        self._acknowledged.set()

    # --------------------------------------------------------------------------------------- reading

    async def read_for(self, mailboxes: list[Mailbox]) -> None:
        """Subscribe for those that are new and unsubscribe those that are gone.

        Raises: LinkFailed.
        """
        if self._readers.keys() != set(mailboxes):
            wanted, timeout_s = set(mailboxes), self._settings.ack_timeout_s
            await self._within(lambda: self._read_for(wanted), timeout_s, "no answer to a subscription")

    async def _read_for(self, wanted: set[Mailbox]) -> None:
        for mailbox in tuple(self._readers.keys() - wanted):
            await self._readers.pop(mailbox).unsubscribe()
        new = wanted - self._readers.keys()
        for mailbox in new:
            self._readers[mailbox] = await self._client.subscribe(
                subjects.to_wire(mailbox.pattern, self._settings.prefix),
                cb=self._reader(mailbox),
                pending_msgs_limit=self._settings.subscription_queue_size,
            )
        await self._ping()
        for mailbox in new:
            mailbox.went_live()

    def _reader(self, mailbox: Mailbox) -> Callable[[Msg], Awaitable[None]]:
        async def read(msg: Msg) -> None:
            mailbox.put(Message(subjects.from_wire(msg.subject, self._settings.prefix), msg.data))

        return read

    async def idle(self, wake: asyncio.Event) -> None:
        """Return when there is something to do; ask the server whether it is there after each silence.

        Raises: LinkFailed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.keepalive_interval_s):
                await wake.wait()
                return
        await self._within(self._ping, self._settings.ack_timeout_s, "no answer")

    # --------------------------------------------------------------------------------------- its end

    async def _on_error(self, exc: Exception) -> None:
        """Hear what nats-py has to say between calls."""
        if isinstance(exc, nats.errors.SlowConsumerError):
            for mailbox, reader in self._readers.items():
                if reader is exc.sub:
                    mailbox.put_gap()
        elif denied := _DENIED.search(str(exc)):
            action, subject = denied.groups()
            if subject not in self._denied:
                _log.warning("nats permits not", action=action, subject=subject)
            self._denied.add(subject)
        else:
            self._reason = _words(exc)
            if self._client.is_connected:
                self.fail(self._reason)

    async def _on_closed(self) -> None:
        self.fail(self._reason or _words(self._client.last_error) or "connection closed")

    async def dispose(self) -> None:
        """Leave nothing behind: no socket, no task, no byte of nats-py's buffers."""
        self.fail("closing")
        await self._tasks.close()
        tasks = self._client.tasks()
        with suppress(nats.errors.Error, OSError, AssertionError, TimeoutError):
            async with asyncio.timeout(1):
                await self._client.close()
        if alive := [task for task in {*tasks, *self._client.tasks()} if not task.done()]:
            for task in alive:
                task.cancel()
            await asyncio.wait(alive, timeout=1)


def _words(exc: Exception | None) -> str:
    """Say what failed, without the library's prefix."""
    if exc is None:
        return ""
    return str(exc).removeprefix("nats: ").strip() or type(exc).__name__
