"""The connection that stores buckets in JetStream, and the format of their messages.

Source: NATS ADR-8 (key-value store).
"""

import asyncio
import math
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig

from proxy.errors.stores import StateConflict, StateError, StateRefused, StateUnavailable
from proxy.nats.wire import STREAM_EXISTS, Wire
from proxy.settings.events import EventsSettings

_log = structlog.get_logger("events")
_T = TypeVar("_T")

EXPIRES = "Fairlead-Expires"
"""Seconds since 1970, with fractions, which the server's own header rounds."""
OPERATION = "KV-Operation"
_MARKER = "Nats-Marker-Reason"
_WRONG_SEQUENCE = {10071, 10164}


class ServedBucket(Protocol):
    """The interface of a bucket for its connection."""

    stream: str
    subject: str
    has_ttl: bool
    """Whether the server removes expired entries by itself."""

    def config(self, settings: EventsSettings) -> StreamConfig:
        """Return the configuration of a new stream for this bucket."""

    def begin(self, store: "BucketConnection") -> None:
        """Start to read everything again on this connection."""

    def read(self, msg: Msg) -> str:
        """Handle a message of the stream or a heartbeat.

        Return the reason why the connection is unusable, or "".
        """

    def is_whole(self) -> None:
        """Mark that every entry has arrived."""


class BucketConnection(Wire):
    """A connection that stores buckets; `serve` first, then `write`."""

    async def serve(self, bucket: ServedBucket) -> None:
        """Create the bucket if it is missing, and start to read it. Raises: LinkFailed."""
        await self._within(lambda: self._serve(bucket), self._settings.connect_timeout_s * 2, "no answer")

    async def _serve(self, bucket: ServedBucket) -> None:
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        bucket.has_ttl = await self._find_or_make(bucket)
        inbox = self._client.new_inbox()
        bucket.begin(self)

        async def read(msg: Msg) -> None:
            if reason := bucket.read(msg):
                self.fail(reason)

        await self._client.subscribe(inbox, cb=read)
        made = await jetstream.add_consumer(
            bucket.stream,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                filter_subject=f"{bucket.subject}.>",
                ack_policy=AckPolicy.NONE,
                idle_heartbeat=max(0.1, self._settings.keepalive_interval_s / 2),  # the server's minimum
                inactive_threshold=self._settings.keepalive_interval_s * 3,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        if not made.num_pending:
            bucket.is_whole()

    async def _find_or_make(self, bucket: ServedBucket) -> bool:
        """Create the stream if it is missing; return whether the server removes expired entries by itself."""
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        for _ in range(2):
            with suppress(nats.js.errors.NotFoundError):
                return bool((await jetstream.stream_info(bucket.stream)).config.allow_msg_ttl)
            try:
                await jetstream.add_stream(bucket.config(self._settings))
                _log.info("nats bucket made", bucket=bucket.stream)
            except nats.js.errors.BadRequestError as exc:
                if exc.err_code != STREAM_EXISTS:  # another replica was first
                    raise
        raise nats.errors.Error(f"stream {bucket.stream} comes and goes")

    async def write(self, subject: str, value: bytes, headers: dict[str, str]) -> int:
        """BucketConnection one message; return its sequence number. Raises: StateError."""
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        done = await self._ask(jetstream.publish(subject, value, headers=headers or None), subject)
        return done.seq

    async def last(self, stream: str, subject: str) -> tuple[int, bool]:
        """Return the number of a key's last message, and whether it is an entry. Raises: StateError."""
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        try:
            message = await self._ask(jetstream.get_last_msg(stream, subject), subject)
        except _Missing:
            return 0, False
        ttl_s = ttl_of(message.headers or {})
        return message.seq or 0, not is_marker(message.headers or {}) and (ttl_s is None or ttl_s > 0)

    async def _ask(self, request: Awaitable[_T], subject: str) -> _T:
        """Wait for an answer in a task of its own: nats-py breaks when a waiting caller is cancelled."""
        task = self._tasks.spawn(_answer(request), name="request")
        either: set[asyncio.Future[object]] = {task, self.lost}  # type: ignore[arg-type] # both are futures
        await asyncio.wait(either, timeout=self._settings.ack_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            return task.result()
        if subject.lower() in self._denied:
            raise StateRefused(f"NATS does not permit {subject}")
        if not self.lost.done():
            self.fail("no acknowledgement")
        raise StateUnavailable(f"NATS: {self.lost.result()}")


class _Missing(StateError):
    """A message that does not exist."""


async def _answer(request: Awaitable[_T]) -> _T:
    """Await an answer, and translate the server's errors."""
    try:
        return await request
    except nats.js.errors.NotFoundError as exc:
        raise _Missing(str(exc)) from None
    except nats.js.errors.APIError as exc:
        if exc.err_code in _WRONG_SEQUENCE:
            raise StateConflict("changed by another writer") from None
        is_final = exc.code == 400
        raise (StateRefused if is_final else StateUnavailable)(f"NATS: {exc.description}") from None
    except (nats.errors.Error, OSError, AssertionError, AttributeError, ValueError) as exc:
        raise StateUnavailable(f"NATS: {exc}") from None


def is_marker(headers: dict[str, str]) -> bool:
    """Return whether a message marks its key as deleted."""
    return OPERATION in headers or _MARKER in headers


def ttl_of(headers: dict[str, str]) -> float | None:
    """Return the seconds that an entry has left; None for one that does not expire."""
    text = headers.get(EXPIRES)
    if text is None:
        return None
    with suppress(ValueError):
        if math.isfinite(moment := float(text)):
            return moment - datetime.now(UTC).timestamp()
    return None
