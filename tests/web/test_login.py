"""Sign-in of browsers: at a provider and by an SSH key, from an app's origin and back, over real HTTP."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fakes.browser import Browser, Page
from tests.web.logins import ACCEPT, Place, place


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("login")) as one:
        yield one


def seen(page: Page) -> dict[str, str]:
    """Return what the app was sent, by lower-case name."""
    assert page.text.startswith("APP "), (page.status, page.url, page.text)
    return {name.lower(): value for name, value in json.loads(page.text[4:])["headers"]}


async def sign_in(browser: Browser, here: Place, account: str = "alice", path: str = "/") -> Page:
    page = await browser.get(here.url(path=path))
    assert "development provider" in page.text, (page.url, page.text)
    return await browser.submit(page, "approve", account=account)


async def test_an_app_is_reached_by_a_sign_in_with_the_provider_in_one_go(here: Place) -> None:
    async with Browser(**ACCEPT) as browser:
        page = await sign_in(browser, here, path="/tree?x=1")
        assert page.status == 200
        assert page.url == here.url(path="/tree?x=1")
        assert "cookie" not in seen(page)
        again = await browser.get(here.url(path="/again"))
        assert again.url == here.url(path="/again")
        assert len(browser.visited) < 12


async def test_an_account_without_a_user_is_refused_and_told_how_to_come_in(here: Place) -> None:
    async with Browser(**ACCEPT) as browser:
        page = await sign_in(browser, here, account="mallory")
        assert page.status == 403
        assert "No user here has this account" in page.text
        assert "+lobby@127.0.0.1 web" in page.text
        assert not [name for name in browser.cookies if name == "fairlead-login"]


async def test_an_ssh_key_signs_a_browser_in_without_a_provider(here: Place) -> None:
    link = here.link()
    async with Browser(**ACCEPT) as browser:
        page = await browser.get(link["url"])
        assert link["code"] in page.text
        assert "SHA256:" in page.text
        assert "127.0.0.1" in page.text
        again = await browser.get(link["url"])  # looking spends nothing
        home = await browser.submit(again, "sign-in")
        assert "alice" in home.text
        app = await browser.get(here.url())
        assert "cookie" not in seen(app)
        used = await browser.get(link["url"])
        assert used.status == 404


async def test_a_link_that_was_used_or_made_up_is_not_good(here: Place) -> None:
    link = here.link()
    async with Browser(**ACCEPT) as first, Browser(**ACCEPT) as second:
        theirs = await second.get(link["url"])
        page = await first.get(link["url"])
        assert (await first.submit(page, "sign-in")).status == 200
        late = await second.submit(theirs, "sign-in")
        assert late.status == 404
        made_up = await second.get(link["url"][:-4] + "AAAA")
        assert made_up.status == 404
        assert "fairlead-login" not in second.cookies


async def test_a_link_form_is_good_in_the_browser_that_opened_it_only(here: Place) -> None:
    link = here.link()
    async with Browser(**ACCEPT) as victim, Browser(**ACCEPT) as attacker:
        page = await attacker.get(link["url"])
        stolen = await victim.submit(page, "sign-in")
        assert stolen.status == 403
        cross = await attacker.post(
            link["url"], {**page.forms[0].fields, "decision": "sign-in"}, origin=here.url()[:-1]
        )
        assert cross.status == 403


async def test_a_signed_in_browser_is_asked_before_its_session_is_replaced(
    here: Place,
) -> None:
    async with Browser(**ACCEPT) as browser:
        await sign_in(browser, here)
        before = browser.cookies["fairlead-login"]
        link = here.link()
        page = await browser.get(link["url"])
        assert "It is signed in as alice, and that session ends." in page.text
        assert browser.cookies["fairlead-login"] == before
        await browser.submit(page, "sign-in")
        assert browser.cookies["fairlead-login"] != before


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Accept": "*/*"}),
        ("GET", {"Accept": "text/html", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
        ("GET", {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}),
        ("GET", {"Accept": "text/html", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}),
        ("POST", {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}),
    ],
)
async def test_nothing_but_a_page_that_is_opened_is_redirected(
    here: Place, method: str, headers: dict[str, str]
) -> None:
    async with Browser() as browser:
        page = await browser._go(method, here.url(), None, headers, follow=False)
        assert page.status == 401
        assert page.headers["WWW-Authenticate"] == 'Bearer realm="fairlead"'
        assert "Set-Cookie" not in page.headers


async def test_absent_and_forbidden_are_the_same_answer(here: Place) -> None:
    async with Browser(**ACCEPT) as browser:
        await sign_in(browser, here)
        answers = []
        for label in ("lab--dev--bob", "lab--dev--nobody", "none--dev--alice", "lab--other--alice"):
            page = await browser.get(here.url(label))
            answers.append((page.status, page.text))
        assert len(set(answers)) == 1
        assert answers[0][0] == 404


async def test_signing_out_ends_every_origin_of_the_browser(here: Place) -> None:
    async with Browser(**ACCEPT) as browser:
        await sign_in(browser, here)
        home = await browser.get(f"{here.login}/")
        await browser.submit(home, "here")
        page = await browser._go("GET", here.url(), None, {"Accept": "*/*"}, follow=False)
        assert page.status == 401


async def test_a_code_is_good_once_and_with_the_cookie_of_the_browser_that_left(here: Place) -> None:
    async with Browser(**ACCEPT) as browser, Browser(**ACCEPT) as thief:
        await browser.submit(await browser.get(here.link()["url"]), "sign-in")
        leave = await browser._go("GET", here.url(path="/deep"), None, {}, follow=False)
        back = await browser._go("GET", leave.headers["Location"], None, {}, follow=False)
        redeem = back.headers["Location"]
        assert urlsplit(redeem).path == "/.fairlead/redeem"
        assert parse_qs(urlsplit(redeem).query)["code"]
        stolen = await thief._go("GET", redeem, None, {}, follow=False)
        assert stolen.status == 403
        assert "Set-Cookie" not in stolen.headers
        home = await browser._go("GET", redeem, None, {}, follow=False)
        assert home.status == 303
        assert home.headers["Location"] == here.url(path="/deep")
        assert "HttpOnly" in home.headers["Set-Cookie"]
        assert "Domain" not in home.headers["Set-Cookie"]


async def test_a_client_cannot_say_whose_address_it_has(here: Place) -> None:
    async with Browser(**ACCEPT, **{"X-Fairlead-Client": "198.51.100.9"}) as browser:
        await browser.submit(await browser.get(here.link()["url"]), "sign-in")
    assert "198.51.100.9" not in here.fairlead.log


async def test_too_many_requests_to_the_login_are_refused_for_a_while(tmp_path: Path) -> None:
    with place(tmp_path / "rate", FAIRLEAD_WEB__SESSION__ATTEMPTS_PER_MINUTE="5") as here:
        async with Browser(**ACCEPT) as browser:
            pages = [await browser.get(f"{here.login}/") for _ in range(30)]
            assert pages[0].status == 401
            refused = [page for page in pages if page.status == 429]
            assert refused
            assert refused[0].headers["Retry-After"] == "60"


async def test_banned_addresses_are_refused_by_apps_and_login_alike(tmp_path: Path) -> None:
    """The client is named by a trusted proxy, so that its ban is not seen at accept."""
    trusted = {"FAIRLEAD_WEB__TRUSTED_PROXIES": '["127.0.0.1", "::1"]'}
    with place(tmp_path / "banned", **trusted) as here:
        here.fairlead.cli("ban", "add", "192.0.2.66", "--for", "3600")
        async with Browser(**ACCEPT, **{"X-Forwarded-For": "192.0.2.66"}) as browser:
            async with asyncio.timeout(60):
                while (await browser.get(f"{here.login}/")).status != 403:
                    await asyncio.sleep(0.2)
            assert (await browser.get(here.url())).status == 403
            assert (await browser.get(here.url("open--dev--alice"))).status == 403


async def test_secrets_are_in_no_log(here: Place) -> None:
    link = here.link()
    async with Browser(**ACCEPT) as browser:
        await browser.submit(await browser.get(link["url"]), "sign-in")
        await browser.get(here.url())
        secrets = [link["url"].rpartition("/")[2], *browser.cookies.values()]
    log = here.fairlead.log
    assert [one for one in secrets if one in log] == []
    assert not re.search(rf"\b{link['code']}\b", log)


async def test_where_ssh_keys_are_required_no_provider_is_asked(tmp_path: Path) -> None:
    with place(tmp_path / "paired", FAIRLEAD_WEB__REQUIRE="ssh-paired") as here:
        async with Browser(**ACCEPT) as browser:
            page = await browser.get(here.url())
            assert (page.status, page.url.partition("?")[0]) == (401, f"{here.login}/login")
            assert "Sign in with" not in page.text
            assert "+lobby@127.0.0.1 web" in page.text
            assert (await browser.get(f"{here.login}/start/0")).status == 404
            assert (await browser.get(f"{here.login}/callback?code=x&state=y")).status == 403
            await browser.submit(await browser.get(here.link()["url"]), "sign-in")
            assert (await browser.get(here.url())).text.startswith("APP")
