"""A first login with every real part: OpenSSH's client, the link that it prints, and a Chromium."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.chromium import Chromium, open_chromium
from tests.wire.harness import needs
from tests.wire.newcomer import House, Newcomer, fingerprint, open_house

# A start of the browser costs more than a test. It lives as long as the loop, and each test has new people.
pytestmark = [needs("chromium"), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(params=["device", "confirm"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """The front door of `make run`, once with a code to enter and once with our own page."""
    door = {
        "device": None,
        "confirm": {
            "providers": [{"kind": "dev", "approval": "confirm"}],
            "confirm": {"listen": "127.0.0.1:0"},
        },
    }
    with open_house(tmp_path / "house", door[request.param]) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with open_chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def chromium(browser: Chromium) -> AsyncIterator[Chromium]:
    """The browser, without the people of the tests before."""
    yield browser
    await browser.forget_everyone()


async def test_the_printed_link_opens_and_lets_its_reader_in(
    house: House, chromium: Chromium, tmp_path: Path
) -> None:
    newcomer = Newcomer(house, "somebody", tmp_path)
    with newcomer.log_in() as attempt:
        shown = await asyncio.to_thread(attempt.shown)
        assert shown.url.startswith("http://login.localhost:")
        person = await chromium.person()
        text = await person.open(shown.link)
        if shown.url.endswith("/device"):
            assert fingerprint(newcomer.keys[0]) in text
            assert "Approved" in await person.press("approve")
        else:
            text = await person.press("approve", account="somebody")
            assert fingerprint(newcomer.keys[0]) in text
            assert "Confirmed" in await person.press("confirm")
        await asyncio.to_thread(attempt.entered)
    assert (await asyncio.to_thread(newcomer.silently)).stdout == b"in\n"
