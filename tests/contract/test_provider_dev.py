"""The whole way in over real HTTP: front door, development provider, its page, the confirm page."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import structlog.testing

from proxy.errors import SettingsError
from proxy.errors.login import (
    ApprovalDenied,
    CodeExpired,
    KeyNotConfirmed,
    KeyNotListed,
    OnboardingRefused,
    OtherAccount,
    Waitlisted,
)
from proxy.http.client import Request
from proxy.http.clock import REAL
from proxy.http.secret import Secret
from proxy.onboarding.authcode import WebLogin, authorize_url, read_callback, redeem
from proxy.onboarding.devserver.server import DevServer
from proxy.onboarding.flow import Pending
from proxy.onboarding.providers.dev import Dev
from proxy.settings.onboarding import (
    DevSettings,
)
from tests.contract.door import ALICE, MALLORY, OTHER, House, open_house
from tests.fakes.browser import Browser, Page
from tests.fakes.provider import Leaping, tools


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = await open_house()
    yield made
    await made.door.close()


@pytest.fixture
async def confirming() -> AsyncIterator[House]:
    made = await open_house(dev={"approval": "confirm"})
    yield made
    await made.door.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as made:
        yield made


# ------------------------------------------------------------------------------------- by its page


async def test_a_stranger_approves_and_is_in(house: House, browser: Browser) -> None:
    pending = await house.begin()
    waiting = asyncio.ensure_future(pending.outcome())
    page = await browser.get(pending.shown.verification_uri_complete)
    for fact in (pending.shown.user_code, "alice", "192.0.2.1", ALICE.fingerprint, "any account"):
        assert fact in page.text
    assert page.forms[0].fields["account"] == "alice"
    done = await browser.submit(page, "approve")
    assert "Approved" in done.text
    approved = await waiting
    assert (approved.profile.issuer, approved.profile.subject) == ("dev", "dev-alice")
    assert (approved.profile.full_name, approved.profile.groups) == ("Alice Liddell", ("wonderland",))
    assert house.records.calls == [("dev-alice", "alice", ALICE.fingerprint, "dev")]


async def test_the_code_can_be_typed_in_any_spelling(house: House, browser: Browser) -> None:
    pending = await house.begin()
    page = await browser.get(pending.shown.verification_uri)
    typed = pending.shown.user_code.lower().replace("-", " ")
    page = await browser.get(f"{pending.shown.verification_uri}?{urlencode({'user_code': typed})}")
    assert pending.shown.user_code in page.text


async def test_denied(house: House, browser: Browser) -> None:
    pending = await house.begin()
    waiting = asyncio.ensure_future(pending.outcome())
    await browser.submit(await browser.get(pending.shown.verification_uri_complete), "deny")
    with pytest.raises(ApprovalDenied):
        await waiting


async def test_approved_as_somebody_else(house: House, browser: Browser) -> None:
    pending = await house.begin()
    waiting = asyncio.ensure_future(pending.outcome())
    page = await browser.get(pending.shown.verification_uri_complete)
    await browser.submit(page, "approve", account="mallory")
    with pytest.raises(OtherAccount):
        await waiting
    assert house.records.calls == []


async def test_an_account_with_a_key_list_lets_its_keys_in_and_no_other(
    house: House, browser: Browser
) -> None:
    for key, expected in ((ALICE, None), (MALLORY, KeyNotListed)):
        pending = await house.begin(key, "listed")
        waiting = asyncio.ensure_future(pending.outcome())
        await browser.submit(await browser.get(pending.shown.verification_uri_complete), "approve")
        if expected is None:
            assert (await waiting).key == key
        else:
            with pytest.raises(expected):
                await waiting
    assert [call[2] for call in house.records.calls] == [ALICE.fingerprint]


async def test_keys_of_a_known_account_are_asked_by_name_of_the_provider(house: House) -> None:
    listed = await house.door.keys("dev", "dev-listed", "listed")
    assert listed is not None
    assert listed.blobs == {ALICE.blob}
    assert await house.door.keys("dev", "dev-alice", "alice") is None
    assert await house.door.keys("gone", "1", "x") is None


async def test_a_code_is_good_once(house: House, browser: Browser) -> None:
    pending = await house.begin()
    page = await browser.get(pending.shown.verification_uri_complete)
    async with Browser() as another:
        other_page = await another.get(pending.shown.verification_uri_complete)
        await browser.submit(page, "approve")
        assert (await another.submit(other_page, "approve", account="mallory")).status == 404
    assert (await browser.submit(page, "approve", account="mallory")).status == 403
    assert (await browser.get(pending.shown.verification_uri_complete)).status == 404


async def test_an_expired_code(browser: Browser) -> None:
    leaping = Leaping()
    server = DevServer(DevSettings(), clock=leaping.clock)
    await server.start()
    kit = tools(leaping.clock)
    provider = Dev(DevSettings(), server, kit)
    from proxy.onboarding.providers.base import ApprovalFacts

    code = await provider.start_device(ApprovalFacts("alice", "192.0.2.1", ALICE.fingerprint), 900)
    with pytest.raises(CodeExpired):
        await provider.poll_device(code)
    assert (await browser.get(code.verification_uri_complete)).status == 404
    await kit.http.close()  # type: ignore[attr-defined]
    await server.close()


# ------------------------------------------------------------------------------- the page's defence


async def test_headers_of_a_page(house: House, browser: Browser) -> None:
    pending = await house.begin()
    page = await browser.get(pending.shown.verification_uri_complete)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in page.html
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "same-origin"
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
async def test_a_form_of_another_site_is_refused(house: House, browser: Browser, origin: str | None) -> None:
    pending = await house.begin()
    page = await browser.get(pending.shown.verification_uri_complete)
    data = {**page.forms[0].fields, "decision": "approve"}
    refused = await browser.post(pending.shown.verification_uri, data, origin)
    assert refused.status == 403
    assert (await browser.submit(page, "approve")).status == 200


async def test_a_form_without_our_token_or_cookie_is_refused(house: House, browser: Browser) -> None:
    pending = await house.begin()
    page = await browser.get(pending.shown.verification_uri_complete)
    assert (await browser.submit(page, "approve", csrf="0" * 64)).status == 403
    async with Browser() as another:
        assert (await another.submit(page, "approve")).status == 403
    twice = f"{next(iter(browser.cookies))}={next(iter(browser.cookies.values()))}"
    async with Browser() as tossed:
        data = {**page.forms[0].fields, "decision": "approve"}
        refused = await tossed.post(pending.shown.verification_uri, data, Cookie=f"{twice}; {twice}")
        assert refused.status == 403


async def test_a_name_that_points_here_is_not_us(house: House, browser: Browser) -> None:
    pending = await house.begin()
    page = await browser.get(pending.shown.verification_uri_complete, Host="rebound.example")
    assert page.status == 421


async def test_what_the_client_says_is_escaped(house: House, browser: Browser) -> None:
    pending = await house.begin(source="<img src=x onerror=alert(1)>")
    page = await browser.get(pending.shown.verification_uri_complete)
    assert "<img" not in page.html
    assert "&lt;img" in page.html
    page = await browser.get(f"{pending.shown.verification_uri}?user_code=%3Cscript%3E")
    assert "<script" not in page.html


async def test_guessing_codes_ends_soon(house: House, browser: Browser) -> None:
    pending = await house.begin()
    statuses = {
        (await browser.get(f"{pending.shown.verification_uri}?user_code=X{i}")).status for i in range(25)
    }
    assert statuses == {404, 429}
    assert (await browser.get(pending.shown.verification_uri_complete)).status == 429


async def test_too_much_is_refused(house: House, browser: Browser) -> None:
    pending = await house.begin()
    page = await browser.post(pending.shown.verification_uri, {"user_code": "x" * 20_000})
    assert page.status == 413
    query = urlencode([("user_code", "A"), ("user_code", "B")])
    assert (await browser.get(f"{pending.shown.verification_uri}?{query}")).status == 400


async def test_pending_codes_are_bounded() -> None:
    small = await open_house(dev={"max_pending": 2}, onboarding={"max_pending_per_name": 9})
    await small.begin(ALICE)
    await small.begin(OTHER)
    with pytest.raises(Exception, match="temporarily_unavailable"):
        await small.begin(MALLORY)
    await small.door.close()


async def test_a_page_for_nobody_but_this_machine(house: House) -> None:
    (url,) = house.door.page_urls
    assert url.startswith("http://login.localhost:")


async def test_a_port_in_use_is_said_in_words(house: House) -> None:
    port = urlsplit(house.door.page_urls[0]).port
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
        await open_house(dev={"port": port})


async def test_a_client_without_the_secret_gets_nothing(house: House) -> None:
    kit = tools(REAL)
    base = house.door.page_urls[0].removesuffix("/device")
    for path in ("device_authorization", "token"):
        reply = await kit.http.send(Request(f"{base}/{path}", form={"client_id": "fairlead"}))
        assert (reply.status, reply.json()) == (401, {"error": "invalid_client"})
    reply = await kit.http.send(Request(f"{base}/userinfo", bearer=Secret("guess")))
    assert reply.status == 401
    await kit.http.close()  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------ RFC 8628 on the wire


async def test_slow_down_and_a_second_redemption() -> None:
    leaping = Leaping()
    server = DevServer(DevSettings(poll_interval_s=5), clock=leaping.clock)
    await server.start()
    kit = tools(leaping.clock)
    client = {"client_id": server.client_id, "client_secret": server.secret}

    async def post(path: str, **form: Any) -> dict[str, Any]:
        return (await kit.http.send(Request(f"{server.issuer}{path}", form={**client, **form}))).json()

    code = await post("/device_authorization", scope="openid")
    grant = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": code["device_code"],
    }
    assert await post("/token", **grant) == {"error": "authorization_pending"}
    assert await post("/token", **grant) == {"error": "slow_down"}
    leaping.time += 9
    assert await post("/token", **grant) == {"error": "slow_down"}
    leaping.time += 16
    assert await post("/token", **grant) == {"error": "authorization_pending"}
    async with Browser() as browser:
        await browser.submit(await browser.get(code["verification_uri_complete"]), "approve", account="bob")
    token = await post("/token", **grant)
    access = Secret(token["access_token"])
    info = await kit.http.send(Request(f"{server.issuer}/userinfo", bearer=access))
    assert info.json()["sub"] == "dev-bob"
    assert await post("/token", **grant) == {"error": "invalid_grant"}
    assert (await kit.http.send(Request(f"{server.issuer}/userinfo", bearer=access))).status == 401
    assert await post("/token", grant_type="password") == {"error": "unsupported_grant_type"}
    assert await post("/token", **{**grant, "device_code": "guess"}) == {"error": "invalid_grant"}
    await kit.http.close()  # type: ignore[attr-defined]
    await server.close()


# ----------------------------------------------------------------------------------- code and PKCE


@pytest.fixture
async def dev() -> AsyncIterator[tuple[DevServer, Dev, Any]]:
    server = DevServer(DevSettings())
    server.redirect_uris.add("http://127.0.0.1:9/callback")
    await server.start()
    kit = tools(REAL)
    yield server, Dev(DevSettings(), server, kit), kit
    await kit.http.close()
    await server.close()


async def sign_in(url: str, account: str, decision: str = "approve") -> dict[str, str]:
    """Sign in, and give the parameters that the browser would take to the redirect URI."""
    async with Browser() as browser:
        answer = await browser.submit(await browser.get(url), decision, account=account, follow=False)
        assert answer.status == 303, answer.text
        query = parse_qs(urlsplit(answer.headers["Location"]).query)
        return {name: values[0] for name, values in query.items()}


async def test_code_pkce_state_nonce(dev: tuple[DevServer, Dev, Any]) -> None:
    _, provider, kit = dev
    client, web = await provider.code_client(), WebLogin("http://127.0.0.1:9/callback")
    query = await sign_in(authorize_url(client, web), "bob")
    assert Secret(query["state"]) == web.state
    tokens = await redeem(client, web, read_callback(client, query), kit.http)
    profile = await provider.profile(tokens, nonce=web.nonce)
    assert (profile.subject, profile.confirmed) == ("dev-bob", frozenset())
    with pytest.raises(Exception, match="belongs to another login"):
        await provider.profile(tokens, nonce=WebLogin("x").nonce)
    with pytest.raises(Exception, match="invalid_grant"):
        await redeem(client, web, read_callback(client, query), kit.http)


async def test_a_stolen_code_is_worth_nothing(dev: tuple[DevServer, Dev, Any]) -> None:
    _, provider, kit = dev
    client, web = await provider.code_client(), WebLogin("http://127.0.0.1:9/callback")
    query = await sign_in(authorize_url(client, web), "bob")
    thief = WebLogin("http://127.0.0.1:9/callback")
    with pytest.raises(Exception, match="invalid_grant"):
        await redeem(client, thief, Secret(query["code"]), kit.http)


async def test_denial_and_a_mixed_up_issuer(dev: tuple[DevServer, Dev, Any]) -> None:
    _, provider, _ = dev
    client, web = await provider.code_client(), WebLogin("http://127.0.0.1:9/callback")
    query = await sign_in(authorize_url(client, web), "bob", "deny")
    with pytest.raises(ApprovalDenied):
        read_callback(client, query)
    for strange in ({"iss": "https://evil.example"}, {}):
        with pytest.raises(Exception, match="another issuer"):
            read_callback(client, {"code": "c", **strange})


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "http://127.0.0.1:9/other"},
        {"client_id": "other"},
        {"code_challenge_method": "plain"},
        {"code_challenge": ""},
        {"response_type": "token"},
    ],
)
async def test_bad_authorization_requests_end_on_our_page(
    dev: tuple[DevServer, Dev, Any], browser: Browser, change: dict[str, str]
) -> None:
    _, provider, _ = dev
    url = authorize_url(await provider.code_client(), WebLogin("http://127.0.0.1:9/callback"))
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | change
    page = await browser.get(f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(query)}")
    assert page.status == 400
    assert page.forms == []


# ------------------------------------------------------------------------------- by the confirm page


async def to_confirm(browser: Browser, pending: Pending, account: str = "alice") -> Page:
    sign_in_page = await browser.get(pending.shown.verification_uri)
    return await browser.submit(sign_in_page, "approve", account=account)


async def test_a_person_confirms_a_key(confirming: House, browser: Browser) -> None:
    pending = await confirming.begin()
    assert not pending.shown.is_code_typed
    waiting = asyncio.ensure_future(pending.outcome())
    page = await to_confirm(browser, pending)
    for fact in (pending.shown.user_code, "alice", "192.0.2.1", ALICE.fingerprint, "alice at dev"):
        assert fact in page.text
    assert "Confirmed" in (await browser.submit(page, "confirm")).text
    approved = await waiting
    assert approved.profile.confirmed == {ALICE.fingerprint}
    assert confirming.records.calls == [("dev-alice", "alice", ALICE.fingerprint, "dev")]
    again = await browser.submit(page, "confirm")
    assert again.status == 404
    assert (await browser.get(pending.shown.verification_uri)).status == 404
    with pytest.raises(KeyNotConfirmed):
        await pending.try_key(MALLORY.blob)


@pytest.mark.parametrize(
    ("action", "kind", "title", "sentence"),
    [
        ("refuse", OnboardingRefused, "You are not let in", "This account may not log in here."),
        (
            "waitlist",
            Waitlisted,
            "On the waiting list",
            "Your request is on the waiting list; an operator has to approve it.",
        ),
    ],
)
async def test_the_confirm_page_says_that_a_user_is_refused_or_waits(
    browser: Browser, action: str, kind: type[Exception], title: str, sentence: str
) -> None:
    rule = {"name": "outsiders", "action": action, "groups": ["wonderland"]}
    rules = {"rules": [rule], "otherwise": "allow"}
    house = await open_house(dev={"approval": "confirm"}, onboarding=rules)
    try:
        pending = await house.begin()
        waiting = asyncio.ensure_future(pending.outcome())
        with structlog.testing.capture_logs() as logs:
            page = await browser.submit(await to_confirm(browser, pending), "confirm")
            with pytest.raises(kind):
                await waiting
    finally:
        await house.door.close()
    assert f"<h1>{title}</h1>" in page.html
    assert f"Your key is confirmed, but: {sentence}" in page.text
    (ended,) = [entry for entry in logs if entry["event"] == "onboarding ended"]
    assert ended["reason"].endswith(
        "rule 'outsiders'; it came with groups: wonderland; domain of its address: none"
    )


async def test_the_confirm_page_does_not_wait_for_ever_for_a_decision(browser: Browser) -> None:
    confirm = {"outcome_wait_s": 0.05}
    house = await open_house(dev={"approval": "confirm"}, confirm=confirm)
    decided = asyncio.Event()

    async def register(*_: object) -> None:
        await decided.wait()

    house.records.register = register  # type: ignore[method-assign]
    try:
        pending = await house.begin()
        waiting = asyncio.ensure_future(pending.outcome())
        page = await browser.submit(await to_confirm(browser, pending), "confirm")
        assert "it says whether you are let in" in page.text
        assert not waiting.done()
        decided.set()
        await waiting
    finally:
        await house.door.close()


async def test_denied_on_the_confirm_page(confirming: House, browser: Browser) -> None:
    pending = await confirming.begin()
    waiting = asyncio.ensure_future(pending.outcome())
    await browser.submit(await to_confirm(browser, pending), "deny")
    with pytest.raises(ApprovalDenied):
        await waiting
    assert confirming.records.calls == []


async def test_signed_in_as_somebody_else_nothing_can_be_confirmed(
    confirming: House, browser: Browser
) -> None:
    pending = await confirming.begin()
    waiting = asyncio.ensure_future(pending.outcome())
    page = await to_confirm(browser, pending, "mallory")
    assert page.forms[0].buttons == ["deny"]
    assert (await browser.submit(page, "confirm")).status == 403
    assert not waiting.done()
    waiting.cancel()


async def test_a_link_expires_with_the_login() -> None:
    house = await open_house(dev={"approval": "confirm"}, onboarding={"max_lifetime_s": 0.2})
    pending = await house.begin()
    with pytest.raises(CodeExpired):
        await pending.outcome()
    async with Browser() as browser:
        assert (await browser.get(pending.shown.verification_uri)).status == 404
    await house.door.close()


async def test_the_callback_belongs_to_one_browser_and_one_visit(confirming: House, browser: Browser) -> None:
    """Login CSRF: an attacker's code, brought by the victim's browser, signs nobody in."""
    pending = await confirming.begin()
    page = await to_confirm(browser, pending)
    callback = next(url for url in browser.visited if "/callback?" in url)
    async with Browser() as victim:
        assert (await victim.get(callback)).status == 403
    assert (await browser.get(callback)).status == 403
    assert (await browser.get(re.sub("state=[^&]*", "state=guess", callback))).status == 403
    async with Browser() as victim:
        await victim.get(pending.shown.verification_uri)
        assert (await victim.post(page.url, page.forms[0].fields | {"decision": "confirm"})).status == 403
    data = {**page.forms[0].fields, "decision": "confirm"}
    assert (await browser.post(page.url, data, "http://evil.example")).status == 403
    assert confirming.records.calls == []


async def test_denied_at_the_provider(confirming: House, browser: Browser) -> None:
    pending = await confirming.begin()
    waiting = asyncio.ensure_future(pending.outcome())
    page = await browser.submit(await browser.get(pending.shown.verification_uri), "deny")
    assert "Denied" in page.text
    with pytest.raises(ApprovalDenied):
        await waiting


async def test_opening_a_link_again_and_again_crowds_out_nobody(confirming: House, browser: Browser) -> None:
    mine, his = await confirming.begin(), await confirming.begin(MALLORY, source="192.0.2.66")
    page = await browser.get(mine.shown.verification_uri)
    async with Browser() as flood:
        for _ in range(15):
            await flood.get(his.shown.verification_uri)
    assert confirming.door._confirm is not None
    assert len(confirming.door._confirm._visits) == 11
    assert ALICE.fingerprint in (await browser.submit(page, "approve", account="alice")).text


async def test_confirming_one_terminal_confirms_no_other(confirming: House, browser: Browser) -> None:
    mine, his = await confirming.begin(), await confirming.begin(MALLORY, source="192.0.2.66")
    waiting = [asyncio.ensure_future(pending.outcome()) for pending in (mine, his)]
    page, other = await to_confirm(browser, mine), await to_confirm(browser, his)
    swapped = {**page.forms[0].fields, "decision": "confirm"}
    assert (await browser.post(other.url, swapped)).status == 403
    await browser.submit(page, "confirm")
    assert (await waiting[0]).key == ALICE
    assert not waiting[1].done()
    waiting[1].cancel()
