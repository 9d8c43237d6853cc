"""`kill -9` of one of two replicas at a named point of each step of a sign-in, without stickiness.

A balancer sends everything to the first replica while it lives. The first replica is killed when the named
request arrives ("unasked": before it saw it) or when its answer is complete ("unheard": the step is done, and
the browser does not know). The user reloads, as with any broken page. Every user ends where they wanted, or
reads a page that says what to do, does it, and ends there.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.contract.independent import free_issuer, provider_of, running, through_the_provider
from tests.fakes.browser import Browser, Page
from tests.web.logins import ACCEPT, Place, blueprint, serve
from tests.web.test_login_independent import bind
from tests.wire.harness import Fairlead, free_port
from tests.wire.replicas import two_proxies

WANTED = "/tree?x=1"
SENTENCES = ("Open the address of the app again", "Type the command again")

BY_KEY = {
    "leave": (b"GET /tree", 1),
    "choose": (b"GET /login", 1),
    "look at the link": (b"GET /link/", 1),
    "confirm the link": (b"POST /link/", 1),
    "code": (b"GET /login", 2),
    "redeem": (b"GET /.fairlead/redeem", 1),
    "app": (b"GET /tree", 3),
}
BY_PROVIDER = {
    "leave": (b"GET /tree", 1),
    "to the provider": (b"GET /login", 1),
    "callback": (b"GET /callback", 1),
    "code": (b"GET /login", 2),
    "redeem": (b"GET /.fairlead/redeem", 1),
    "app": (b"GET /tree", 2),
}
"""Steps by the request that makes each: how it begins, and which of those it is."""
POINTS = ("unasked", "unheard")
SHORT = {("confirm the link", "unheard"), ("callback", "unheard"), ("redeem", "unheard")}
"""In every run; the others in the slow one."""


def cases(steps: dict[str, tuple[bytes, int]]) -> list[Any]:
    found = [(step, point) for step in steps for point in POINTS]
    return [pytest.param(*one, marks=() if one in SHORT else pytest.mark.slow) for one in found]


@dataclass
class Replicas:
    """Two replicas, and the balancer before them."""

    first: Fairlead
    second: Fairlead
    ports: tuple[int, int]
    here: Place
    issuer: str = ""
    trap: tuple[bytes, int] = (b"", 0)
    point: str = ""
    is_sprung: bool = False
    _seen: int = 0
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    def arm(self, trap: tuple[bytes, int], point: str) -> None:
        self.trap, self.point, self.is_sprung, self._seen = trap, point, False, 0

    def _springs(self, head: bytes) -> bool:
        self._seen += head.startswith(self.trap[0])
        return not self.is_sprung and head.startswith(self.trap[0]) and self._seen == self.trap[1]

    async def _kill(self) -> None:
        self.is_sprung = True
        await asyncio.to_thread(self.first.stop, signal.SIGKILL)

    async def _answer(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        """Have a living replica answer one request, the first one where it lives."""
        for port in self.ports:
            with suppress(ConnectionRefusedError):
                back, there = await asyncio.open_connection("127.0.0.1", port)
                there.write(head)
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                there.write(await reader.readexactly(int(length[0].split(b":")[1]) if length else 0))
                answer = await back.read()
                there.close()
                return answer
        raise AssertionError("no replica lives")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            springs = self._springs(head)
            if springs and self.point == "unasked":
                await self._kill()
                return
            answer = await self._answer(head, reader)
            if springs:
                await self._kill()
                return
            writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    @asynccontextmanager
    async def balanced(self) -> AsyncIterator[None]:
        """Accept where browsers come; afterwards both replicas live."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.here.port)
        try:
            yield
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            if self.first.process is None or self.first.process.poll() is not None:
                await asyncio.to_thread(self.first.start)


class Patient(Browser):
    """A browser whose user reloads a page that did not come, and sends a form again."""

    async def _go(
        self,
        method: str,
        url: str,
        data: dict[str, str] | None,
        headers: dict[str, str],
        *,
        follow: bool = True,
    ) -> Page:
        try:
            return await super()._go(method, url, data, headers, follow=follow)
        except aiohttp.ClientError:
            broken = self.visited[-1]
            if broken == url:
                return await super()._go(method, url, data, headers, follow=follow)
            return await super()._go("GET", broken, None, {}, follow=follow)


@contextmanager
def replicas(directory: Path, settings: dict[str, str], user: str, issuer: str = "") -> Iterator[Replicas]:
    public, app_port, ports = free_port(), free_port(), (free_port(), free_port())
    settings = {"FAIRLEAD_WEB__PUBLIC_PORT": str(public), **settings}
    with two_proxies(directory, settings, nats=False, start=False) as pair:
        for fairlead, port in zip((pair.first, pair.second), ports, strict=True):
            fairlead.extra_env["FAIRLEAD_WEB__LISTEN"] = f"127.0.0.1:{port}"
        (pair.first.home / "blueprints" / "dev.yaml").write_text(blueprint(app_port))
        if issuer:
            asyncio.run(bind(pair.first, issuer))
        pair.first.start()
        pair.second.start()
        serve(pair.second, app_port, user=f"{user}+dev")
        yield Replicas(pair.first, pair.second, ports, Place(pair.second, public, app_port), issuer)


@pytest.fixture(scope="module")
def by_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    with replicas(tmp_path_factory.mktemp("failover"), {}, "alice") as pair:
        yield pair


@pytest.fixture(scope="module")
def by_provider(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    directory, issuer = tmp_path_factory.mktemp("failover"), free_issuer()
    settings = {
        "FAIRLEAD_FRONT_DOOR__PROVIDERS": json.dumps([provider_of(issuer, directory, "confirm")]),
        "FAIRLEAD_FRONT_DOOR__CONFIRM__LISTEN": "127.0.0.1:0",
    }
    with replicas(directory, settings, "carol", issuer) as pair:
        yield pair


async def with_the_key(pair: Replicas, browser: Browser) -> Page:
    page = await browser.get(pair.here.url(path=WANTED))
    if page.text.startswith("APP"):
        return page
    link = await asyncio.to_thread(pair.here.link)
    page = await browser.get(link["url"])
    if page.forms:
        page = await browser.submit(page, "sign-in")
    if page.status != 200:
        return page
    return await browser.get(pair.here.url(path=WANTED))


async def with_the_provider(pair: Replicas, browser: Browser) -> Page:
    return await through_the_provider(browser, pair.here.url("lab--dev--carol", WANTED), "carol")


async def survives(pair: Replicas, trap: tuple[bytes, int], point: str, way: Any) -> None:
    async with pair.balanced(), Patient(**ACCEPT, Connection="close") as browser:
        pair.arm(trap, point)
        page = await way(pair, browser)
        assert pair.is_sprung, browser.visited
        if not page.text.startswith("APP"):
            assert any(sentence in page.text for sentence in SENTENCES), (page.url, page.status, page.text)
            page = await way(pair, browser)
        assert page.text.startswith("APP"), (page.url, page.status, page.text, browser.visited)
        assert page.url.endswith(WANTED)


@pytest.mark.parametrize(("step", "point"), cases(BY_KEY))
async def test_a_killed_replica_costs_nobody_their_sign_in_by_key(
    by_key: Replicas, step: str, point: str
) -> None:
    await survives(by_key, BY_KEY[step], point, with_the_key)


@pytest.mark.parametrize(("step", "point"), cases(BY_PROVIDER))
async def test_a_killed_replica_costs_nobody_their_sign_in_with_a_provider(
    by_provider: Replicas, installed: Path, step: str, point: str
) -> None:
    async with running(installed, by_provider.issuer, f"{by_provider.here.login}/callback"):
        await survives(by_provider, BY_PROVIDER[step], point, with_the_provider)
