"""Apps whose workspace does not run: the waiting page, its button, and what must not start anything."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from tests.fakes.browser import Browser, Page
from tests.fakes.chromium import ChromiumWindow, open_chromium
from tests.web.logins import ACCEPT, Place, app_by_init, place
from tests.wire.harness import needs

BACKGROUND = {
    "Accept": "*/*",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Site": "same-origin",
}
BY_ITSELF = {
    **ACCEPT,
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "same-origin",
}
WAIT = "/.fairlead/wait"


SLOW = (
    "echo warming up; while ! test -e go; do sleep 0.1; done; "
    "exec python3 -m http.server $PORT --bind 127.0.0.1"
)


MORE = {
    "started": "name: started\napps: "
    + json.dumps(
        {
            "slow": {"listen": {"port": "auto"}, "start": SLOW},
            "crash": {
                "listen": {"port": "auto"},
                "start": "echo the disk is on fire; exit 3",
                "restart": "no",
            },
        }
    )
}
"""A blueprint with an app that waits for a file `go`, and one that fails."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("cold"), program="", blueprint=app_by_init, more=MORE) as one:
        yield one


@pytest_asyncio.fixture
async def user(here: Place) -> AsyncIterator[Browser]:
    """A browser without scripts in which alice is signed in; her workspace does not run, and did not stop."""
    await asyncio.to_thread(gone, here)
    async with Browser(**ACCEPT) as browser:
        link = await asyncio.to_thread(here.link)
        await browser.submit(await browser.get(link["url"]), "sign-in")
        # The origin of the app has a session of its own; this page of it starts nothing without a ticket.
        page = await browser.get(here.url(path=f"{WAIT}?to=/"))
        assert "This workspace is stopped" in page.text
        yield browser


def gone(here: Place) -> None:
    if (here.fairlead.workspace() / "workspace.json").exists():
        here.fairlead.cli("workspace", "delete", "--purge", here.fairlead.workspace().name)


def phase(here: Place) -> str:
    if not (here.fairlead.workspace() / "workspace.json").exists():
        return "absent"
    shown = here.fairlead.cli("workspace", "show", here.fairlead.workspace().name, "--json")
    return str(json.loads(shown)["phase"])


async def until_shown(browser: Browser, url: str, holds: Callable[[Page], bool], what: str) -> Page:
    """Open a page again and again, as a browser without scripts does."""
    async with asyncio.timeout(60):
        while not holds(page := await browser.get(url)):
            await asyncio.sleep(0.2)
    assert holds(page), what
    return page


async def events(browser: Browser, url: str) -> list[tuple[str, dict[str, str]]]:
    """Read a stream of server-sent events to its end."""
    found = []
    async with browser._session.get(url, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        for block in (await answer.text()).split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if fields:
                found.append((fields["event"], json.loads(fields["data"])))
    return found


def refresh_of(here: Place, page: Page) -> str:
    """Return the address that a browser without scripts opens after the page's time."""
    onward = page.html.partition('http-equiv="refresh" content="3;url=')[2].partition('"')[0]
    assert onward, page.html
    return here.url(path=onward.replace("&amp;", "&"))


async def test_a_page_waits_and_lands_without_scripts(here: Place, user: Browser) -> None:
    with here.fairlead.start_held():
        page = await user.get(here.url(path="/tree?x=1"))
        assert page.status == 503
        assert page.headers["Retry-After"] == "10"
        assert page.headers["Cache-Control"] == "no-store"
        assert "lab of workspace dev is starting" in page.text
        assert "Preparing workspace" in page.text
        onward = refresh_of(here, page)
        again = await user.get(onward)
        assert again.status == 503
        assert urlsplit(again.url).path == WAIT
    landed = await until_shown(user, onward, lambda one: one.status == 200, "the app is shown")
    assert landed.url == here.url(path="/tree?x=1")
    assert landed.text.startswith("APP ")


async def test_progress_comes_as_events_and_ends_when_the_app_answers(here: Place, user: Browser) -> None:
    with here.fairlead.start_held():
        page = await user.get(here.url())
        following = asyncio.create_task(events(user, refresh_of(here, page)))
        await asyncio.sleep(0)
    said = await following
    assert said[-1] == ("ready", {})
    assert {name for name, _ in said[:-1]} <= {"progress"}
    assert (await user.get(here.url())).text.startswith("APP ")


@pytest.mark.parametrize("headers", [BACKGROUND, BY_ITSELF, {"Accept": "*/*"}])
async def test_what_no_user_opened_starts_nothing(
    here: Place, user: Browser, headers: dict[str, str]
) -> None:
    page = await user.get(here.url(), **headers)
    assert page.status == 503
    assert phase(here) == "absent"


async def test_a_websocket_starts_nothing(here: Place, user: Browser) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await user._session.ws_connect(here.url(), origin=here.url()[:-1])
    assert refused.value.status == 503
    assert refused.value.headers is not None
    assert refused.value.headers["Retry-After"] == "10"
    assert phase(here) == "absent"


async def test_a_client_that_prefers_to_wait_gets_the_answer(here: Place, user: Browser) -> None:
    page = await user.get(here.url(), Accept="application/json", Prefer="respond-async, wait=60")
    assert page.status == 200
    assert page.text.startswith("APP ")


async def test_a_client_that_waits_too_short_is_asked_to_come_back(here: Place, user: Browser) -> None:
    with here.fairlead.start_held():
        page = await user.get(here.url(), Accept="application/json", Prefer="wait=1")
        assert page.status == 503
        assert page.headers["Retry-After"] == "10"
        assert page.headers["Content-Type"].startswith("text/plain")


async def test_a_stop_by_hand_is_undone_by_the_button_only(here: Place, user: Browser) -> None:
    await until_shown(user, here.url(), lambda one: one.status == 200, "it runs")
    await asyncio.to_thread(here.fairlead.cli, "workspace", "stop", here.fairlead.workspace().name)
    for headers in ({}, {"Prefer": "wait=5"}):
        page = await user.get(here.url(path="/kept"), **headers)
        assert page.status == 503
        assert phase(here) == "stopped"
    assert "It was stopped by an operator" in page.text
    landing = await user.submit(page, "start", follow=False)
    assert landing.status == 303
    where = landing.headers["Location"]
    assert urlsplit(where).path == WAIT
    assert phase(here) == "stopped"
    landed = await until_shown(user, where, lambda one: one.status == 200, "the app is shown")
    assert landed.url == here.url(path="/kept")


async def test_a_stop_after_the_wish_to_start_ends_the_wait(here: Place, user: Browser) -> None:
    with here.fairlead.start_held():
        onward = refresh_of(here, await user.get(here.url()))
    await until_shown(user, here.url(), lambda one: one.status == 200, "it runs")
    await asyncio.to_thread(here.fairlead.cli, "workspace", "stop", here.fairlead.workspace().name)
    page = await user.get(onward)
    assert page.status == 503
    assert "This workspace is stopped" in page.text
    assert [name for name, _ in await events(user, onward)] == ["over"]
    assert phase(here) == "stopped"


@pytest.mark.parametrize("origin", [None, "http://login.localhost", "null"])
async def test_the_button_of_another_page_is_refused(here: Place, user: Browser, origin: str | None) -> None:
    page = await user.post(here.url(path="/.fairlead/start?to=/"), {}, origin=origin, follow=False)
    assert page.status == 403
    got = await user.get(here.url(path="/.fairlead/start?to=/"))
    assert got.status == 405
    assert phase(here) == "absent"


async def test_a_made_up_ticket_starts_nothing_and_leads_nowhere(here: Place, user: Browser) -> None:
    for to in ("/", "//evil.example/", "https://evil.example/"):
        page = await user.get(here.url(path=f"{WAIT}?ticket=AAAA&to={to}"))
        assert page.status in (404, 503)
        assert "evil.example" not in page.headers.get("Location", "")
    assert [name for name, _ in await events(user, here.url(path=f"{WAIT}?ticket=AAAA&to=/"))] == ["over"]
    assert phase(here) == "absent"


async def test_without_a_session_the_waiting_page_is_not_there(here: Place) -> None:
    await asyncio.to_thread(gone, here)
    async with Browser() as stranger:
        page = await stranger.get(here.url(path=f"{WAIT}?ticket=AAAA&to=/"))
        assert page.status == 401
        public = await stranger.get(here.url("open--dev--alice"))
        assert public.status == 404
    assert phase(here) == "absent"


# --------------------------------------------------------------------------- apps that shelld starts


def home(here: Place) -> Path:
    return here.fairlead.workspace("alice+started") / "home"


async def signed_in_at(browser: Browser, here: Place, label: str) -> None:
    assert "is stopped" in (await browser.get(here.url(label, f"{WAIT}?to=/"))).text


async def test_the_page_shows_the_log_of_an_app_that_takes_long_and_lands(here: Place, user: Browser) -> None:
    label = "slow--started--alice"
    await signed_in_at(user, here, label)

    def shows_log(page: Page) -> bool:
        assert page.status == 503
        return "warming up" in page.text

    page = await until_shown(user, here.url(label), shows_log, "the log")
    assert "App slow is starting" in page.text
    onward = here.url(
        label, urlsplit(refresh_of(here, page)).path + "?" + urlsplit(refresh_of(here, page)).query
    )
    following = asyncio.create_task(events(user, onward))
    await asyncio.to_thread((home(here) / "go").touch)
    said = await following
    assert said[-1] == ("ready", {})
    landed = await user.get(onward)
    assert (landed.status, landed.url) == (200, here.url(label))


async def test_an_app_that_fails_is_told_with_its_log_and_started_by_the_button_only(
    here: Place, user: Browser
) -> None:
    label = "crash--started--alice"
    await signed_in_at(user, here, label)
    page = await until_shown(user, here.url(label), lambda one: "The app does not run yet" in one.text, "it")
    assert page.status == 503
    assert "the disk is on fire" in page.text
    assert "status 3" in page.text
    again = await user.submit(page, "start", follow=False)
    assert [name for name, _ in await events(user, again.headers["Location"])][-1] == "over"


# ---------------------------------------------------------------------------------- a real browser


@pytest_asyncio.fixture
async def window(here: Place, tmp_path: Path) -> AsyncIterator[ChromiumWindow]:
    await asyncio.to_thread(gone, here)
    async with open_chromium(tmp_path) as browser:
        one = await browser.person()
        await one.open((await asyncio.to_thread(here.link))["url"])
        await one.press("sign-in")
        yield one


@needs("chromium")
async def test_chromium_shows_the_start_and_lands_where_it_was_going(
    here: Place, window: ChromiumWindow
) -> None:
    with here.fairlead.start_held():
        await window.open(here.url(path="/tree?x=1#part"))
        await window.shows("Preparing workspace")
        assert await window.run("document.getElementById('text').getAttribute('role')") == "status"
    await window.until("document.body.innerText.startsWith('APP ')", "the app is shown")
    assert await window.address() == here.url(path="/tree?x=1#part")


@needs("chromium")
async def test_chromium_without_scripts_lands_too(here: Place, window: ChromiumWindow) -> None:
    await window.call("Emulation.setScriptExecutionDisabled", value=True)
    with here.fairlead.start_held():
        await window.open(here.url(path="/tree?x=1"))
        await window.shows("Preparing workspace")
    await window.until("document.body.innerText.startsWith('APP ')", "the app is shown")
    assert await window.address() == here.url(path="/tree?x=1")


@needs("chromium")
async def test_chromium_presses_the_button_of_a_workspace_that_was_stopped_by_hand(
    here: Place, window: ChromiumWindow
) -> None:
    await window.open(here.url(path="/kept#part"))
    await window.until("document.body.innerText.startsWith('APP ')", "the app is shown")
    await asyncio.to_thread(here.fairlead.cli, "workspace", "stop", here.fairlead.workspace().name)
    await window.reload()
    await window.shows("This workspace is stopped")
    assert phase(here) == "stopped"
    await window.click("button.go")
    await window.until("document.body.innerText.startsWith('APP ')", "the app is shown")
    assert (await window.address()).startswith(here.url(path="/kept"))
