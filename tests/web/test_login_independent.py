"""Sign-ins with an OpenID provider that others wrote (npm `oidc-provider`), and their end when it says so."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from proxy.identity.keys import parse_public_keys
from proxy.identity.profile import Profile
from proxy.identity.store import SqlDirectory
from tests.contract.independent import free_issuer, provider_of, running, through_the_provider
from tests.fakes.browser import Browser
from tests.web.logins import ACCEPT, Place, blueprint, serve
from tests.web.test_revocation import POLICY_VIOLATION, closed
from tests.wire.harness import Fairlead, free_port


@dataclass
class House:
    here: Place
    issuer: str

    @property
    def callback(self) -> str:
        return f"{self.here.login}/callback"

    def app(self) -> str:
        return self.here.url("lab--dev--carol")


@pytest.fixture
async def house(installed: Path, tmp_path: Path) -> AsyncIterator[House]:
    issuer, port, app_port = free_issuer(), free_port(), free_port()
    provider = provider_of(issuer, tmp_path, "confirm")
    fairlead = Fairlead(
        tmp_path / "fairlead",
        extra_env={
            "FAIRLEAD_WEB__LISTEN": f"127.0.0.1:{port}",
            "FAIRLEAD_FRONT_DOOR__PROVIDERS": json.dumps([provider]),
            "FAIRLEAD_FRONT_DOOR__CONFIRM__LISTEN": "127.0.0.1:0",
        },
    )
    fairlead.directory.mkdir()
    fairlead.prepare({"dev": blueprint(app_port)})
    await bind(fairlead, issuer)
    here = Place(fairlead, port, app_port)
    environment = {"BACKCHANNEL": f"{here.login}/backchannel-logout/independent"}
    try:
        fairlead.start()
        serve(fairlead, app_port, user="carol+dev")
        async with running(installed, issuer, f"{here.login}/callback", **environment):
            yield House(here, issuer)
    finally:
        fairlead.close()


async def bind(fairlead: Fairlead, issuer: str) -> None:
    """Make a user carol who is bound to the account of that name; her key is that of alice."""
    (key,) = parse_public_keys(fairlead.key.with_suffix(".pub").read_text())
    directory = await SqlDirectory.open(
        f"sqlite+aiosqlite:///{fairlead.home}/fairlead.db", query_timeout_s=30
    )
    try:
        profile = Profile("independent", issuer, "carol", "carol", "carol")
        await directory.register(profile, "carol", key, "independent")
    finally:
        await directory.close()


async def sign_in(house: House, browser: Browser, account: str = "carol") -> str:
    page = await through_the_provider(browser, house.app(), account)
    return page.text


async def test_a_bound_account_is_signed_in_and_another_is_told_how_to_come_in(house: House) -> None:
    async with Browser(**ACCEPT) as browser:
        assert (await sign_in(house, browser)).startswith("APP")
    async with Browser(**ACCEPT) as browser:
        assert "No user here has this account" in await sign_in(house, browser, "mallory")


async def test_an_answer_that_is_not_for_this_browser_or_not_by_this_issuer_is_refused(house: House) -> None:
    async with Browser(**ACCEPT) as browser, Browser(**ACCEPT) as victim:
        leave = await browser._go("GET", house.app(), None, {}, follow=False)
        onward = await browser._go("GET", leave.headers["Location"], None, {}, follow=False)
        state = parse_qs(urlsplit(onward.headers["Location"]).query)["state"][0]
        for answer, sentence in (
            ({"code": "x", "iss": "https://evil.example"}, "does not work"),
            ({"code": "x"}, "does not work"),  # this provider says that it sends iss
        ):
            query = urlencode({"state": state, **answer})
            other = await victim._go("GET", f"{house.callback}?{query}", None, {}, follow=False)
            assert other.status == 403
            assert "did not begin the sign-in here" in other.text
            tried = await browser._go("GET", f"{house.callback}?{query}", None, {}, follow=False)
            assert tried.status in (403, 502)
            assert sentence in tried.text or "did not begin" in tried.text
        assert "fairlead-login" not in browser.cookies


async def test_a_code_of_the_provider_is_good_once(house: House) -> None:
    async with Browser(**ACCEPT) as browser:
        await sign_in(house, browser)
        (callback,) = [url for url in browser.visited if url.startswith(house.callback)]
        again = await browser._go("GET", callback, None, {}, follow=False)
        assert again.status == 200  # as a tab that comes later than another: on to the app
        assert "Set-Cookie" not in again.headers
        await browser.submit(await browser.get(f"{house.here.login}/"), "here")
        after = await browser._go("GET", callback, None, {}, follow=False)
        assert after.status == 403
        assert "Set-Cookie" not in after.headers


async def test_the_provider_ends_sessions_and_only_the_provider(house: House) -> None:
    uri = f"{house.here.login}/backchannel-logout/independent"
    async with Browser(**ACCEPT) as browser:
        await sign_in(house, browser)
        url = house.app()
        socket = await browser._session.ws_connect(url, origin=url[:-1], autoclose=False)
        assert (await socket.receive()).data == "hello"
        for forged in ("", "x", "eyJhbGciOiJub25lIn0.e30."):
            page = await browser.post(uri, {"logout_token": forged}, origin=None)
            assert page.status == 400
        goodbye = await browser.get(f"{house.issuer}/session/end")
        await browser.submit(goodbye, "", logout="yes")
        assert await closed(socket) == (POLICY_VIOLATION, "you signed out at the provider")
        page = await browser._go("GET", house.app(), None, {"Accept": "*/*"}, follow=False)
        assert page.status == 401
