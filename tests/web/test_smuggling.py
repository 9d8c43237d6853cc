"""Attacks on framing, alone and through nginx and haproxy: never an answer on a wrong connection."""

import asyncio
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.web.edges import edge, find
from tests.web.fronts import Running, Talk, read_request, running
from tests.web.smuggling import corpus

EDGES = [
    "alone",
    *(
        pytest.param(
            name, marks=pytest.mark.skipif(find(name) is None, reason=f"optional, not found here: {name}")
        )
        for name in ("nginx", "haproxy")
    ),
]
ATTACK_S = 0.3
"""How long an attacker waits for more of an answer."""


class Witness:
    """An app that tells every request by what it names, and notes those it was never meant to see."""

    def __init__(self) -> None:
        self.targets: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ValueError):
            while True:
                head, _ = await read_request(reader)
                target = head.split(b" ")[1]
                self.targets.append(target)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(target))
                if not head.startswith(b"HEAD "):
                    writer.write(target)
                await writer.drain()


async def _connect(port: int) -> Talk:
    return Talk(*await asyncio.open_connection("127.0.0.1", port))


async def attack(one: str, front: Running, port: int, number: int) -> None:
    """Send an attack, and let another client ask two questions meanwhile."""
    host = front.host().decode()
    attacker, other = await _connect(port), await _connect(port)
    try:
        attacker.send(one.replace("{host}", host).encode("latin-1"))
        for turn in range(2):
            mine = b"/victim-%d-%d" % (number, turn)
            reply = await other.ask(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (mine, host.encode()))
            assert (reply.status, reply.body) == (200, mine), (one, reply)
        with suppress(TimeoutError):
            async with asyncio.timeout(ATTACK_S):
                with suppress(ConnectionError):
                    said = await attacker.reader.read(65_536)
                    assert b"/victim" not in said, one
    finally:
        attacker.reset()
        await attacker.close()
        await other.close()


async def attack_all(name: str, count: int, directory: Path, at_once: int = 8, **settings: Any) -> None:
    async with running(pool_size=4, **settings) as front:
        witness = Witness()
        await front.app(witness.serve)
        with nullcontext(front.port) if name == "alone" else edge(name, directory, front.port) as port:
            waiting = iter(enumerate(corpus(count)))

            async def work() -> None:
                for number, one in waiting:
                    await attack(one, front, port, number)

            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work())
            reply = await (last := await _connect(port)).ask(
                b"GET /last HTTP/1.1\r\nHost: %b\r\n\r\n" % front.host()
            )
            assert reply.body == b"/last"
            await last.close()
        seen = [target for target in witness.targets if target.startswith(b"/victim")]
        assert len(seen) == len(set(seen)) == 2 * count, "each question was asked once, and none was lost"


@pytest.mark.parametrize("name", EDGES)
async def test_no_attack_on_framing_moves_an_answer_to_another_connection(name: str, tmp_path: Path) -> None:
    await attack_all(name, 120, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", EDGES)
async def test_10_000_attacks_on_framing_move_no_answer(name: str, tmp_path: Path) -> None:
    await attack_all(name, 10_000, tmp_path, at_once=32)


REFUSED = [
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "GET / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nX : y\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nX: y\r\n z\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nX: a\x00b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nX: a\x01b\r\n\r\n",
    "GET / HTTP/1.1\nHost: {host}\n\n",
    "GET / HTTP/1.2\r\nHost: {host}\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: {host}\r\n\r\n",
    "GET /\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET a HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "GET http://other.localhost/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "GET ftp://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "NONSENSE / HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n"
    "\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\nX: " + "y" * 70_000 + "\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {host}\r\n" + "X: y\r\n" * 201 + "\r\n",
    "GET /" + "x" * 20_000 + " HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a@{host}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n",
]


@pytest.mark.parametrize("one", REFUSED, ids=range(len(REFUSED)))
async def test_what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(one: str) -> None:
    async with running() as front:
        witness = Witness()
        await front.app(witness.serve)
        talk = await front.connect()
        behind = "GET /behind HTTP/1.1\r\nHost: {host}\r\n\r\n"
        talk.send((one + behind).replace("{host}", front.host().decode()).encode("latin-1"))
        reply = await talk.reply(of_head=False)
        assert 400 <= reply.status < 600
        assert reply.one("connection") == "close"
        assert await talk.rest() == b""
        assert witness.targets == []
