"""The device flow over real HTTP against a provider that misbehaves in every way that was seen."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.errors import FairleadError, SettingsError
from proxy.errors.login import CodeExpired, ProviderUnavailable
from proxy.http.client import HttpClient, HttpFailed, Request
from proxy.http.secret import Secret
from proxy.onboarding import device_flow
from proxy.onboarding.device_flow import Authorization, DeviceClient
from proxy.settings.onboarding import HttpSettings
from tests.fakes.certificates import Authority
from tests.fakes.provider import CUT, HANG, HANG_UP, Leaping, Say, Scripted, fixture, said

GITHUB = fixture("github")
TOKEN = Say({"access_token": "at"})
PENDING = Say({"error": "authorization_pending"}, 400)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as scripted:
        yield scripted


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(HttpSettings(max_reply_bytes=4_096))
    yield client
    await client.close()


@pytest.fixture
async def hasty() -> AsyncIterator[HttpClient]:
    """Soon gives up on a server that says nothing; everybody else gets ten seconds."""
    client = HttpClient(HttpSettings(request_timeout_s=1, max_reply_bytes=4_096))
    yield client
    await client.close()


def client_of(server: Scripted) -> DeviceClient:
    return DeviceClient("idp", f"{server.url}/device", f"{server.url}/token", "me")


async def poll(server: Scripted, http: HttpClient, time: Leaping, lifetime_s: float = 900) -> str:
    now = time.clock.now()
    code = Authorization(Secret("dc"), "AB", server.url, "", now + lifetime_s, 5.0)
    steps = device_flow.poll(client_of(server), code, now)
    tokens = await device_flow.drive(steps, http, clock=time.clock)
    return tokens.access.reveal()


@pytest.mark.parametrize(
    "trouble",
    [
        Say(b"<html>gateway</html>", 503, {"Content-Type": "text/html"}),
        Say(b"<html>captive portal</html>", 200, {"Content-Type": "text/html"}),
        Say(b'{"access_tok', 200),
        Say(b"x" * 100_000, 200),
        Say(b"", 302, {"Location": "/token"}),
        Say(b"", 307, {"Location": "/token"}),
        Say(b"\x1f\x8b\x08\x00", 200, {"Content-Encoding": "gzip"}),
        Say({"access_token": "never"}, 500),
        HANG_UP,
        CUT,
    ],
    ids=["503", "portal", "truncated", "huge", "redirect", "redirect-307", "gzip", "500", "hang-up", "cut"],
)
async def test_a_passing_fault_delays_and_nothing_else(
    server: Scripted, http: HttpClient, trouble: Say
) -> None:
    server.on("/token", PENDING, trouble, trouble, PENDING, TOKEN)
    time = Leaping()
    assert await poll(server, http, time) == "at"
    assert time.waits == [6.0, 6.0, 12.0, 24.0, 6.0]
    assert server.count("/token") == 5


async def test_a_provider_that_hangs_is_asked_again(server: Scripted, hasty: HttpClient) -> None:
    server.on("/token", HANG, TOKEN)
    time = Leaping()
    assert await poll(server, hasty, time) == "at"
    assert time.waits == [6.0, 12.0]


@pytest.mark.parametrize("status", [401, 403, 428, 400, 200])
async def test_pending_by_any_status(server: Scripted, http: HttpClient, status: int) -> None:
    server.on("/token", Say({"error": "authorization_pending"}, status), TOKEN)
    assert await poll(server, http, Leaping()) == "at"


async def test_slow_down_of_github(server: Scripted, http: HttpClient) -> None:
    server.on("/token", said(GITHUB["pending"]), said(GITHUB["slow_down"]), said(GITHUB["token"]))
    time = Leaping()
    assert (await poll(server, http, time)).startswith("gho_")
    assert time.waits == [6.0, 6.0, 12.0]


async def test_a_provider_that_stays_down_is_called_down(server: Scripted, http: HttpClient) -> None:
    server.on("/token", Say(b"", 503))
    with pytest.raises(ProviderUnavailable):
        await poll(server, http, Leaping())


async def test_nothing_is_sent_after_expiry(server: Scripted, http: HttpClient) -> None:
    server.on("/token", PENDING)
    with pytest.raises(CodeExpired):
        await poll(server, http, Leaping(), lifetime_s=31)
    assert server.count("/token") == 5


async def test_no_poll_after_cancel(server: Scripted, http: HttpClient) -> None:
    server.on("/token", HANG)
    task = asyncio.ensure_future(poll(server, http, Leaping()))
    while not server.count("/token"):
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(20):
        await asyncio.sleep(0)
    assert server.count("/token") == 1


async def test_the_first_request_survives_a_hang_and_a_form(server: Scripted, hasty: HttpClient) -> None:
    server.on("/device", HANG, HANG_UP, said(GITHUB["device_as_form"]))
    code = await device_flow.obtain(client_of(server), hasty, Leaping().clock)
    assert code.user_code == "WDJB-MJHT"
    assert [asked[2] for asked in server.asked] == [{"client_id": "me"}] * 3


async def test_nobody_there(http: HttpClient) -> None:
    client = DeviceClient("idp", "http://127.0.0.1:9/device", "http://127.0.0.1:9/token", "me")
    with pytest.raises(ProviderUnavailable) as caught:
        await device_flow.obtain(client, http, Leaping().clock)
    assert caught.value.user_message == "idp does not answer at the moment"


# ------------------------------------------------------------------------------------- the one door


async def test_redirects_are_not_followed(server: Scripted, http: HttpClient) -> None:
    server.on("/a", Say(b"", 302, {"Location": "/b"}))
    reply = await http.send(Request(f"{server.url}/a"))
    assert reply.status == 302
    assert server.count("/b") == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/", "http://example.com/", "file:///etc/passwd", "ftp://127.0.0.1/", "https://u:p@h/",
        "https://exa mple/", "//x", "https://", "http://localhost.evil.example/", "http://127.0.0.1:99999/",
        "http://127.0.0.1\\@evil.example/",
    ],
)  # fmt: skip
async def test_only_https_leaves_the_machine(http: HttpClient, url: str) -> None:
    with pytest.raises(HttpFailed):
        await http.send(Request(url))


async def test_an_endless_body_ends_at_the_cap(server: Scripted, http: HttpClient) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 1_000)
        except (ConnectionError, asyncio.CancelledError):
            return response

    server.on("/a", endless)
    with pytest.raises(HttpFailed, match="larger than 4096 bytes"):
        await http.send(Request(f"{server.url}/a"))


async def test_a_slow_trickle_ends_at_the_deadline(server: Scripted, hasty: HttpClient) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.CancelledError):
            return response

    server.on("/a", trickle)
    with pytest.raises(HttpFailed, match="did not answer in time"):
        await hasty.send(Request(f"{server.url}/a"))


async def test_cookies_are_not_kept(server: Scripted, http: HttpClient) -> None:
    server.on("/a", Say({}, 200, {"Set-Cookie": "a=b; Path=/"}))
    await http.send(Request(f"{server.url}/a"))
    await http.send(Request(f"{server.url}/a"))
    assert all("Cookie" not in headers for _, _, _, headers in server.asked)


async def test_an_untrusted_certificate_is_refused_and_a_private_authority_can_be_trusted(
    tmp_path: Path,
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("127.0.0.1").write(tmp_path, "server"))

    async def answer(request: web.Request) -> web.Response:
        del request
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
    strict, private = HttpClient(HttpSettings()), HttpClient(HttpSettings(ca_file=tmp_path / "ca.pem"))
    try:
        with pytest.raises(HttpFailed, match="certificate is not trusted"):
            await strict.send(Request(url))
        assert (await private.send(Request(url))).json() == {"ok": True}
    finally:
        await strict.close()
        await private.close()
        await runner.cleanup()


def test_a_bad_authority_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nothing")
    with pytest.raises(SettingsError, match=r"http\.ca_file"):
        HttpClient(HttpSettings(ca_file=tmp_path / "ca"))


async def test_foreign_exceptions_stay_behind_the_door(server: Scripted, hasty: HttpClient) -> None:
    server.on("/a", HANG_UP, CUT, Say(b"x" * 9_000), HANG)
    for _ in range(4):
        with pytest.raises(HttpFailed) as caught:
            await hasty.send(Request(f"{server.url}/a?secret=1", bearer=Secret("hush")))
        assert "secret" not in str(caught.value)
        assert "hush" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert not isinstance(caught.value, FairleadError)


def test_fixtures_name_their_source() -> None:
    for name in ("github", "gitlab"):
        entries = {key: value for key, value in fixture(name).items() if not key.startswith("_")}
        assert all(entry["source"].startswith("https://docs.git") for entry in entries.values())
        assert json.dumps(entries)
