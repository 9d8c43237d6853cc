"""Connections with apps: one answer at a time on each, kept for the next request when that is certain.

A connection is used again only when the answer ended where its head said, nothing followed, the request was
sent whole, and the app did not say that it closes. Bytes that come unasked break it off.
"""

import asyncio
from collections import deque
from enum import Enum
from typing import Protocol

from proxy.settings.web import WebSettings
from proxy.web.heads import Answer, Body, Field, HeadInvalid, Request
from proxy.web.parsing import AnswerMessage, Recall
from proxy.web.road import Address, Buffer, Road, Wire

_SURE_S = 1.0
"""A connection that was idle for longer may be closed by its app at this moment: it is given to requests that
can be repeated only."""


class Sink(Protocol):
    """The receiver of an answer."""

    def answer_begun(self, answer: Answer, *, is_more: bool) -> None:
        """Take the head; `is_more`: content that follows is here already, and comes before anything else."""

    def answer_body(self, data: Buffer) -> None:
        """Take content of the answer."""

    def answer_over(self, trailers: list[Field]) -> None:
        """Learn that the answer is whole, and take its trailers."""

    def answer_failed(self, reason: str) -> None:
        """Learn that the connection failed, perhaps behind a whole answer."""

    def app_data(self, data: Buffer) -> None:
        """Take bytes that follow the answer 101."""

    def app_eof(self) -> None:
        """Learn that the app ended its direction after the answer 101."""

    def app_paused(self) -> None:
        """Write no more to the app for now: too much waits."""

    def app_resumed(self) -> None:
        """Undo `app_paused`."""


class _State(Enum):
    IDLE = "idle"
    HEAD = "head"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    SPLICED = "spliced"
    ENDED = "ended"
    """An answer is over and the connection is not to be used again."""
    LOST = "lost"


class AppConnection:
    """One connection with an app; made by `Pool`."""

    __slots__ = (
        "_is_held",
        "_left",
        "_limits",
        "_message",
        "_recall",
        "_request",
        "_sink",
        "_state",
        "_stays",
        "address",
        "has_answered",
        "idle_since",
        "is_reused",
        "pool",
        "wire",
    )

    def __init__(self, pool: "Pool", address: Address, limits: WebSettings) -> None:
        self.pool = pool
        self.address = address
        self.wire: Wire
        self.is_reused = False
        self.has_answered = False
        """Bytes of the answer to the request under way have come."""
        self.idle_since = 0.0
        self._limits = limits
        self._state = _State.IDLE
        self._sink: Sink | None = None
        self._request: Request | None = None
        self._message: AnswerMessage | None = None
        self._recall = Recall()
        self._left = 0
        self._stays = False
        self._is_held = False

    @property
    def is_lost(self) -> bool:
        """Return whether nothing can be asked here any more."""
        return self._state in (_State.LOST, _State.ENDED)

    def begin(self, request: Request, head: bytes, sink: Sink) -> None:
        """Send the head of a request; its body is written to `wire` by the caller."""
        self._request, self._sink = request, sink
        self._state = _State.HEAD
        self.has_answered = False
        self._message = AnswerMessage(self._limits, self._recall)
        self.wire.write(head)

    def hold(self) -> None:
        """Read no more from the app, until `release`."""
        if not self._is_held:
            self._is_held = True
            self.wire.pause_reading()

    def release(self) -> None:
        """Read on."""
        if self._is_held:
            self._is_held = False
            self.wire.resume_reading()

    def end(self, *, reusable: bool) -> None:
        """Let go of the connection behind an exchange; `reusable`: the request was sent whole."""
        self._sink = self._request = None
        if reusable and self._stays and self._state is _State.IDLE:
            self.release()  # the client may still be reading the end of this answer
            self.pool.give_back(self)
        else:
            self.abort()

    def fade(self) -> None:
        """End our direction behind all written bytes; break off if the app does not end its own in time."""
        self._sink = self._request = self._message = None
        self._state = _State.ENDED
        self.wire.write_eof()
        self.pool.fade(self, self._limits.linger_s)

    def abort(self) -> None:
        """Break the connection off."""
        self._sink = self._request = self._message = None
        self._state = _State.LOST
        self.wire.abort()

    # ------------------------------------------------------------------------- from the road

    def data_received(self, data: Buffer) -> None:
        """Take bytes of the app."""
        while True:
            match self._state:
                case _State.LENGTH:
                    rest = self._take_length(data)
                case _State.SPLICED if self._sink is not None:
                    self._sink.app_data(data)
                    return
                case _State.CHUNKED:
                    self._take_chunked(data)
                    return
                case _State.CLOSE if self._sink is not None:
                    self._sink.answer_body(data)
                    return
                case _State.HEAD:
                    rest = self._take_head(bytes(data))
                case _State.IDLE:
                    self._unasked()
                    return
                case _:
                    return
            if not rest:
                return
            data = rest

    def eof_received(self) -> bool:
        """End an answer that ends with the connection; anything else is cut short."""
        sink = self._sink
        match self._state:
            case _State.CLOSE:
                self._over([])
            case _State.SPLICED if sink is not None:
                sink.app_eof()
                return True
            case _State.IDLE:
                self._unasked()
            case _State.HEAD | _State.LENGTH | _State.CHUNKED:
                self._fail("the app closed the connection before the end of its answer")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Be used no more."""
        state, sink = self._state, self._sink
        self._state = _State.LOST
        self._message = None
        self.pool.forget(self)
        if sink is not None and state is not _State.LOST:
            self._sink = None
            sink.answer_failed(str(exc) if exc else "the app closed the connection")

    def pause_writing(self) -> None:
        """See Receiver."""
        if self._sink is not None:
            self._sink.app_paused()

    def resume_writing(self) -> None:
        """See Receiver."""
        if self._sink is not None:
            self._sink.app_resumed()

    # ------------------------------------------------------------------------------- the answer

    def _take_head(self, data: bytes) -> Buffer:
        message, sink, request = self._message, self._sink, self._request
        assert message is not None
        assert sink is not None
        assert request is not None
        self.has_answered = True
        try:
            at = message.feed_head(data)
            if not message.is_complete:
                return b""
            answer = message.head(request)
        except HeadInvalid as exc:
            self._fail(str(exc))
            return b""
        self._stays = answer.stays
        if answer.body is not Body.CHUNKED:
            message.release()
            self._message = None
        if answer.status < 200 and answer.status != 101:
            self._message = AnswerMessage(
                self._limits, self._recall
            )  # the final answer follows (RFC 9110 §15.2)
            sink.answer_begun(answer, is_more=False)
            return data[at:]
        self._left = answer.length
        self._state = _State.SPLICED if answer.status == 101 else _BODY_STATES[answer.body]
        if answer.status == 101:
            self._recall.forget()
        sink.answer_begun(answer, is_more=len(data) > at)
        is_whole = self._state is _State.IDLE or (self._state is _State.LENGTH and not self._left)
        if is_whole:
            self._over([], clean=len(data) == at)
        return memoryview(data)[at:] if len(data) > at and not is_whole else b""

    def _take_length(self, data: Buffer) -> Buffer:
        assert self._sink is not None
        size = len(data)
        if size < self._left:
            self._left -= size
            self._sink.answer_body(data)
            return b""
        rest = b"" if size == self._left else memoryview(data)[self._left :]
        self._sink.answer_body(memoryview(data)[: self._left] if rest else data)
        self._left = 0
        if self._state is _State.LENGTH:
            self._over([], clean=not rest)
        return b""

    def _take_chunked(self, data: Buffer) -> None:
        message, sink = self._message, self._sink
        assert message is not None
        assert sink is not None
        try:
            pieces, is_extra = message.feed_chunked(data)
        except HeadInvalid as exc:
            self._fail(str(exc))
            return
        if pieces:
            sink.answer_body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if message.is_over and self._state is _State.CHUNKED:
            message.release()
            self._over(message.trailers, clean=not is_extra)

    def _over(self, trailers: list[Field], *, clean: bool = True) -> None:
        """Tell that the answer is whole; `clean`: nothing came behind it."""
        sink, self._message = self._sink, None
        is_kept = self._stays and clean
        self._state = _State.IDLE if is_kept else _State.ENDED
        if sink is not None:
            sink.answer_over(trailers)

    def _fail(self, reason: str) -> None:
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.answer_failed(reason)

    def _unasked(self) -> None:
        """End the connection after bytes, or an end, that belong to no answer for certain."""
        self._stays = False
        if self._sink is None:
            self.pool.forget(self)
            self.abort()
        else:
            self._state = _State.ENDED


_BODY_STATES = {
    Body.NONE: _State.IDLE,
    Body.LENGTH: _State.LENGTH,
    Body.CHUNKED: _State.CHUNKED,
    Body.CLOSE: _State.CLOSE,
}


class Pool:
    """Connections with apps that wait for their next request; one per process."""

    def __init__(self, road: Road, settings: WebSettings) -> None:
        self._road = road
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Address, deque[AppConnection]] = {}
        self._fading: dict[AppConnection, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Count the idle connections."""
        return sum(len(waiting) for waiting in self._idle.values())

    def waiting(self, address: Address, *, repeatable: bool) -> AppConnection | None:
        """Return a connection that waits for a request; None when there is none to be sure of."""
        waiting = self._idle.get(address)
        if not waiting:
            return None
        if not repeatable and self._loop.time() - waiting[-1].idle_since > _SURE_S:
            return None
        connection = waiting.pop()
        connection.is_reused = True
        return connection

    async def connect(self, address: Address) -> AppConnection:
        """Make a connection with an app. Raises: FairleadError when it cannot be reached."""
        connection = AppConnection(self, address, self._settings)
        connection.wire = await self._road.open(address, connection)
        return connection

    def give_back(self, connection: AppConnection) -> None:
        """Keep a connection for the next request, unless enough are kept."""
        waiting = self._idle.setdefault(connection.address, deque())
        if len(waiting) >= self._settings.pool_size:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        waiting.append(connection)

    def forget(self, connection: AppConnection) -> None:
        """Keep a connection no longer; one that is not kept is fine."""
        if (due := self._fading.pop(connection, None)) is not None:
            due.cancel()
        waiting = self._idle.get(connection.address)
        if waiting and connection in waiting:
            waiting.remove(connection)

    def fade(self, connection: AppConnection, within_s: float) -> None:
        """Break a connection off when its app has not ended it within so many seconds."""
        self._fading[connection] = self._loop.call_later(within_s, connection.abort)

    def sweep(self, now: float) -> None:
        """Close connections that were idle for too long."""
        for address, waiting in tuple(self._idle.items()):
            if not waiting:
                del self._idle[address]
            while waiting and now - waiting[0].idle_since > self._settings.pool_idle_s:
                connection = waiting[0]
                self.forget(connection)
                connection.abort()

    def close(self) -> None:
        """Break off all that wait for a request or for their end."""
        for connection in tuple(self._fading):
            connection.abort()
        for waiting in tuple(self._idle.values()):
            for connection in tuple(waiting):
                connection.abort()
        self._idle.clear()
