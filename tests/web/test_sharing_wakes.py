"""Guests and workspaces that do not run: they start none, unless the app says so, and undo no stop."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.fakes.browser import Browser
from tests.web.guests import Guest, enter
from tests.web.logins import Place, app_by_init, place
from tests.web.test_cold_start import gone, phase, until_shown

OPENED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    def blueprint(port: int) -> str:
        before, _, after = app_by_init(port).partition("apps:\n")
        share = f"listen: {{port: {port}}}, share: {{users: [bob]}}"
        return f"{before}apps:\n  still: {{{share}}}\n  woken: {{{share}, wake: visitors}}\n{after}"

    with place(tmp_path_factory.mktemp("wakes"), program="", blueprint=blueprint) as one:
        yield one


@pytest.fixture(scope="module")
def bob(here: Place) -> Guest:
    return Guest.added(here.fairlead, "bob")


@pytest_asyncio.fixture
async def browser(here: Place, bob: Guest) -> AsyncIterator[Browser]:
    """A browser of bob, past the pages that name the owner; the workspace of alice does not run."""
    async with bob.browser() as one:
        for app in ("still", "woken"):
            await enter(one, here.url(f"{app}--dev--alice"))
        await asyncio.to_thread(gone, here)
        yield one


async def test_a_guest_starts_no_workspace(here: Place, browser: Browser) -> None:
    for headers in ({}, OPENED, {"Prefer": "wait=30"}):
        page = await browser.get(here.url("still--dev--alice"), **headers)
        assert (page.status, "Start" in page.text) == (404, False)
    for path in ("/.fairlead/wait?to=/", "/.fairlead/start?to=/"):
        assert (await browser.get(here.url("still--dev--alice", path))).status == 404
    assert (await browser.post(here.url("still--dev--alice", "/.fairlead/start?to=/"), {})).status == 404
    assert phase(here) == "absent"


async def test_a_guest_starts_it_where_the_app_says_so(here: Place, browser: Browser) -> None:
    url = here.url("woken--dev--alice")
    first = await browser.get(url, **OPENED)
    assert first.status in (200, 503)
    await until_shown(browser, url, lambda page: page.text.startswith("APP"), "the app itself")
    assert (await browser.get(here.url("still--dev--alice"))).text.startswith("APP"), "it runs now"


async def test_a_guest_undoes_no_stop_that_the_owner_asked_for(here: Place, browser: Browser) -> None:
    url = here.url("woken--dev--alice")
    assert here.fairlead.ssh("true").returncode == 0
    assert here.fairlead.ssh("workspace-stop", "-s").returncode == 0
    assert phase(here) == "stopped"
    page = await browser.get(url, **OPENED)
    assert page.status == 503
    assert "its owner starts it again" in page.text
    assert page.forms == []
    begun = await browser.post(here.url("woken--dev--alice", "/.fairlead/start?to=/"), {})
    assert begun.status == 503
    assert phase(here) == "stopped"
