"""One connection to NATS for any use: nats-py's client, with TLS and endings made safe.

nats-py carries a single connection and never reconnects by itself: a lost connection is discarded with all
that it holds, and `outages` opens the next. `events.nats` and `shared.nats_store` define its content; they
and this are the only importers of nats-py, whose exceptions end in them.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client

from proxy.aio import TaskOwner, settle
from proxy.nats.credentials import connect_options
from proxy.settings.events import EventsSettings

_log = structlog.get_logger("events")

NO_JETSTREAM = {None, 10039, 10076}
"""503 of the JetStream API: no responders, not enabled for the account, not enabled at all. Other codes,
such as 10008 while a cluster elects its leader, pass by themselves.
"""
STREAM_EXISTS = 10058

_DENIED = re.compile(r'permissions violation for (publish|subscription) (?:to )?"([^"\s]*)"')


class LinkFailed(Exception):
    """A connection that cannot be used any longer; the text is for the log."""


class _Client(Client):
    """nats-py's client, with TLS that cannot be stripped and an end that cannot hang.

    Both need its private parts; tests/contract/test_events_nats.py fails when these change.
    """

    must_encrypt = False

    def _connect_command(self) -> bytes:
        """Refuse to send credentials in the clear: nats-py encrypts only if the server asks for it."""
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
        """Close the socket and drop unsent data, so that no task waits for it any longer."""
        self._pending, self._pending_data_size = [], 0
        if self._writer is not None:
            # A TLS transport of CPython 3.11.2 forgets its protocol at the second `close`; nothing is left
            # to abort then.
            with suppress(AttributeError):
                self._writer.transport.abort()

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return every task that runs for this connection; they may outlive `close`."""
        own = (self._reading_task, self._ping_interval_task, self._flusher_task)
        readers = (sub._wait_for_msgs_task for sub in self._subs.values())
        return [task for task in (*own, *readers) if task is not None]


class Wire:
    """One connection to one server, from connecting to its end."""

    def __init__(self, settings: EventsSettings, url: str, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._url = url
        self._wake = wake
        self._tasks = TaskOwner("events-link")
        self._client = _Client()
        self._client.must_encrypt = settings.encrypted
        self._reason = ""
        self._denied: set[str] = set()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.opened = False
        """Whether it was usable once; stays true when the connection is lost."""

    async def open(self) -> None:
        """Connect and log in. Raises: LinkFailed."""
        await self._within(self._connect, self._settings.connect_timeout_s, "no answer")

    def fail(self, reason: str) -> None:
        """End the connection now; its users get LinkFailed."""
        if not self.lost.done():
            self.lost.set_result(reason)
        self._client.abort()
        self._wake()

    async def _within(self, work: Callable[[], Awaitable[None]], timeout_s: float, late: str) -> None:
        """Run `work` until it ends, the deadline passes or the connection is lost.

        It runs as a task of its own, because nats-py swallows cancellation in places: the connection is
        aborted first.

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
            self.fail(self._reason or words(exc))

    async def _ping(self) -> None:
        """Return when the server has read everything sent; `_within` bounds the wait."""
        await self._client.flush(timeout=86_400)

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
            ping_interval=86_400,  # `idle` asks the server, with a deadline
            pending_size=1,  # `publish` has written the command when it returns, so the PING follows it
            flush_timeout=self._settings.ack_timeout_s,
            **options,
        )
        if not self._client.is_connected:
            raise nats.errors.Error("the server hung up")

    async def idle(self, wake: asyncio.Event) -> None:
        """Return when there is work; after each silence, check that the server still answers.

        Raises: LinkFailed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.keepalive_interval_s):
                await wake.wait()
                if not self.lost.done():
                    return
        await self._within(self._ping, self._settings.ack_timeout_s, "no answer")

    async def _on_error(self, exc: Exception) -> None:
        """Handle an error that nats-py reports between calls."""
        if denied := _DENIED.search(str(exc)):
            action, subject = denied.groups()
            if subject not in self._denied:
                _log.warning("nats permits not", action=action, subject=subject)
            self._denied.add(subject)
        else:
            self._reason = words(exc)
            if self._client.is_connected:
                self.fail(self._reason)

    async def _on_closed(self) -> None:
        self.fail(self._reason or words(self._client.last_error) or "connection closed")

    async def dispose(self) -> None:
        """Release everything: socket, tasks and nats-py's buffers."""
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


def words(exc: Exception | None) -> str:
    """Return the reason of a failure, without the library's prefix."""
    if exc is None:
        return ""
    return str(exc).removeprefix("nats: ").strip() or type(exc).__name__
