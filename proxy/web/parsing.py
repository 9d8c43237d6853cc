"""Heads and chunked bodies as httptools reads them; the only module that knows httptools.

A parser is made for every message and sees no byte behind its head but those of a chunked body: httptools
cannot learn that an answer belongs to a HEAD request, and would take the next answer for its body.

A peer sends the same fields from message to message. What httptools read from the last block of them on a
connection is used again where the next has the same bytes, and a plain first line above them.
"""

import re
from collections.abc import Callable
from typing import Any

import httptools
from httptools import HttpRequestParser, HttpResponseParser

from proxy.settings.web import WebSettings
from proxy.web.heads import (
    Answer,
    Block,
    Field,
    HeadInvalid,
    Request,
    answer_block,
    read_answer,
    read_request,
    request_block,
)
from proxy.web.road import Buffer

_END = b"\r\n\r\n"
_LINE_END = b"\r\n"
_MAX_RECALLED_BYTES = 4_096
"""Of a block that is kept for the next message; with what was read from it, about four times as much."""

# First lines that every parser reads alike: httptools takes more, and reads those itself.
_REQUEST_LINE = re.compile(
    rb"(GET|HEAD|OPTIONS|POST|PUT|PATCH|DELETE) (/[\w.~:/?@!$&'()*+,;=%-]*) HTTP/1\.1",
)
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([ -~]*)")


class Recall:
    """The last block of fields of one direction of a connection."""

    __slots__ = ("block", "raw")

    def __init__(self) -> None:
        self.raw = b""
        """From the end of the first line to that of the head; empty: there is none."""
        self.block: Block | None = None

    def forget(self) -> None:
        """Keep no block."""
        self.raw, self.block = b"", None


class _Message:
    """One message: its head, then its body where that is chunked."""

    _broken: int
    """Status of the answer to a message that cannot be read."""
    _first_line: re.Pattern[bytes]
    has_begun = False
    is_complete = False
    """The head is complete."""
    is_over = False
    """A chunked body is complete."""
    _size = 0
    _tail = b""
    _target = b""
    _reason = b""
    _silent_bytes = 0
    _is_extra = False
    _parser: Any = None
    _known: tuple[bytes, bytes] | None = None
    """Groups of the first line, where the fields are the recalled ones."""
    _raw = b""
    """The block of fields, where it came in one piece."""

    def __init__(self, limits: WebSettings, recall: Recall) -> None:
        self.limits = limits
        self.recall = recall
        self.fields: list[Field] = []
        self.trailers: list[Field] = []
        self._pieces: list[bytes] = []

    def _make_parser(self) -> Any:
        raise NotImplementedError

    # ------------------------------------------------------------------- callbacks of httptools

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_status(self, part: bytes) -> None:
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self.trailers if self.is_complete else self.fields
        fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.is_complete = True

    def on_message_begin(self) -> None:
        self._is_extra = self.is_over

    def on_body(self, part: bytes) -> None:
        if not self._is_extra:
            self._pieces.append(part)

    def on_message_complete(self) -> None:
        self.is_over = True

    # ------------------------------------------------------------------------------- the head

    def feed_head(self, data: bytes) -> int:
        """Read on; return the number of bytes that belonged to the head: all of them while it is incomplete.

        Raises: HeadInvalid.
        """
        if not self.has_begun and (at := self._feed_known(data)):
            return at
        at = 0
        while not self.is_complete and at < len(data):
            at = self._feed_head(data, at)
        return at

    def _feed_known(self, data: bytes) -> int:
        """Take a head with the recalled fields; return its size, 0 for any other head."""
        raw = self.recall.raw
        if not raw:
            return 0
        line = data.find(_LINE_END)
        size = line + len(raw)
        if not data.startswith(raw, line) or size > self.limits.max_head_bytes:
            return 0
        matched = self._first_line.fullmatch(data, 0, line)
        if matched is None:
            return 0
        self._known = (matched[1], matched[2])
        self.has_begun = self.is_complete = True
        return size

    def _block(self, judge: Callable[[list[Field]], Block]) -> Block:
        """Return the block of a head that httptools read; recall it from now on where that can be done."""
        block = judge(self.fields)
        if self._raw and not block.is_chunked and len(self._raw) <= _MAX_RECALLED_BYTES:
            self.recall.raw, self.recall.block = self._raw, block
        return block

    def _feed_head(self, data: bytes, at: int) -> int:
        """Feed up to the end of the head, or to an empty line before it (RFC 9112 §2.2)."""
        stop = self._end_of_head(data, at)
        self._size += stop - at
        if self._size > self.limits.max_head_bytes:
            raise HeadInvalid(self._too_large, f"a head has at most {self.limits.max_head_bytes} bytes")
        is_first, self.has_begun = not self.has_begun, True
        if is_first:
            self._parser = self._make_parser()
        try:
            self._parser.feed_data(data if stop - at == len(data) else data[at:stop])
        except httptools.HttpParserUpgrade:
            pass  # the head is complete; what to make of it is decided in `heads`
        except httptools.HttpParserInvalidMethodError:
            raise HeadInvalid(501, "this request method is not known here") from None
        except httptools.HttpParserError as exc:
            raise HeadInvalid(self._broken, f"this is no HTTP/1: {exc}") from None
        if len(self.fields) > self.limits.max_fields:
            raise HeadInvalid(self._too_large, f"a head has at most {self.limits.max_fields} fields")
        if not self.is_complete:
            self._tail = (self._tail + data[max(at, stop - 3) : stop])[-3:]
        elif is_first:
            self._raw = data[data.find(_LINE_END) : stop]
        return stop

    def _end_of_head(self, data: bytes, at: int) -> int:
        """Return the position behind the next empty line, which may have begun in an earlier piece."""
        if self._tail:
            start = len(self._tail)
            end = (self._tail + data[at : at + 3]).find(_END)
            if end >= 0:
                return at + end + len(_END) - start
        end = data.find(_END, at, at + self.limits.max_head_bytes)
        return len(data) if end < 0 else end + len(_END)

    @property
    def _too_large(self) -> int:
        return 431 if self._broken == 400 else self._broken

    def release(self) -> None:
        """Let the parser go, which knows this message as this knows it: nothing else is read by it."""
        self._parser = None

    # ----------------------------------------------------------------------- a chunked body

    def feed_chunked(self, data: Buffer) -> tuple[list[bytes], bool]:
        """Read on in a chunked body; gives its content, and whether bytes follow its end.

        Raises: HeadInvalid when it is none, or has more between two pieces of content than a head may have.
        """
        self._pieces = []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_extra = True
        except httptools.HttpParserError as exc:
            if not self.is_over:
                raise HeadInvalid(self._broken, f"the body is not chunked as it should be: {exc}") from None
            self._is_extra = True
        self._silent_bytes = 0 if self._pieces else self._silent_bytes + len(data)
        if self._silent_bytes > self.limits.max_head_bytes or len(self.trailers) > self.limits.max_fields:
            raise HeadInvalid(self._too_large, "more trailers or chunk extensions than a head may have")
        return self._pieces, self._is_extra


class RequestMessage(_Message):
    """A request, read from a client."""

    _broken = 400
    _first_line = _REQUEST_LINE

    def _make_parser(self) -> Any:
        return HttpRequestParser(self)

    def head(self) -> Request:
        """Return the head as read. Raises: HeadInvalid."""
        if self._known is not None and self.recall.block is not None:
            line, self._target = self._known
            method, version, block = line.decode(), "1.1", self.recall.block
        else:
            method, version = self._parser.get_method().decode(), self._parser.get_http_version()
            block = self._block(request_block)
        if len(self._target) > self.limits.max_target_bytes:
            raise HeadInvalid(414, f"a target has at most {self.limits.max_target_bytes} bytes")
        return read_request(method, self._target, version, block)


class AnswerMessage(_Message):
    """An answer, read from an app."""

    _broken = 502
    _first_line = _STATUS_LINE

    def _make_parser(self) -> Any:
        return HttpResponseParser(self)

    def head(self, to: Request) -> Answer:
        """Return the head of an answer to a request as read. Raises: HeadInvalid."""
        if self._known is not None and self.recall.block is not None:
            status, reason = self._known
            return read_answer(int(status), reason, "1.1", self.recall.block, to)
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        return read_answer(status, self._reason, version, self._block(answer_block), to)
