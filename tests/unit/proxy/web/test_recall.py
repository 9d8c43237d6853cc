"""A connection that recalls the last block of fields reads every message as one that recalls nothing."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.web import WebSettings
from proxy.web.heads import Answer, HeadInvalid, Request
from proxy.web.parsing import AnswerMessage, Recall, RequestMessage

LIMITS = WebSettings(max_head_bytes=1024, max_fields=10, max_target_bytes=256)

FIELDS = st.lists(
    st.sampled_from(
        [
            b"Host: app.localhost",
            b"host:app.localhost \t",
            b"Accept: */*",
            b"Cookie: a=b; fairlead=x",
            b"Connection: close",
            b"Connection: keep-alive, X-Hop",
            b"X-Hop: 1",
            b"X-Forwarded-For: 10.0.0.1",
            b"Content-Length: 3",
            b"Transfer-Encoding: chunked",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Authorization: Bearer flt_x",
            b"Set-Cookie: a=b; Domain=x",
            b"Location: http://app.localhost/",
            b"Bad Name: x",
            b"Long: " + b"x" * 700,
        ]
    ),
    max_size=11,
).map(lambda lines: b"".join(b"%b\r\n" % line for line in lines))
REQUEST_LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"GET /a?b=%20#c HTTP/1.1",
        b"GET /\xc3\xa4 HTTP/1.1",
        b"GET http://app.localhost/x HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET / HTTP/1.1 ",
        b"HEAD /x HTTP/1.1",
        b"POST /x HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"BREW / HTTP/1.1",
        b"GET /" + b"y" * 300 + b" HTTP/1.1",
        b"\r\nGET / HTTP/1.1",
        b"GET / HTTP/1.1\nX: y",
    ]
)
STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 103 Early Hints",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 600 ?",
        b"HTTP/1.1 404 N\xe4 da",
    ]
)
BODY = st.sampled_from([b"", b"abc", b"GET / HTTP/1.1\r\n\r\n"])

Outcome = tuple[int, str] | tuple[int, Request | Answer]


def read(read_head: Callable[[], tuple[int, Request | Answer]]) -> Outcome:
    try:
        return read_head()
    except HeadInvalid as exc:
        return exc.status, str(exc)


def request_of(data: bytes, recall: Recall) -> Outcome:
    message = RequestMessage(LIMITS, recall)

    def read_head() -> tuple[int, Request | Answer]:
        return message.feed_head(data), message.head()

    return read(read_head)


def answer_of(data: bytes, recall: Recall, to: Request) -> Outcome:
    message = AnswerMessage(LIMITS, recall)

    def read_head() -> tuple[int, Request | Answer]:
        return message.feed_head(data), message.head(to)

    return read(read_head)


GET = RequestMessage(LIMITS, Recall())
GET.feed_head(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
TO = GET.head()


@given(st.lists(st.tuples(REQUEST_LINES, FIELDS, BODY), min_size=1, max_size=6))
def test_requests_are_read_alike(messages: list[tuple[bytes, bytes, bytes]]) -> None:
    recall = Recall()
    for line, fields, body in messages:
        data = b"%b\r\n%b\r\n%b" % (line, fields, body)
        assert request_of(data, recall) == request_of(data, Recall())


@given(st.tuples(REQUEST_LINES, REQUEST_LINES, FIELDS, BODY))
def test_a_request_with_the_fields_of_the_one_before_is_read_alike(
    case: tuple[bytes, bytes, bytes, bytes],
) -> None:
    first, second, fields, body = case
    recall = Recall()
    request_of(b"%b\r\n%b\r\n" % (first, fields), recall)
    data = b"%b\r\n%b\r\n%b" % (second, fields, body)
    assert request_of(data, recall) == request_of(data, Recall())


@given(st.tuples(STATUS_LINES, STATUS_LINES, FIELDS, BODY))
def test_an_answer_with_the_fields_of_the_one_before_is_read_alike(
    case: tuple[bytes, bytes, bytes, bytes],
) -> None:
    first, second, fields, body = case
    recall = Recall()
    answer_of(b"%b\r\n%b\r\n" % (first, fields), recall, TO)
    data = b"%b\r\n%b\r\n%b" % (second, fields, body)
    assert answer_of(data, recall, TO) == answer_of(data, Recall(), TO)


def test_the_second_of_two_equal_heads_is_not_parsed() -> None:
    recall = Recall()
    head = b"GET /%b HTTP/1.1\r\nHost: app.localhost\r\nAccept: */*\r\n\r\n"
    request_of(head % b"a", recall)
    message = RequestMessage(LIMITS, recall)
    message.feed_head(head % b"b")
    assert message.head().target == b"/b"
    assert message.fields == []


def test_a_block_announcing_chunks_is_not_recalled() -> None:
    """The parser has to have read the head to read the body."""
    recall = Recall()
    request_of(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n", recall)
    assert recall.block is None
