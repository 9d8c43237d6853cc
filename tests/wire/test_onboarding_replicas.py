"""The page of several replicas behind a load balancer that sends a browser to any of them."""

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.neighbours import ask
from tests.fakes.browser import Browser, Page
from tests.wire.browser import Shown, in_a_loop
from tests.wire.harness import free_port
from tests.wire.newcomer import House, Newcomer, fingerprint, open_house
from tests.wire.peers import until
from tests.wire.replicas import REPLICA, replica_of

PROVIDER = [{"kind": "dev", "approval": "confirm"}]


class Balancer:
    """Takes every browser to one port, whatever the cookies say; which one may change at any time."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = 0
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def url(self) -> str:
        return f"http://login.localhost:{self.port}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self._ready.set()
        await self._end.wait()
        server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer), return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@dataclass
class Pair:
    """Two replicas, the ports of their pages, and what browsers come through."""

    first: House
    second: House
    pages: tuple[int, int]
    balancer: Balancer


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    balancer, pages = Balancer(), (free_port(), free_port())

    def confirm(port: int) -> dict[str, str]:
        return {
            "listen": f"127.0.0.1:{port}",
            "public_url": balancer.url,
            "peer_url": f"http://127.0.0.1:{port}",
        }

    front_door = {"providers": PROVIDER, "confirm": confirm(pages[0])}
    with (
        open_house(tmp_path / "house", front_door, {REPLICA: "first"}) as first,
        beside(first, tmp_path / "second", confirm(pages[1])) as second,
    ):
        yield Pair(first, second, pages, balancer)
    balancer.close()


@contextmanager
def beside(first: House, directory: Path, confirm: dict[str, str]) -> Iterator[House]:
    first.fairlead.configure_client()
    own = {REPLICA: "second", "FAIRLEAD_FRONT_DOOR__CONFIRM": json.dumps(confirm)}
    second = replica_of(first.fairlead, directory, **own)
    second.start()
    try:
        yield House(second, first.ears)
    finally:
        second.stop()


def look(url: str) -> Page:
    async def work() -> Page:
        async with Browser() as browser:
            return await browser.get(url)

    return in_a_loop(work())


def visit(shown: Shown, account: str, decision: str) -> tuple[Page, Page]:
    """Sign in at the provider as `account`, look at our page, and press its button."""
    until(lambda: look(shown.url).status == 200, "the replicas have heard of each other")
    until(lambda: look(shown.url).status == 200, "the replicas have heard of each other")

    async def work() -> tuple[Page, Page]:
        async with Browser() as browser:
            page = await browser.get(shown.url)
            assert page.forms, page.text
            while "csrf" not in page.forms[0].fields or "Is this your key?" not in page.text:
                page = await browser.submit(page, "approve", account=account)
            return page, await browser.submit(page, decision)

    return in_a_loop(work())


@pytest.mark.parametrize("other", [0, 1], ids=["waits at the second", "waits at the first"])
def test_a_browser_that_meets_the_other_replica_is_answered_by_the_one_that_waits(
    pair: Pair, tmp_path: Path, other: int
) -> None:
    pair.balancer.target = pair.pages[other]
    here = (pair.second, pair.first)[other]
    person = Newcomer(here, "alice", tmp_path)
    with person.log_in() as attempt:
        shown = attempt.shown()
        assert shown.url.startswith(pair.balancer.url)
        asked, confirmed = visit(shown, "alice", "confirm")
        assert shown.code in asked.text
        assert fingerprint(person.keys[0]) in asked.text
        assert "Confirmed" in confirmed.text
        assert asked.headers["Content-Security-Policy"].startswith("default-src 'none'")
        attempt.entered()
    assert Newcomer(pair.first, "alice", tmp_path, person.keys).silently().stdout == b"in\n"


def test_cookies_of_other_sites_stay_at_the_page_that_a_browser_meets(pair: Pair, tmp_path: Path) -> None:
    """Names and values may be any bytes; those of ours go over, and what imitates them goes nowhere."""
    pair.balancer.target = pair.pages[1]
    with Newcomer(pair.first, "alice", tmp_path).log_in() as attempt:
        link = attempt.shown().url
        until(lambda: look(link).status == 200, "the replicas have heard of each other")
        strange = b"\xff\xfe=\x80; a=" + "\u2000".encode()
        assert in_a_loop(ask(link, strange)).status == 303
        imitation = "\u2000fairlead-confirm-session-01234567=x".encode()
        assert in_a_loop(ask(link, imitation)).status == 400


def test_a_denial_reaches_the_terminal_through_the_other_replica(pair: Pair, tmp_path: Path) -> None:
    pair.balancer.target = pair.pages[1]
    with Newcomer(pair.first, "alice", tmp_path).log_in() as attempt:
        _, denied = visit(attempt.shown(), "alice", "deny")
        assert "Denied" in denied.text
        assert "the request was denied in the browser" in attempt.refused()


def test_a_link_of_a_replica_that_died_says_so_and_nothing_else_suffers(pair: Pair, tmp_path: Path) -> None:
    pair.balancer.target = pair.pages[1]

    with Newcomer(pair.first, "alice", tmp_path).log_in() as attempt:
        shown = attempt.shown()
        until(lambda: look(shown.url).status == 200, "the replicas have heard of each other")
        pair.first.fairlead.stop(signal.SIGKILL)
        page = look(shown.url)
        assert (page.status, "Connect again" in page.text) == (502, True)
    strange = look(f"{pair.balancer.url}/c/0123abcd.{'x' * 32}")
    assert (strange.status, "Connect again" in strange.text) == (404, True)
    with Newcomer(pair.second, "bob", tmp_path).log_in() as attempt:
        visit(attempt.shown(), "bob", "confirm")
        attempt.entered()
