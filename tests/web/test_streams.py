"""What passes between a client and an app: at once, in order, no faster than it is read, to its real end."""

import asyncio
from contextlib import suppress

import pytest

from tests.web.fronts import Running, raw_echo, read_chunked, read_request, running, says, until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def get(front: Running, target: str = "/", label: str = "app", more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {front.host(label).decode()}\r\n{more}\r\n".encode()


async def test_the_first_byte_of_an_answer_passes_before_its_last_is_sent() -> None:
    async with running() as front:
        more = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            writer.write(b"5\r\ndata1\r\n")
            await more.wait()
            writer.write(b"5\r\ndata2\r\n0\r\n\r\n")
            await writer.drain()

        await front.app(slow)
        talk = await front.connect()
        talk.send(get(front))
        await talk.head()
        assert await talk.reader.readuntil(b"data1\r\n")
        more.set()
        assert await talk.reader.readuntil(b"0\r\n\r\n") == b"5\r\ndata2\r\n0\r\n\r\n"


async def test_the_first_byte_of_an_upload_passes_before_its_last_is_sent() -> None:
    async with running() as front:
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            seen.put_nowait(await reader.readexactly(5))
            seen.put_nowait(await reader.readexactly(5))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        await front.app(takes)
        talk = await front.connect()
        talk.send(b"PUT / HTTP/1.1\r\nHost: %b\r\nContent-Length: 10\r\n\r\nfirst" % front.host())
        assert await seen.get() == b"first"
        talk.send(b"later")
        assert (await talk.reply()).status == 200
        assert await seen.get() == b"later"


async def test_the_app_decides_whether_an_upload_may_begin() -> None:
    """`Expect: 100-continue` passes, and so does every informational answer."""
    async with running() as front:

        async def careful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"Expect: 100-continue\r\n" in head
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(3)
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n" + body)
            await writer.drain()

        await front.app(careful)
        talk = await front.connect()
        talk.send(
            b"PUT / HTTP/1.1\r\nHost: %b\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n" % front.host()
        )
        hints = await talk.reply()
        assert (hints.status, hints.all("link")) == (103, ["</a>"])
        assert (await talk.reply()).status == 100
        talk.send(b"abc")
        reply = await talk.reply()
        assert (reply.status, reply.body) == (201, b"abc")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 200, b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
        (b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n",
            200,
            b"\0X-Sum: 1\r\n",
        ),
    ],
    ids=["length", "chunked", "until close", "1.0 with length", "1.0", "204", "304", "no reason", "trailers"],
)
async def test_every_way_to_frame_an_answer_arrives_whole_and_the_next_one_too(
    answer: bytes, status: int, body: bytes
) -> None:
    async with running() as front:
        await front.app(says(answer))
        talk = await front.connect()
        for _ in range(3):
            reply = await talk.ask(get(front))
            assert (reply.status, reply.body) == (status, body)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_an_answer_to_head_has_no_body_and_the_next_answer_is_not_taken_for_one(answer: bytes) -> None:
    async with running() as front:
        await front.app(says(answer, keeps=True))
        await front.app(raw_echo, "echo")
        talk = await front.connect()
        for _ in range(3):
            head = get(front).replace(b"GET ", b"HEAD ")
            assert (await talk.ask(head)).status == 200
            assert (await talk.ask(get(front, label="echo"))).body.startswith(b"GET / ")


async def test_a_client_of_http_1_0_gets_what_it_understands() -> None:
    async with running() as front:
        await front.app(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
        talk = await front.connect()
        talk.send(b"GET / HTTP/1.0\r\nHost: %b\r\n\r\n" % front.host())
        head = await talk.head()
        assert b"chunked" not in head
        assert await talk.rest() == b"abc"


async def test_connections_with_an_app_are_used_again_and_only_where_that_is_safe() -> None:
    async with running() as front:
        await front.app(raw_echo)
        talk, other = await front.connect(), await front.connect()
        for _ in range(5):
            assert (await talk.ask(get(front))).status == 200
            assert (await other.ask(get(front))).status == 200
        assert front.road.opened == 1
        assert len(front.pool) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na",
        b"HTTP/1.1 304 OK\r\nContent-Length: 1\r\n\r\na",
    ],
)
async def test_bytes_behind_an_answer_are_nobodys(answer: bytes) -> None:
    async with running() as front:
        await front.app(says(answer, keeps=True))
        talk = await front.connect()
        for asked in range(1, 4):
            reply = await talk.ask(get(front))
            assert b"evil" not in reply.body
            assert front.road.opened == asked, "the connection was not used again"
        assert len(front.pool) == 0


async def test_a_request_that_met_a_closing_connection_is_asked_once_more_where_that_does_no_harm() -> None:
    async with running() as front:
        asked: list[bytes] = []

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            head, _ = await read_request(reader)  # and closes as it comes
            asked.append(head.split(b" ")[0])

        await front.app(once)
        talk = await front.connect()
        assert (await talk.ask(get(front))).status == 200
        assert (await talk.ask(get(front))).status == 200
        assert asked == [b"GET"]
        post = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 0\r\n\r\n" % front.host()
        assert (await talk.ask(post)).status == 502
        assert asked == [b"GET", b"POST"], "what might change something is never asked twice"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno size\r\n",
    ],
)
async def test_an_answer_that_was_cut_short_does_not_look_whole(answer: bytes) -> None:
    async with running() as front:
        await front.app(says(answer))
        talk = await front.connect()
        talk.send(get(front))
        if b" 502 " in await talk.head():
            return  # nothing of it had been passed on yet
        rest = await talk.rest()
        assert not rest.endswith(b"0\r\n\r\n")
        assert len(rest) < 10


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 ",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ],
    ids=range(12),
)
async def test_what_is_no_answer_becomes_a_sentence_of_ours(answer: bytes) -> None:
    async with running() as front:
        await front.app(says(answer))
        talk = await front.connect()
        reply = await talk.ask(get(front))
        assert reply.status == 502
        assert b"app" in reply.body
        assert (await talk.ask(get(front))).status == 502, "the client's connection goes on"


async def test_an_app_that_does_not_listen_is_not_started() -> None:
    async with running() as front:
        front.gate.add("app", 1)
        talk = await front.connect()
        assert (await talk.ask(get(front))).status == 502
        assert b"<h1>" in (await talk.ask(get(front, more="Sec-Fetch-Mode: navigate\r\n"))).body


async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    async with running() as front:
        under_way = [0]

        async def alone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head, body = await read_request(reader)
                under_way[0] += 1
                await asyncio.sleep(0)
                assert under_way[0] == 1
                under_way[0] -= 1
                said = head.split(b" ")[1] + body
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
                await writer.drain()

        await front.app(alone)
        talk = await front.connect()
        post = b"POST /post HTTP/1.1\r\nHost: %b\r\nContent-Length: 5\r\n\r\nhello" % front.host()
        talk.send(b"".join(get(front, f"/{number}") + post for number in range(20)))
        for number in range(20):
            assert (await talk.reply()).body == b"/%d" % number
            assert (await talk.reply()).body == b"/posthello"


async def test_an_answer_that_comes_before_the_upload_ends_reaches_the_client() -> None:
    async with running() as front:

        async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await writer.drain()
            await asyncio.sleep(60)

        await front.app(refuses)
        talk = await front.connect()
        talk.send(
            b"PUT / HTTP/1.1\r\nHost: %b\r\nContent-Length: 1000000\r\n\r\n" % front.host() + b"x" * 200_000
        )
        reply = await talk.reply()
        assert (reply.status, reply.body) == (413, b"no")
        assert await talk.rest() == b""


async def test_a_client_that_does_not_read_stops_the_app_and_nobody_else() -> None:
    async with running(buffer_bytes=64 * 1024) as front:
        written = [0]

        async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                written[0] += 65_536

        await front.app(floods)
        await front.app(raw_echo, "echo")
        talk = await front.connect()
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        talk.send(get(front))
        before = -1
        while written[0] != before or not written[0]:
            before = written[0]
            await asyncio.sleep(0.3)
        assert written[0] < 64 * 1024 * 1024, "what the kernel buffers on two connections, and no more"
        other = await front.connect()
        assert (await other.ask(get(front, label="echo"))).status == 200
        talk.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await until(lambda: written[0] > before + 1_000_000, "the app goes on")


async def test_a_connection_that_was_held_up_by_one_client_serves_the_next() -> None:
    """The end of an answer may wait for its client when the connection is used again."""
    async with running(buffer_bytes=16 * 1024) as front:
        body = b"x" * 3_000_000
        await front.app(says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body, keeps=True))
        for _ in range(6):
            talk = await front.connect()
            assert (await talk.ask(get(front))).body == body


async def test_an_app_that_does_not_read_stops_the_client_and_nobody_else() -> None:
    async with running(buffer_bytes=64 * 1024) as front:
        go_on = asyncio.Event()

        async def sleeps(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await go_on.wait()
            body = await read_chunked(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Size: %d\r\n\r\n" % len(body))
            await writer.drain()

        await front.app(sleeps)
        talk = await front.connect()
        talk.send(b"PUT / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % front.host())
        sent = 0
        with suppress(TimeoutError):
            while sent < 200_000_000:
                talk.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                async with asyncio.timeout(1):
                    await talk.writer.drain()
                sent += 65_536
        assert 0 < sent < 100_000_000
        go_on.set()
        talk.send(b"0\r\n\r\n")
        assert int((await talk.reply()).one("x-size")) >= sent


async def test_slow_heads_cost_only_themselves_and_end() -> None:
    async with running(head_s=1, idle_s=1) as front:
        await front.app(raw_echo)
        slow = await front.connect()
        slow.send(b"GET / HTTP/1.1\r\nHo")
        silent = await front.connect()
        quick = await front.connect()
        assert (await quick.ask(get(front))).status == 200
        reply = await slow.reply()
        assert reply.status == 408
        assert await silent.rest() == b""
        assert await quick.rest() == b"", "a connection that nobody uses is closed too"


async def test_one_address_has_so_many_connections_and_not_more() -> None:
    async with running(max_connections_per_address=3) as front:
        await front.app(raw_echo)
        talks = [await front.connect() for _ in range(3)]
        for talk in talks:
            assert (await talk.ask(get(front))).status == 200
        assert await (await front.connect()).rest() == b""
        await talks[0].close()
        await until(lambda: len(front.front) == 2, "one has left")
        assert (await (await front.connect()).ask(get(front))).status == 200


async def test_all_addresses_have_so_many_connections_and_not_more() -> None:
    async with running(max_connections=2) as front:
        await front.app(raw_echo)
        talks = [await front.connect() for _ in range(2)]
        for talk in talks:
            assert (await talk.ask(get(front))).status == 200
        assert await (await front.connect()).rest() == b""


async def test_a_banned_address_is_not_heard() -> None:
    async with running(is_banned=lambda address: address == "127.0.0.1") as front:
        await front.app(raw_echo)
        talk = await front.connect()
        talk.send(get(front))
        assert await talk.rest() == b""
        assert front.gate.asked == []


async def test_what_is_reserved_never_reaches_an_app_whatever_the_gate_says() -> None:
    async with running() as front:
        await front.app(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
        for waits in (False, True):
            front.gate.waits = waits
            for target in ("/.fairlead", "/.fairlead/", "/.fairlead/redeem?code=1", "/.fairlead?x"):
                talk = await front.connect()
                assert (await talk.ask(get(front, target))).status == 404
            assert (await talk.ask(get(front, "/.fairleader"))).status == 200


@pytest.mark.parametrize("waits", [False, True])
async def test_a_refusal_leaves_the_connection_usable_but_behind_a_body(waits: bool) -> None:
    async with running() as front:
        await front.app(raw_echo)
        front.gate.waits = waits
        talk = await front.connect()
        for _ in range(2):
            reply = await talk.ask(get(front, label="other"))
            assert (reply.status, reply.one("www-authenticate")) == (401, 'Bearer realm="fairlead"')
            assert (await talk.ask(get(front))).status == 200
        talk.send(
            b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 5\r\n\r\nhello" % front.host("other")
            + get(front)
        )
        reply = await talk.reply()
        assert (reply.status, reply.one("connection")) == (401, "close")
        assert await talk.rest() == b""


async def test_a_shutdown_lets_an_answer_end_and_takes_no_new_request() -> None:
    async with running() as front:
        go_on = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            await go_on.wait()
            writer.write(b"cd")
            await writer.drain()

        await front.app(slow)
        talk, idle = await front.connect(), await front.connect()
        talk.send(get(front))
        await talk.head()
        closing = asyncio.ensure_future(front.front.close(60))
        assert await idle.rest() == b""
        go_on.set()
        assert await talk.rest() == b"abcd"
        await closing
        assert len(front.front) == 0
