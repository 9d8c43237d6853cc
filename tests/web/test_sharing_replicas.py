"""Two proxies: what one takes away is closed at the other, with a real NATS between them and without."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from tests.fakes.browser import Browser
from tests.web.guests import Guest, enter
from tests.web.logins import Place, serve
from tests.web.test_revocation import POLICY_VIOLATION, closed, connect
from tests.wire.harness import free_port
from tests.wire.replicas import two_proxies

SHARE_ENDED = "this app is not shared with you any more"


@dataclass
class Pair:
    """Two proxies with one database; browsers come to the first, changes are made at the second."""

    first: Place
    alice: Guest
    """At the second."""
    bob: Guest
    """At the first."""


@pytest.fixture(scope="module", params=[False, True], ids=["database only", "nats"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("replicas")
    app_port, ports = free_port(), (free_port(), free_port())
    settings = {"FAIRLEAD_WEB__PUBLIC_PORT": str(ports[0])}
    if request.param:  # then nothing is left to the database's turn
        settings["FAIRLEAD_WEB__SESSION__CHECK_S"] = "60"
    with two_proxies(directory, settings, nats=request.param, start=False) as both:
        for fairlead, port in zip((both.first, both.second), ports, strict=True):
            fairlead.extra_env["FAIRLEAD_WEB__LISTEN"] = f"127.0.0.1:{port}"
            fairlead.extra_env["FAIRLEAD_WEB__SESSION__ATTEMPTS_PER_MINUTE"] = "10000"
        (both.first.home / "blueprints" / "dev.yaml").write_text(
            f"name: dev\napps: {{lab: {{title: a lab, listen: {{port: {app_port}}}, share_max: users}}}}\n"
        )
        both.first.start()
        both.second.start()
        serve(both.first, app_port)
        place = Place(both.first, ports[0], app_port)
        yield Pair(place, Guest(both.second, "alice", both.first.key), Guest.added(both.first, "bob"))


@asynccontextmanager
async def visiting(pair: Pair) -> AsyncIterator[tuple[Browser, aiohttp.ClientWebSocketResponse]]:
    """Hold a browser of bob at the first proxy, with a WebSocket to what alice shared at the second."""
    code, _, err = pair.alice.lobby("share lab --with bob")
    assert code == 0, err
    async with pair.bob.browser() as browser:
        async with asyncio.timeout(60):  # until the first proxy knows
            while not (await browser.get(pair.first.url())).text.startswith("This page is alice's"):
                await asyncio.sleep(0.1)
        await enter(browser, pair.first.url())
        yield browser, await connect(browser, pair.first)


async def answer(browser: Browser, pair: Pair) -> int:
    return (await browser._go("GET", pair.first.url(), None, {"Accept": "*/*"}, follow=False)).status


async def test_a_share_that_is_removed_closes_at_the_other_replica(pair: Pair) -> None:
    async with visiting(pair) as (browser, socket):
        code, _, err = pair.alice.lobby("unshare lab --with bob")
        assert code == 0, err
        assert await closed(socket) == (POLICY_VIOLATION, SHARE_ENDED)
        assert await answer(browser, pair) == 404


@pytest.mark.parametrize("locked", ["alice", "bob"])
async def test_a_lock_of_owner_or_guest_closes_at_the_other_replica(pair: Pair, locked: str) -> None:
    async with visiting(pair) as (_, socket):
        pair.alice.fairlead.cli("user", "lock", locked)
        try:
            reason = "this user is locked" if locked == "bob" else SHARE_ENDED
            assert await closed(socket) == (POLICY_VIOLATION, reason)
        finally:
            pair.alice.fairlead.cli("user", "unlock", locked)


async def test_a_blueprint_that_is_not_the_owner_s_any_more_closes_at_the_other_replica(pair: Pair) -> None:
    file = pair.first.fairlead.home / "blueprints" / "dev.yaml"
    before = file.read_text()
    async with visiting(pair) as (browser, socket):
        file.write_text(f"access: {{users: [bob]}}\n{before}")
        try:
            assert await closed(socket) == (POLICY_VIOLATION, SHARE_ENDED)
            assert await answer(browser, pair) == 404
        finally:
            file.write_text(before)
