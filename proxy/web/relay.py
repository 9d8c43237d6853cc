"""One request and its answer between a client and an app: framing is ours, content passes as it comes.

client ── head ─▶ AppConnection          app ── head ─▶ client
       ── body ─▶ (stopped while the app's road is full)     ◀── body ── (stopped while the client is)
       ◀═════════ after 101 both directions are spliced ═════════▶
"""

from typing import Protocol

from proxy.web.activity import Acting
from proxy.web.frames import GOING_AWAY, FrameScanner, close_frame
from proxy.web.gate import Pass
from proxy.web.heads import (
    AS_ASKED,
    Answer,
    Body,
    Client,
    Field,
    ForApp,
    Request,
    Site,
    answer_for_client,
    request_for_app,
    trailers,
)
from proxy.web.road import Buffer, Wire
from proxy.web.upstream import AppConnection

_LAST_CHUNK = b"0\r\n"
_APP_GONE = close_frame(GOING_AWAY, "the app is gone: it ended, or its workspace stopped", masked=False)
"""In the place of 1006, by which a browser tells a page nothing, where an app ends without a Close frame."""


class ClientSide(Wire, Protocol):
    """The client's connection, as an exchange uses it: a stream towards the client, and its ends."""

    def linger(self) -> None:
        """Say no more, and close when the client has read everything."""

    def upgraded(self, exchange: "Exchange") -> None:
        """Hand everything the client sends to `from_client` from now on."""

    def exchange_over(self, exchange: "Exchange", *, closes: bool) -> None:
        """Go on with the next request, or close."""

    def exchange_failed(self, exchange: "Exchange", reason: str, *, may_repeat: bool) -> None:
        """Answer in the app's place: it has said nothing yet."""


class Exchange:
    """One request that passed the gate."""

    __slots__ = (
        "_app",
        "_app_ended",
        "_client",
        "_client_ended",
        "_from_app",
        "_from_client",
        "_has_answer",
        "_head",
        "_is_answered",
        "_is_rechunked",
        "_is_sent",
        "_is_spliced",
        "_site",
        "acting",
        "bytes_from_client",
        "bytes_to_client",
        "client_address",
        "closes",
        "moved_at",
        "passed",
        "request",
        "status",
    )

    def __init__(self, client: ClientSide, request: Request, passed: Pass, site: Site) -> None:
        self.request = request
        self.passed = passed
        self.status = 0
        """Of the answer; 0 before it."""
        self.bytes_from_client = 0
        """Content and spliced bytes."""
        self.bytes_to_client = 0
        self.client_address = ""
        self.closes = request.closes
        """The client's connection ends with this exchange."""
        self.acting: Acting | None = None
        """For reports of activity; None where nothing of it counts."""
        self.moved_at = 0
        """Bytes of both directions when it was last looked; the connection bounds half-closed splices."""
        self._client = client
        self._site = site
        self._app: AppConnection | None = None
        self._has_answer = False
        self._head = b""
        """Of the answer, while it waits for content that is here already."""
        self._is_answered = False
        self._is_sent = request.body is Body.NONE
        self._is_rechunked = False
        self._is_spliced = False
        self._app_ended = False
        self._client_ended = False
        self._from_client: FrameScanner
        """From the answer 101 on, as the other."""
        self._from_app: FrameScanner

    @property
    def is_half_closed(self) -> bool:
        """Return whether one direction of a splice has ended and the other has not."""
        return self._is_spliced and self._app_ended != self._client_ended

    @property
    def data_frames(self) -> int:
        """WebSocket data frames that the client has sent."""
        return self._from_client.data_frames if self._is_spliced else 0

    @property
    def moved(self) -> int:
        """Return the bytes that count: of WebSocket data from the client, or of all content."""
        return (
            self._from_client.data_bytes
            if self._is_spliced
            else self.bytes_from_client + self.bytes_to_client
        )

    def begin(self, app: AppConnection, client: Client, given: ForApp = AS_ASKED) -> None:
        """Send the request's head to its app."""
        self._app = app
        self.client_address = client.address
        app.begin(self.request, request_for_app(self.request, client, given), self)

    # ------------------------------------------------------------------------ from the client

    def body(self, pieces: list[bytes] | list[Buffer]) -> None:
        """Pass content of the request on."""
        app = self._app
        size = sum(map(len, pieces))
        self.bytes_from_client += size
        if app is None or app.is_lost or not size:
            return
        if self.request.body is Body.CHUNKED:
            app.wire.writelines((b"%x\r\n" % size, *pieces, b"\r\n"))
        else:
            app.wire.writelines(pieces)

    def body_over(self, fields: list[Field]) -> None:
        """End the request behind its content."""
        self._is_sent = True
        app = self._app
        if app is not None and not app.is_lost and self.request.body is Body.CHUNKED:
            app.wire.write(_LAST_CHUNK + trailers(fields) + b"\r\n")
        if self._is_answered:
            self._end()

    def from_client(self, data: Buffer) -> None:
        """Pass bytes of a splice on."""
        self.bytes_from_client += len(data)
        if self._app is not None:
            self._from_client.feed(data)
            self._app.wire.write(data)

    def client_eof(self) -> None:
        """End the client's direction of a splice."""
        if self._client_ended:
            return
        self._client_ended = True
        if self._app is not None:
            self._app.wire.write_eof()
        self._end_splice()

    def client_lost(self) -> None:
        """Give the request up: the client is gone. Bytes of a splice that the client ended are delivered."""
        app, self._app = self._app, None
        if app is None:
            return
        if self._client_ended:
            app.fade()
        else:
            app.abort()

    def client_paused(self) -> None:
        """Read no more from the app: the client is slower."""
        if self._app is not None:
            self._app.hold()

    def client_resumed(self) -> None:
        """Undo `client_paused`."""
        if self._app is not None:
            self._app.release()

    def stop(self, code: int, reason: str) -> None:
        """End a splice from outside: by a Close frame where a frame of ours may stand, else by breaking off.

        Harmless for what is no splice, or ended.
        """
        app, client = self._app, self._client
        if not self._is_spliced or app is None:
            return
        self._app = None
        if self._from_client.is_at_boundary and not self._client_ended:
            app.wire.write(close_frame(code, reason, masked=True))
            app.fade()
        else:
            app.abort()
        if self._from_app.is_at_boundary and not self._app_ended:
            client.write(close_frame(code, reason, masked=False))
            client.linger()
        else:
            client.abort()

    def end(self, code: int, reason: str) -> None:
        """End a splice as `stop` does; break any other exchange off, which the client sees as incomplete."""
        if self._is_spliced:
            self.stop(code, reason)
        else:
            self._client.abort()

    # --------------------------------------------------------------------------- from the app

    def answer_begun(self, answer: Answer, *, is_more: bool) -> None:
        """Pass a head on, in one piece with content that is here; one of 1xx is followed by another."""
        if 100 <= answer.status < 200 and answer.status != 101:
            if not self.request.is_http_1_0:
                self._client.write(answer_for_client(answer, self.request, self._site, closes=False))
            return
        self._has_answer = True
        self.status = answer.status
        is_open_ended = answer.body in (Body.CHUNKED, Body.CLOSE)
        self._is_rechunked = is_open_ended and not self.request.is_http_1_0
        self.closes = self.closes or (is_open_ended and self.request.is_http_1_0)
        head = answer_for_client(answer, self.request, self._site, closes=self.closes)
        if answer.status == 101:
            self._client.write(head)
            self._from_client, self._from_app = FrameScanner(), FrameScanner()
            if self.acting is not None:
                self._from_client.over_bytes = self.acting.over_bytes
            self._is_spliced = True
            self._client.upgraded(self)
        elif is_more:
            self._head = head
        else:
            self._client.write(head)

    def answer_body(self, data: Buffer) -> None:
        """Pass content of the answer on."""
        size = len(data)
        self.bytes_to_client += size
        head, self._head = self._head, b""
        if self._is_rechunked:
            self._client.writelines((b"%b%x\r\n" % (head, size), data, b"\r\n"))
        elif head:
            self._client.writelines((head, data))
        else:
            self._client.write(data)

    def answer_over(self, fields: list[Field]) -> None:
        """End the answer behind its content."""
        head, self._head = self._head, b""
        if self._is_rechunked:
            self._client.write(head + _LAST_CHUNK + trailers(fields) + b"\r\n")
        elif head:
            self._client.write(head)
        self._is_answered = True
        if not self._is_sent:
            # The app has its reasons not to read on; the client learns them and is heard no more.
            self.closes = True
        self._end()

    def answer_failed(self, reason: str) -> None:
        """Answer in the app's place, or break off an answer that cannot be completed."""
        if self._is_answered:
            return
        app = self._app
        self._app = None
        if self._is_spliced and not self._app_ended and self._from_app.is_at_boundary:
            self._client.write(_APP_GONE)
            self._client.linger()
        elif self._is_spliced and self._app_ended:
            self._client.linger()
        elif self._has_answer and not self._head:
            self._client.abort()  # an answer cut short must not look whole
        else:
            may_repeat = (
                app is not None and app.is_reused and not app.has_answered and self.request.can_be_repeated
            )
            self._client.exchange_failed(self, reason, may_repeat=may_repeat)

    def app_data(self, data: Buffer) -> None:
        """Pass bytes of a splice on."""
        self.bytes_to_client += len(data)
        self._from_app.feed(data)
        self._client.write(data)

    def app_eof(self) -> None:
        """End the app's direction of a splice, by a Close frame where the app sent none."""
        self._app_ended = True
        if self._from_app.is_at_boundary:
            self._client.write(_APP_GONE)
        self._client.write_eof()
        self._end_splice()

    def app_paused(self) -> None:
        """See Sink."""
        self._client.pause_reading()

    def app_resumed(self) -> None:
        """See Sink."""
        self._client.resume_reading()

    # ------------------------------------------------------------------------------- the end

    def _end(self) -> None:
        app, self._app = self._app, None
        if app is not None:
            app.end(reusable=self._is_sent)
        self._client.exchange_over(self, closes=self.closes)

    def _end_splice(self) -> None:
        if self._app_ended and self._client_ended:
            app, self._app = self._app, None
            if app is not None:
                app.fade()
            self._client.linger()
