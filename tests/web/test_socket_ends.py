"""Open WebSockets, and everything that ends them from outside: each gets a Close frame with a reason.

200 for the lock and the shutdown, 20 for the others; 200 for all in the slow run, which prints the seconds
from the order to the last Close frame. Nothing here asserts a time.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from time import monotonic

import aiohttp
import pytest

from tests.fakes.browser import Browser
from tests.web.logins import ACCEPT, DEADLINE_S, Place, place
from tests.web.test_revocation import POLICY_VIOLATION, browsers, closed, connect, status

MANY, FEW = 200, 20
AT_ONCE = 20
GOING_AWAY = 1001
TRUSTED = {"FAIRLEAD_WEB__TRUSTED_PROXIES": '["127.0.0.1", "::1"]'}
"""Clients of these tests have addresses of their own, as behind an edge proxy."""
THEIRS, KILLED, OTHERS = "192.0.2.66", "192.0.2.67", "192.0.2.7"

Socket = aiohttp.ClientWebSocketResponse
Order = Callable[[Place, Browser], Awaitable[object]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("ends"), **TRUSTED) as one:
        yield one


@asynccontextmanager
async def opened(here: Place, address: str, count: int) -> AsyncIterator[tuple[Browser, list[Socket]]]:
    """Sign a browser at an address in, and open so many WebSockets."""
    async with Browser(**ACCEPT, **{"X-Forwarded-For": address}) as browser:
        await browser.submit(await browser.get(here.link()["url"]), "sign-in")
        assert (await browser.get(here.url())).text.startswith("APP")
        sockets: list[Socket] = []
        while len(sockets) < count:
            sockets += await asyncio.gather(*(connect(browser, here) for _ in range(AT_ONCE)))
        yield browser, sockets


async def command(here: Place, *words: str) -> None:
    await asyncio.to_thread(here.fairlead.cli, *words)


async def sign_out(here: Place, browser: Browser) -> None:
    await browser.submit(await browser.get(f"{here.login}/"), "here")


async def sign_out_everywhere(here: Place, browser: Browser) -> None:
    await browser.submit(await browser.get(f"{here.login}/"), "everywhere")


async def lock(here: Place, browser: Browser) -> None:
    del browser
    await command(here, "user", "lock", "alice")


async def ban(here: Place, browser: Browser) -> None:
    del browser
    await command(here, "ban", "add", THEIRS, "--for", "3600")


async def kill(here: Place, browser: Browser) -> None:
    """Kill the session by its id, as an operator who looked it up."""
    del browser
    async with asyncio.timeout(DEADLINE_S):
        while not (rows := [row for row in await browsers(here) if row["client_address"] == KILLED]):
            await asyncio.sleep(0.2)
    for row in rows:
        await command(here, "session", "kill", row["id"], "--reason", "audit")


async def stop_workspace(here: Place, browser: Browser) -> None:
    del browser
    line = [*here.fairlead.command("ssh", "-s"), "fl", "workspace-stop"]
    await asyncio.to_thread(subprocess.run, line, check=True, capture_output=True, timeout=DEADLINE_S)


ENDS: dict[Order, tuple[int, str]] = {
    sign_out: (POLICY_VIOLATION, "you signed out"),
    sign_out_everywhere: (POLICY_VIOLATION, "you signed out"),
    lock: (POLICY_VIOLATION, "this user is locked"),
    kill: (POLICY_VIOLATION, "ended by an operator: audit"),
    ban: (POLICY_VIOLATION, "your address is banned"),
}
EACH = pytest.mark.parametrize("order", ENDS, ids=lambda order: order.__name__)


async def end(here: Place, order: Order, count: int) -> None:
    """Give an order, and wait until every socket that it is about has ended with its reason."""
    stays_count = 0 if order in (lock, sign_out_everywhere) else AT_ONCE
    address = KILLED if order is kill else THEIRS  # sessions that ended stay on the list for a moment
    async with (
        opened(here, OTHERS, stays_count) as (other, stays),
        opened(here, address, count) as (one, own),
    ):
        began = monotonic()
        try:
            ordered = asyncio.ensure_future(order(here, one))
            assert {await closed(socket) for socket in own} == {ENDS[order]}
            print(f"{order.__name__}: {len(own)} sockets ended within {monotonic() - began:.2f} s")
            await ordered
            expected = 200 if stays_count else 401
            assert await status(other, here) == expected
            assert not [socket for socket in stays if socket.closed]
            assert await status(one, here) in (401, 403)
        finally:
            await command(here, "user", "unlock", "alice")
            await asyncio.to_thread(here.fairlead.run, "ban", "remove", THEIRS)
            async with asyncio.timeout(DEADLINE_S):
                while (await one.get(f"{here.login}/")).text.startswith("Your address is banned"):
                    await asyncio.sleep(0.2)


@EACH
async def test_every_open_websocket_ends_with_a_reason(here: Place, order: Order) -> None:
    await end(here, order, MANY if order is lock else FEW)


@pytest.mark.slow
@EACH
async def test_200_open_websockets_end_with_a_reason(here: Place, order: Order) -> None:
    await end(here, order, MANY)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
async def test_a_stop_of_the_workspace_ends_every_websocket_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, count: int
) -> None:
    with place(tmp_path_factory.mktemp("stop"), **TRUSTED) as here:
        async with opened(here, THEIRS, count) as (one, own):
            began = monotonic()
            ordered = asyncio.ensure_future(stop_workspace(here, one))
            reasons = {await closed(socket) for socket in own}
            print(f"stop: {len(own)} sockets ended within {monotonic() - began:.2f} s")
            assert reasons == {(GOING_AWAY, "the app is gone: it ended, or its workspace stopped")}
            await ordered


async def test_sigterm_ends_200_websockets_with_a_reason_before_the_process_ends(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with place(tmp_path_factory.mktemp("term"), **TRUSTED) as here:
        async with opened(here, THEIRS, MANY) as (_, own):
            began = monotonic()
            ended = asyncio.ensure_future(asyncio.to_thread(here.fairlead.stop))
            assert {await closed(socket) for socket in own} == {(GOING_AWAY, "the server is shutting down")}
            print(f"SIGTERM: {len(own)} sockets ended within {monotonic() - began:.2f} s")
            await ended
