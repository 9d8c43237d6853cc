"""Many tabs, no cookies, and a session that ends while its page is open, in real browsers."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.chromium import open_chromium
from tests.fakes.remote import Person
from tests.web.browsers import BOTH, Browsers, open_browsers
from tests.web.logins import Place, place
from tests.wire.harness import needs

# A start of a browser costs more than a test. It lives as long as the loop, and each test has new people.
pytestmark = pytest.mark.asyncio(loop_scope="module")
TABS = 10


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("tabs"), FAIRLEAD_WEB__SESSION__ATTEMPTS_PER_MINUTE="10000") as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browsers]:
    async with open_browsers(tmp_path_factory.mktemp("browsers")) as opened:
        yield opened


async def sign_in(person: Person, url: str) -> None:
    """Open an app's page, and sign in at the provider on the way."""
    assert "development provider" in await person.open(url)
    await approve(person, url)


async def approve(person: Person, url: str) -> None:
    """Be alice at the provider; waits for the app's page that the way leads to."""
    await person.run("document.querySelector('input[name=account]').value = 'alice'")
    await person.run("document.querySelector('button[value=approve]').click()")
    await arrived(person, url)


async def arrived(person: Person, url: str) -> None:
    """Wait for a page of the app, whatever pages come before."""
    await person.until(f"location.href === {url!r} && document.body.innerText.startsWith('APP')", url)


async def hold_a_socket(person: Person) -> None:
    """Open a WebSocket from the page."""
    await person.run("socket = new WebSocket(location.origin.replace('http', 'ws') + '/socket'); 0")
    await person.until("socket.readyState === 1", "the WebSocket is open")


@pytest.mark.parametrize("kind", BOTH)
async def test_ten_tabs_at_once_end_where_they_were_sent_after_one_login(
    here: Place, browsers: Browsers, kind: str
) -> None:
    """Every second tab goes on from the provider's page; in the others the address is typed again."""
    first = await browsers.person(kind)
    tabs = [first, *[await first.tab() for _ in range(TABS - 1)]]
    urls = [here.url(path=f"/tab-{number}?n={number}") for number in range(TABS)]
    texts = await asyncio.gather(*(tab.open(url) for tab, url in zip(tabs, urls, strict=True)))
    assert [text for text in texts if "development provider" not in text] == []
    await approve(first, urls[0])
    await hold_a_socket(first)
    for number, (tab, url) in enumerate(zip(tabs[1:], urls[1:], strict=True)):
        if number % 2:
            await approve(tab, url)
        else:
            await tab.open(url)
            await arrived(tab, url)
    assert await first.run("socket.readyState") == 1, "a tab that signed in later has ended another's socket"
    await browsers.forget_everyone()


@needs("chromium")
async def test_a_browser_without_cookies_is_told_what_to_do_and_not_sent_round(
    here: Place, tmp_path: Path
) -> None:
    async with open_chromium(tmp_path, keeps_cookies=False) as browser:
        person = await browser.person()
        url = here.url(path="/wanted")
        await person.open(url)
        assert await person.cookies() == {}, "this browser was to keep no cookies"
        for _ in range(5):
            if "APP" in (text := await person.text()) or person.status >= 400:
                break
            await person.press("approve", account="alice")
        assert person.status in (400, 403)
        assert "cookies" in text


def end_sessions(here: Place, *, of_apps_only: bool) -> None:
    """Make sessions older than they may become, as if nobody had used them."""
    file = here.fairlead.home / "fairlead.db"
    assert file.is_file()
    with sqlite3.connect(file, timeout=60) as database:
        database.execute(
            "UPDATE web_sessions SET expires_at = created_at" + (" WHERE host != ''" if of_apps_only else "")
        )
    database.close()


ASK = "fetch('/data').then(answer => answer.status)"


@needs("chromium")
@pytest.mark.parametrize("of_apps_only", [True, False], ids=["app", "login"])
async def test_a_session_that_ends_in_the_middle_is_renewed_by_a_navigation_and_ends_requests_of_scripts(
    here: Place, browsers: Browsers, of_apps_only: bool
) -> None:
    person = await browsers.person("chromium")
    url = here.url(path="/notebook?cell=3")
    await sign_in(person, url)
    assert await person.run(ASK) == 200
    await asyncio.to_thread(end_sessions, here, of_apps_only=of_apps_only)
    await person.until(f"{ASK}.then(status => status === 401)", "a request of a script is refused")
    if of_apps_only:  # the login origin knows the browser, and nothing is asked
        await person.reload()
        await arrived(person, url)
    else:
        assert "development provider" in await person.reload()
        await approve(person, url)
    assert await person.run(ASK) == 200
    await browsers.forget_everyone()
