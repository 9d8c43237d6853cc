"""One client connection: heads are read, the gate is asked, and an exchange with the app carries the rest.

One request is under way on a connection at a time. What a client sends behind it waits, unread beyond one
piece, until its answer is out (RFC 9112 §9.3.2). A head that could be understood in two ways is answered
with an error, and nothing behind it is read.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from contextlib import aclosing
from enum import Enum
from html import escape
from typing import Any, cast

import structlog

from proxy import metrics
from proxy.addresses import is_in, source_of
from proxy.errors import FairleadError, user_sentence
from proxy.web.crossing import for_app, framers
from proxy.web.front import Front, OwnSite
from proxy.web.gate import Asked, Pass, Reply, Stream
from proxy.web.heads import (
    Body,
    Client,
    HeadInvalid,
    Request,
    Site,
    own_answer,
    own_stream_head,
    request_for_own_site,
)
from proxy.web.origins import HostInvalid, Misdirected
from proxy.web.parsing import Recall, RequestMessage
from proxy.web.relay import Exchange
from proxy.web.road import Buffer
from proxy.web.statuses import status_of
from proxy.web.upstream import AppConnection

_log = structlog.get_logger("web")

MAX_OWN_BYTES = 64 * 1024
"""Of the body of a request to our own pages: forms."""


class _State(Enum):
    HEAD = "head"
    DECIDING = "deciding"
    """A head is complete, and no app has it yet."""
    LENGTH = "length"
    CHUNKED = "chunked"
    ANSWER = "answer"
    """The request is complete, its answer is not."""
    SPLICED = "spliced"
    LINGERING = "lingering"
    OWN = "own"
    """Another protocol of ours serves the rest of the connection."""
    CLOSED = "closed"


class ClientConnection(asyncio.Protocol):
    """One connection from a client, after PROXY header and TLS."""

    __slots__ = (
        "_asked",
        "_deadline",
        "_exchange",
        "_front",
        "_has_read_eof",
        "_has_written_eof",
        "_inner",
        "_is_app_full",
        "_is_extra",
        "_is_full",
        "_is_held",
        "_is_streaming",
        "_is_trusted",
        "_itself",
        "_left",
        "_loop",
        "_message",
        "_peer",
        "_pending",
        "_recall",
        "_request_id",
        "_scheme",
        "_source",
        "_state",
        "_task",
        "_transport",
        "_upgraded",
    )

    def __init__(self, front: Front, address: str, scheme: str, *, is_counted: bool) -> None:
        """Create it; `scheme` is spoken on it, and one that `is_counted` counts against its address."""
        self._front = front
        self._peer = address
        self._scheme = scheme
        self._itself = Client(address, scheme)
        self._is_trusted = is_in(address, front.trusted)
        self._source = source_of(address) if is_counted else ""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._state = _State.HEAD
        self._recall = Recall()
        self._message = RequestMessage(front.settings, self._recall)
        self._asked: Asked | None = None
        self._request_id = b""
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._pending: Buffer = b""
        """Came behind what is under way; reading is stopped while there is any."""
        self._inner: asyncio.Protocol | None = None
        """Serves the connection in our place."""
        self._upgraded: Exchange | None = None
        """An upgraded exchange of whose end `Sockets` has to hear."""
        self._left = 0
        self._is_extra = False
        """Bytes came behind a chunked body in one piece with it: the connection ends with the answer."""
        self._is_full = False
        """The client reads more slowly than its answer comes."""
        self._is_app_full = False
        """The app reads more slowly than the client sends."""
        self._is_held = False
        """Reading is stopped."""
        self._is_streaming = False
        """An answer of ours comes piece by piece."""
        self._has_read_eof = False
        self._has_written_eof = False
        self._deadline = self._loop.time() + front.settings.head_s

    @property
    def splice(self) -> Exchange | None:
        """Return the exchange under way, where it was upgraded."""
        return self._exchange if self._state is _State.SPLICED else None

    @property
    def under_way(self) -> Exchange | None:
        """Return the exchange under way, upgraded or not."""
        return self._exchange

    @property
    def _is_open(self) -> bool:
        """Return whether the transport takes anything; an event loop may refuse bytes after its end."""
        return self._state is not _State.CLOSED and not self._transport.is_closing()

    # ------------------------------------------------------------------------- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._front.settings.buffer_bytes)
        self._front.added(self, self._source)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._take(data)

    def eof_received(self) -> bool:
        """End a splice in one direction; in any other state a client that says no more is gone."""
        match self._state:
            case _State.SPLICED if self._exchange is not None:
                self._has_read_eof = True
                self._exchange.client_eof()
                return self._transport.can_write_eof()
            case _State.LINGERING:
                self._transport.close()
            case _:
                self.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._report_activity()
        self._state = _State.CLOSED
        self._front.removed(self, self._source)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost()
        self._tell_over()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connection_lost(exc)
        if self._task is not None:
            self._task.cancel()
        self._pending = b""
        self._message.release()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_full = True
        if self._inner is not None:
            self._inner.pause_writing()
        if self._exchange is not None:
            self._exchange.client_paused()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_full = False
        if self._inner is not None:
            self._inner.resume_writing()
        if self._exchange is not None:
            self._exchange.client_resumed()

    # ---------------------------------------------------------------------------- the request

    def _take(self, data: Buffer) -> None:
        """Take bytes; those that are not for now wait."""
        while data:
            match self._state:
                case _State.SPLICED if self._exchange is not None:
                    self._exchange.from_client(data)
                    return
                case _State.HEAD:
                    data = self._take_head(bytes(data))
                case _State.OWN:
                    self._take_own(data)
                    return
                case _State.LENGTH:
                    data = self._take_length(data)
                case _State.CHUNKED:
                    data = self._take_chunked(data)
                case _State.DECIDING | _State.ANSWER:
                    self._pending = bytes(self._pending) + bytes(data)
                    self._pace()
                    return
                case _:
                    return

    def _take_head(self, data: bytes) -> Buffer:
        message = self._message
        if not message.has_begun:
            self._deadline = min(self._deadline, self._loop.time() + self._front.settings.head_s)
        try:
            at = message.feed_head(data)
            if not message.is_complete:
                return b""
            request = message.head()
            host = self._front.host(request.host)
        except (HeadInvalid, HostInvalid, Misdirected) as exc:
            self._refuse(exc)
            return b""
        if request.body is not Body.CHUNKED:
            message.release()
        self._asked = Asked(request, host, self._client(request))
        if self._front.own is not None and host.label == self._front.own.label:
            return self._hand_over(self._front.own, self._asked, data[at:])
        self._deadline = float("inf")
        self._request_id = self._front.request_id()
        self._state = _State.DECIDING
        self._decide(self._asked)
        return memoryview(data)[at:] if len(data) > at else b""

    def _hand_over(self, own: OwnSite, asked: Asked, rest: bytes) -> Buffer:
        """Have a site of ours answer this request, with the head as it was understood here.

        The connection ends behind the answer: the next request on it may be for an app.
        """
        request = asked.request
        if request.body is Body.CHUNKED or request.length > MAX_OWN_BYTES:
            self._answer(Reply(413, "The request is too large"), closes=True)
            return b""
        inner = self._inner = own.connection()
        self._state = _State.OWN
        self._left = request.length
        self._deadline = self._loop.time() + self._front.settings.own_s
        inner.connection_made(self._transport)
        if self._is_full:
            inner.pause_writing()
        inner.data_received(request_for_own_site(request, asked.client))
        return rest

    def _take_own(self, data: Buffer) -> None:
        """Pass on the bytes of the body; later bytes are discarded with the connection."""
        size = min(len(data), self._left)
        self._left -= size
        if size and self._inner is not None:
            self._inner.data_received(bytes(memoryview(data)[:size]))

    def _take_length(self, data: Buffer) -> Buffer:
        assert self._exchange is not None
        size = min(len(data), self._left)
        self._left -= size
        whole = size == len(data)
        self._exchange.body([data if whole else memoryview(data)[:size]])
        if not self._left and self._state is _State.LENGTH:
            self._request_complete([])
        return b"" if whole else memoryview(data)[size:]

    def _take_chunked(self, data: Buffer) -> Buffer:
        assert self._exchange is not None
        try:
            pieces, self._is_extra = self._message.feed_chunked(data)
        except HeadInvalid as exc:
            self._exchange.client_lost()
            self._exchange = None
            self._refuse(exc)
            return b""
        self._exchange.body(pieces)
        if self._message.is_over and self._state is _State.CHUNKED:
            self._exchange.closes = self._exchange.closes or self._is_extra
            self._message.release()
            self._request_complete(self._message.trailers)
        return b""

    def _request_complete(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self._state = _State.ANSWER
        if self._exchange is not None:
            self._exchange.body_over(trailers)

    def _client(self, request: Request) -> Client:
        """Return the client of a request; a trusted proxy's own fields count, the last one that it wrote."""
        if not self._is_trusted:
            return self._itself
        address, scheme = self._peer, self._scheme
        for name, value in request.fields:
            match name.lower():
                case b"x-forwarded-for":
                    address = _last_untrusted(value, self._front) or address
                case b"x-forwarded-proto" if value.lower() in (b"http", b"https"):
                    scheme = value.lower().decode()
        return Client(address, scheme)

    # ------------------------------------------------------------------------ gate and app

    def _decide(self, asked: Asked) -> None:
        """Begin the exchange at once where nothing has to be waited for, else in a task."""
        verdict = self._front.gate.at_once(asked)
        if isinstance(verdict, Reply) or (verdict is not None and asked.is_reserved):
            self._loop.call_soon(self._reply, verdict if isinstance(verdict, Reply) else _NOTHING)
            return
        if verdict is not None:
            repeatable = asked.request.can_be_repeated
            if app := self._front.pool.waiting(verdict.address, repeatable=repeatable):
                self._begin(asked, verdict, app)
                return
        self._task = self._front.tasks.spawn(self._serve(asked, verdict), name="request")

    async def _serve(self, asked: Asked, verdict: Pass | None) -> None:
        """Ask the gate, connect to the app and begin the exchange; from then on no task is needed."""
        try:
            decided = verdict or await self._front.gate.decide(asked)
            if isinstance(decided, Reply):
                self._reply(decided)
                return
            app = await self._front.opener.open(asked, decided)
            if isinstance(app, Reply):
                self._reply(app)
            elif isinstance(app, Stream):
                await self._stream(app)
            elif self._state is _State.DECIDING:
                self._begin(asked, decided, app)
                self._go_on()
            else:
                app.abort()
        except FairleadError as exc:
            status, title = status_of(exc)
            _log.info("request failed", request=self._request_id.decode(), code=exc.code, reason=str(exc))
            self._reply(Reply(status, title, user_sentence(exc, self._request_id.decode())))
        except asyncio.CancelledError:
            raise
        except Exception:
            self._reply(Reply(500, "Internal error", f"Reference: {self._request_id.decode()}"))
            raise
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    def _begin(self, asked: Asked, verdict: Pass, app: AppConnection) -> None:
        request = asked.request
        address, origins = verdict.address, self._front.origins
        site = Site(
            request.host,
            asked.client.scheme,
            verdict.is_public,
            verdict.fields,
            self._request_id,
            framers(address, origins) if address.crossing.embed else b"",
        )
        self._exchange = exchange = Exchange(self, request, verdict, site)
        exchange.closes = exchange.closes or self._front.is_closing
        if self._front.activity is not None:
            exchange.acting = self._front.activity.begin(request, verdict)
        self._left = request.length
        self._state = _BODY_STATES[request.body]
        exchange.begin(app, asked.client, for_app(address, request, origins))
        if self._is_full:
            exchange.client_paused()

    def _go_on(self) -> None:
        """Take the bytes that waited, and read on."""
        if self._pending:
            data, self._pending = self._pending, b""
            self._take(data)
        self._pace()

    def _pace(self) -> None:
        """Read from the client unless something of it waits already."""
        is_held = bool(self._pending) or self._is_app_full
        if is_held is self._is_held or not self._is_open:
            return
        self._is_held = is_held
        if is_held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # ------------------------------------------------------------------------ from the exchange

    def write(self, data: Buffer) -> None:
        """See ClientSide."""
        if self._is_open and not self._has_written_eof:
            self._transport.write(data)

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        """See ClientSide."""
        if self._is_open and not self._has_written_eof:
            self._transport.writelines(pieces)

    def write_eof(self) -> None:
        """See ClientSide."""
        if not self._is_open or self._has_written_eof:
            return
        if self._transport.can_write_eof():
            self._end_output()
        else:
            self.linger()

    def _end_output(self) -> None:
        self._has_written_eof = True
        try:
            self._transport.write_eof()
        except OSError:  # asyncio's own transport: the client has reset the connection just now
            self._transport.abort()

    def pause_reading(self) -> None:
        """See ClientSide."""
        self._is_app_full = True
        self._pace()

    def resume_reading(self) -> None:
        """See ClientSide."""
        self._is_app_full = False
        self._pace()

    def abort(self) -> None:
        """See ClientSide."""
        if self._state is not _State.CLOSED:
            self._transport.abort()

    def linger(self) -> None:
        """Say no more; discard all input until the client closes, or for `linger_s` at most."""
        if self._state in (_State.CLOSED, _State.LINGERING):
            return
        self._report_activity()
        self._state = _State.LINGERING
        self._pending = b""
        self._exchange = None
        self._tell_over()
        self._is_app_full = False
        self._deadline = self._loop.time() + self._front.settings.linger_s
        self._pace()
        if self._has_read_eof or not self._transport.can_write_eof():
            self._transport.close()
        elif self._is_open and not self._has_written_eof:
            self._end_output()

    def finish(self) -> None:
        """Close an idle connection, or one of a stream of ours; any other is closed behind its answer."""
        if self._state is _State.HEAD and not self._message.has_begun:
            self.linger()
        elif self._exchange is not None:
            self._exchange.closes = True
        elif self._is_streaming and self._task is not None:
            self._task.cancel()  # a browser asks again, and finds another replica
            self.linger()

    def _tell_over(self) -> None:
        ended, self._upgraded = self._upgraded, None
        if ended is not None and self._front.sockets is not None:
            self._front.sockets.over(ended)

    def upgraded(self, exchange: Exchange) -> None:
        """See ClientSide."""
        self._state = _State.SPLICED
        self._recall.forget()
        self._deadline = self._loop.time() + self._front.settings.half_closed_s
        if self._front.sockets is not None:
            self._upgraded = exchange
            self._front.sockets.began(exchange)
        metrics.WEB_REQUESTS.labels("upgraded").inc()
        self._go_on()

    def exchange_over(self, exchange: Exchange, *, closes: bool) -> None:
        """Go on with the next request, or close."""
        _COUNT[exchange.status // 100]()
        self._report_activity(is_over=True)
        self._exchange = None
        self._is_app_full = False
        if closes or self._front.is_closing:
            self.linger()
        else:
            self._next()

    def exchange_failed(self, exchange: Exchange, reason: str, *, may_repeat: bool) -> None:
        """Ask once more on a new connection, or answer in the app's place."""
        self._exchange = None
        self._is_app_full = False
        asked = self._asked
        if may_repeat and asked is not None:
            self._state = _State.DECIDING
            self._task = self._front.tasks.spawn(self._serve(asked, exchange.passed), name="request again")
            return
        _log.info("app failed", request=self._request_id.decode(), reason=reason)
        self._reply(Reply(502, "The app did not answer", f"Its answer could not be used: {reason}."))

    def _next(self) -> None:
        self._state = _State.HEAD
        self._message = RequestMessage(self._front.settings, self._recall)
        self._asked = None
        self._deadline = self._loop.time() + self._front.settings.idle_s
        self._pace()
        if self._pending:
            self._loop.call_soon(self._go_on_head)

    def _go_on_head(self) -> None:
        if self._state is _State.HEAD:
            self._go_on()

    # ---------------------------------------------------------------------------- own answers

    def _refuse(self, exc: HeadInvalid | HostInvalid | Misdirected) -> None:
        """Answer a head that means nothing here; its connection ends, since its framing is in doubt."""
        status = exc.status if isinstance(exc, HeadInvalid) else 400 if isinstance(exc, HostInvalid) else 421
        self._answer(Reply(status, "This request cannot be served", f"{exc}."), closes=True)

    def _reply(self, reply: Reply) -> None:
        if self._state in (_State.CLOSED, _State.LINGERING):
            return
        asked = self._asked
        is_whole = asked is not None and self._state in (_State.DECIDING, _State.ANSWER)
        closes = (
            asked is None
            or asked.request.closes
            or self._front.is_closing
            or not is_whole
            or (self._state is _State.DECIDING and asked.request.body is not Body.NONE)
        )
        self._answer(reply, closes=closes)

    def _answer(self, reply: Reply, *, closes: bool) -> None:
        asked = self._asked
        body, kind = _page(reply, as_html=asked is not None and asked.is_navigation)
        request = None if asked is None else asked.request
        _COUNT[reply.status // 100]()
        self.write(own_answer(reply.status, body, kind, fields=reply.fields, request=request, closes=closes))
        if closes:
            self.linger()
        else:
            self._next()

    async def _stream(self, stream: Stream) -> None:
        """Answer piece by piece as they come; a client that does not read them is broken off."""
        _COUNT[2]()
        self._is_streaming = True
        async with aclosing(stream.pieces) as pieces:
            self.write(own_stream_head(stream.kind))
            async for piece in pieces:
                if self._is_full:
                    self.abort()
                    return
                self.write(piece)
        self.linger()

    # ------------------------------------------------------------------------------- deadlines

    def check(self, now: float) -> None:
        """End a request or a connection that takes too long; called about once a second."""
        self._report_activity()
        if self._state is _State.SPLICED and self._exchange is not None:
            self._check_half_closed(self._exchange, now)
        elif now >= self._deadline:
            if self._state is _State.HEAD and self._message.has_begun:
                self._answer(Reply(408, "The request took too long"), closes=True)
            elif self._state is _State.HEAD:
                self.linger()
            elif self._state is _State.OWN:
                self.abort()
            elif self._transport.get_write_buffer_size():
                self._deadline = now + self._front.settings.linger_s  # it still reads what was said
            else:
                self.abort()

    def _report_activity(self, *, is_over: bool = False) -> None:
        """Report a WebSocket that is in use, and a request that counts while it moves and once it is over."""
        exchange, activity = self._exchange, self._front.activity
        if activity is None or exchange is None or exchange.acting is None or exchange.status >= 400:
            return
        if is_over and not exchange.request.upgrade:
            activity.act(exchange.acting)
        else:
            activity.look(exchange.acting, exchange.moved)

    def _check_half_closed(self, exchange: Exchange, now: float) -> None:
        moved = exchange.bytes_from_client + exchange.bytes_to_client
        if not exchange.is_half_closed or moved != exchange.moved_at:
            exchange.moved_at = moved
            self._deadline = now + self._front.settings.half_closed_s
        elif now >= self._deadline:
            self.abort()


_BODY_STATES = {Body.NONE: _State.ANSWER, Body.LENGTH: _State.LENGTH, Body.CHUNKED: _State.CHUNKED}

_NOTHING = Reply(404, "There is nothing here")


def _counters() -> dict[int, Callable[[], Any]]:
    return {number: metrics.WEB_REQUESTS.labels(f"{number}xx").inc for number in range(1, 6)}


_COUNT = _counters()


def _last_untrusted(value: bytes, front: Front) -> str:
    """Return the last address of X-Forwarded-For that is no trusted proxy's; empty for none that is one."""
    for part in reversed(value.decode("latin-1").split(",")):
        address = part.strip().strip('"').removeprefix("[").partition("]")[0]
        if not is_in(address, front.trusted):
            return address if _is_address(address) else ""
    return ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _page(reply: Reply, *, as_html: bool) -> tuple[bytes, str]:
    """Write a short answer of ours: HTML for a user who opens a page, else plain text."""
    if reply.html:
        return reply.html, "text/html"
    if not as_html:
        return "\n".join(filter(None, (reply.title, reply.text, ""))).encode() + b"\n", "text/plain"
    text = f"<p>{escape(reply.text)}</p>" if reply.text else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(reply.title)}</title><h1>{escape(reply.title)}</h1>{text}</html>\n"
    ).encode(), "text/html"
