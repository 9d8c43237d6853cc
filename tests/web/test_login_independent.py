"""Sign-ins with an OpenID provider that others wrote (npm `oidc-provider`), and their end when it says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import pytest
from aiohttp import web

from proxy.identity.keys import parse_public_keys
from proxy.identity.profile import Profile
from proxy.identity.store import SqlDirectory
from tests.contract.independent import free_issuer, provider_of, running, through_the_provider
from tests.fakes.browser import Browser, Page
from tests.web.logins import ACCEPT, Place, blueprint, serve
from tests.web.test_revocation import POLICY_VIOLATION, closed
from tests.wire.harness import Fairlead, free_port

CLOCKS_DIFFER_S = 3
"""A logout ends sessions that began up to 2 s after it."""


@dataclass
class House:
    here: Place
    issuer: str

    @property
    def callback(self) -> str:
        return f"{self.here.login}/callback"

    def app(self) -> str:
        return self.here.url("lab--dev--carol")


@asynccontextmanager
async def served(tmp_path: Path, **environment: str) -> AsyncIterator[House]:
    """Run Fairlead with the provider in its settings, which does not run yet."""
    issuer, port, app_port = free_issuer(), free_port(), free_port()
    provider = provider_of(issuer, tmp_path, "confirm")
    fairlead = Fairlead(
        tmp_path / "fairlead",
        extra_env={
            "FAIRLEAD_WEB__LISTEN": f"127.0.0.1:{port}",
            "FAIRLEAD_FRONT_DOOR__PROVIDERS": json.dumps([provider]),
            "FAIRLEAD_FRONT_DOOR__CONFIRM__LISTEN": "127.0.0.1:0",
            **environment,
        },
    )
    fairlead.directory.mkdir()
    fairlead.prepare({"dev": blueprint(app_port)})
    await bind(fairlead, issuer)
    try:
        fairlead.start()
        serve(fairlead, app_port, user="carol+dev")
        yield House(Place(fairlead, port, app_port), issuer)
    finally:
        fairlead.close()


@pytest.fixture
async def house(installed: Path, tmp_path: Path) -> AsyncIterator[House]:
    async with served(tmp_path) as one:
        uri = f"{one.here.login}/backchannel-logout/independent"
        async with running(installed, one.issuer, one.callback, BACKCHANNEL=uri):
            yield one


class AtTheDoor(Browser):
    """A browser that stops before the provider's answer is brought back, and keeps its address."""

    answer = ""

    async def _go(
        self,
        method: str,
        url: str,
        data: dict[str, str] | None,
        headers: dict[str, str],
        *,
        follow: bool = True,
    ) -> Page:
        while True:
            page = await super()._go(method, url, data, headers, follow=False)
            onward = page.headers.get("Location", "")
            if not follow or not onward:
                return page
            url = urljoin(url, onward)
            method, data, headers = "GET", None, {}
            if "/callback?" in url:
                self.answer = url
                return page


async def refused(browser: Browser, url: str) -> Page:
    """Bring an answer of the provider back, which signs nobody in."""
    page = await Browser._go(browser, "GET", url, None, {}, follow=False)
    assert page.status in (403, 502)
    assert "fairlead-login" not in browser.cookies
    return page


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


async def test_a_code_of_another_browser_signs_nobody_in(house: House) -> None:
    """Code injection (RFC 9700 §4.5): verifier and nonce are those of the browser that left."""
    async with AtTheDoor(**ACCEPT) as victim, AtTheDoor(**ACCEPT) as thief:
        await sign_in(house, victim)
        await sign_in(house, thief, "mallory")
        stolen = parse_qs(urlsplit(victim.answer).query)
        own = parse_qs(urlsplit(thief.answer).query)
        mixed = {"state": own["state"][0], "code": stolen["code"][0], "iss": house.issuer}
        page = await refused(thief, f"{house.callback}?{urlencode(mixed)}")
        assert "Open the address of the app again" in page.text


async def test_a_provider_that_is_down_is_named_at_each_step_and_hinders_nothing_later(
    installed: Path, tmp_path: Path
) -> None:
    async with served(tmp_path) as house, AtTheDoor(**ACCEPT) as browser:
        page = await browser.get(house.app())
        assert page.status == 502
        assert "Independent does not answer at the moment" in page.text
        async with running(installed, house.issuer, house.callback):
            await sign_in(house, browser)
        page = await refused(browser, browser.answer)
        assert "Independent does not answer at the moment" in page.text
        async with running(installed, house.issuer, house.callback), Browser(**ACCEPT) as later:
            assert (await sign_in(house, later)).startswith("APP")


async def test_a_provider_that_changed_its_keys_signs_users_in_at_once(
    installed: Path, tmp_path: Path
) -> None:
    async with served(tmp_path) as house:
        for _ in range(2):
            rotated = running(installed, house.issuer, house.callback, FRESH_KEY="yes")
            async with rotated, Browser(**ACCEPT) as browser:
                assert (await sign_in(house, browser)).startswith("APP")


async def test_a_replayed_logout_ends_no_later_session(installed: Path, tmp_path: Path) -> None:
    tokens: list[str] = []

    async def keep(request: web.Request) -> web.Response:
        tokens.append(str((await request.post())["logout_token"]))
        return web.Response()

    app = web.Application()
    app.router.add_post("/logout", keep)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with served(tmp_path) as house:
            uri = f"{house.here.login}/backchannel-logout/independent"
            recorder = f"http://localhost:{port}/logout"
            async with (
                running(installed, house.issuer, house.callback, BACKCHANNEL=recorder),
                Browser(**ACCEPT) as first,
                Browser(**ACCEPT) as later,
            ):
                await sign_in(house, first)
                await first.submit(await first.get(f"{house.issuer}/session/end"), "", logout="yes")
                assert (await later.post(uri, {"logout_token": tokens[0]}, origin=None)).status == 200
                assert await asks(house, first) == 401
                await asyncio.sleep(CLOCKS_DIFFER_S)
                await sign_in(house, later)
                await later.post(uri, {"logout_token": tokens[0]}, origin=None)
                assert await asks(house, later) == 200
    finally:
        await runner.cleanup()


async def asks(house: House, browser: Browser) -> int:
    """Return the status of a request to the app that no page sends."""
    return (await browser._go("GET", house.app(), None, {"Accept": "*/*"}, follow=False)).status


async def test_refused_sign_ins_ban_the_address_and_a_sign_in_gives_it_credit(
    installed: Path, tmp_path: Path
) -> None:
    trusted = {
        "FAIRLEAD_WEB__TRUSTED_PROXIES": '["127.0.0.1", "::1"]',
        "FAIRLEAD_PROTECTION__BANS__FAILURES": "3",
    }
    stranger, known = "192.0.2.66", "192.0.2.7"
    async with served(tmp_path, **trusted) as house, running(installed, house.issuer, house.callback):
        for address, is_known in ((stranger, False), (known, True)):
            if is_known:
                async with Browser(**ACCEPT, **{"X-Forwarded-For": address}) as browser:
                    assert (await sign_in(house, browser)).startswith("APP")
            for _ in range(3):
                async with Browser(**ACCEPT, **{"X-Forwarded-For": address}) as browser:
                    assert "No user here has this account" in await sign_in(house, browser, "mallory")
            async with Browser(**ACCEPT, **{"X-Forwarded-For": address}) as browser:
                page = await browser.get(house.app())
                assert ("Your address is banned" in page.text) is not is_known
        shown = json.loads(house.here.fairlead.cli("ban", "list", "--json"))
        assert {one["address"] for one in shown} == {stranger, known}
