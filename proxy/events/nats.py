"""A connection to NATS that carries events. nats-py's exceptions end here, as LinkFailed.

A lost connection is discarded with all that it holds, and `natsbus` opens the next. So every event that no
server has acknowledged is in Fairlead's own bounded queue and nowhere else.

An acknowledgement is JetStream's, one per event, or, without JetStream, the PONG after a batch. Both mean at
least once: `id` identifies duplicates, and JetStream removes those within two minutes. See docs/events.md.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js.api import StorageType, StreamConfig

from proxy.events import subjects
from proxy.events.publisher import Mailbox, Message, Rendered
from proxy.nats.wire import NO_JETSTREAM, STREAM_EXISTS, Wire
from proxy.settings.events import EventsSettings

_log = structlog.get_logger("events")

_HEADER_ROOM_BYTES = 1_024
"""Room for headers, which the server counts as payload; Fairlead's are far smaller."""


class Link(Wire):
    """One connection to one server, from connecting to its end; `opened` when events can be sent."""

    def __init__(self, settings: EventsSettings, url: str, wake: Callable[[], None]) -> None:
        super().__init__(settings, url, wake)
        self._readers: dict[Mailbox, NatsSubscription] = {}
        self._inbox = ""
        self._sent: dict[str, Rendered] = {}
        self._acknowledged = asyncio.Event()
        self.in_stream = False
        """Whether JetStream acknowledges."""
        self.published: set[str] = set()
        self.refused: set[str] = set()
        """Ids of the last batch that need not be sent again."""

    # ------------------------------------------------------------------------------------ connecting

    async def open(self) -> None:
        """Connect, log in, and find out how events are acknowledged.

        Raises: LinkFailed.
        """
        timeout_s = self._settings.connect_timeout_s
        await super().open()
        if self._settings.delivery != "core":
            await self._within(self._find_stream, timeout_s * 2, "no answer from JetStream")
        if self.in_stream:
            self._inbox = self._client.new_inbox()
            await self._within(self._take_acknowledgements, timeout_s, "no answer")
        self.opened = True

    async def _find_stream(self) -> None:
        jetstream, settings = self._client.jetstream(), self._settings
        try:
            await jetstream.stream_info(settings.stream)
        except nats.js.errors.NotFoundError:
            await self._make_stream()
        except nats.js.errors.ServiceUnavailableError as exc:
            if exc.err_code not in NO_JETSTREAM:
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
            if exc.err_code != STREAM_EXISTS:  # another replica was first
                raise
        _log.info("nats stream made", stream=settings.stream)

    async def _take_acknowledgements(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_acknowledgement)

    # ------------------------------------------------------------------------------------ publishing

    async def send(self, batch: list[Rendered]) -> None:
        """Send `batch` and wait for its acknowledgement; `published` and `refused` then hold the ids.

        Raises: LinkFailed; `published` and `refused` are right even then.
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
        await self._ping()  # the server reports a refusal before it sends the PONG
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
        elif error.get("code") == 400 and error.get("err_code") != 10060:  # 10060: another stream accepted it
            self._refuse(number, str(error.get("description")))
        else:  # full, without a leader, or missing: sent again later
            self.fail(f"JetStream: {error.get('description')}")
        self._acknowledged.set()

    # --------------------------------------------------------------------------------------- reading

    async def read_for(self, mailboxes: list[Mailbox]) -> None:
        """Subscribe for new mailboxes and unsubscribe for closed ones.

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

    # --------------------------------------------------------------------------------------- its end

    async def _on_error(self, exc: Exception) -> None:
        """Handle an error that nats-py reports between calls."""
        if isinstance(exc, nats.errors.SlowConsumerError):
            for mailbox, reader in self._readers.items():
                if reader is exc.sub:
                    mailbox.put_gap()
        else:
            await super()._on_error(exc)
