"""The end of sessions: sign-out, lock, removal of a key; open WebSockets are closed with a reason."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.browser import Browser
from tests.web.logins import ACCEPT, DEADLINE_S, Place, place

POLICY_VIOLATION = 1008


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("revocation")) as one:
        yield one


@asynccontextmanager
async def signed_in(here: Place) -> AsyncIterator[Browser]:
    async with Browser(**ACCEPT) as browser:
        await browser.submit(await browser.get(here.link()["url"]), "sign-in")
        assert (await browser.get(here.url())).text.startswith("APP")
        yield browser


async def connect(browser: Browser, here: Place) -> aiohttp.ClientWebSocketResponse:
    socket = await browser._session.ws_connect(here.url(), origin=here.url()[:-1], autoclose=False)
    assert (await socket.receive(timeout=DEADLINE_S)).data == "hello"
    return socket


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    """Return code and reason of the Close frame that comes."""
    message = await socket.receive(timeout=DEADLINE_S)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return int(message.data), str(message.extra)


async def status(browser: Browser, here: Place) -> int:
    return (await browser._go("GET", here.url(), None, {"Accept": "*/*"}, follow=False)).status


async def test_sign_out_closes_the_websockets_of_that_browser_only(here: Place) -> None:
    async with signed_in(here) as browser, signed_in(here) as other:
        sockets = [await connect(browser, here) for _ in range(3)]
        stays = await connect(other, here)
        await browser.submit(await browser.get(f"{here.login}/"), "here")
        for socket in sockets:
            assert await closed(socket) == (POLICY_VIOLATION, "you signed out")
        assert await status(browser, here) == 401
        assert await status(other, here) == 200
        await other.submit(await other.get(f"{here.login}/"), "everywhere")
        assert await closed(stays) == (POLICY_VIOLATION, "you signed out")


async def test_sign_out_of_one_app_leaves_the_login_origin_signed_in(here: Place) -> None:
    async with signed_in(here) as browser:
        socket = await connect(browser, here)
        refused = await browser.post(here.url(path="/.fairlead/sign-out"), {}, origin="http://evil.example")
        assert refused.status == 403
        assert (await browser.post(here.url(path="/.fairlead/sign-out"), {})).status == 200
        assert (await closed(socket))[0] == POLICY_VIOLATION
        assert "alice" in (await browser.get(f"{here.login}/")).text


async def test_a_locked_user_loses_websockets_and_sessions(here: Place) -> None:
    async with signed_in(here) as browser:
        socket = await connect(browser, here)
        here.fairlead.cli("user", "lock", "alice")
        try:
            assert await closed(socket) == (POLICY_VIOLATION, "this user is locked")
            assert await status(browser, here) == 401
            assert "Sign in" in (await browser.get(f"{here.login}/")).text
        finally:
            here.fairlead.cli("user", "unlock", "alice")
        assert await status(browser, here) == 401, "an ended session does not come back"


async def test_a_removed_key_ends_the_sessions_that_it_signed_in(here: Place) -> None:
    other = here.fairlead.directory / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    here.fairlead.cli("key", "add", "alice", f"{other}.pub")
    fingerprint = subprocess.run(["ssh-keygen", "-lf", other], capture_output=True, text=True, check=True)
    async with signed_in(here) as stays, Browser(**ACCEPT) as browser:
        command = ["-o", "IdentitiesOnly=no", "-l", "alice+lobby"]
        done = subprocess.run(
            [
                *here.fairlead.command("ssh", "-F", "none"),
                *_options(here, other),
                *command,
                "127.0.0.1",
                "web",
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr
        url = next(line.strip() for line in done.stdout.splitlines() if "http" in line)
        await browser.submit(await browser.get(url), "sign-in")
        await browser.get(here.url())
        socket, kept = await connect(browser, here), await connect(stays, here)
        here.fairlead.cli("key", "remove", "alice", fingerprint.stdout.split()[1])
        assert await closed(socket) == (POLICY_VIOLATION, "the key of this connection was removed")
        assert await status(browser, here) == 401
        assert await status(stays, here) == 200
        assert not kept.closed


def _options(here: Place, key: Path) -> list[str]:
    known = f"UserKnownHostsFile={here.fairlead.directory}/known_hosts"
    return ["-p", str(here.fairlead.port), "-i", str(key), "-o", known, "-o", "StrictHostKeyChecking=no"]


async def test_requests_of_other_origins_are_refused_with_a_session(here: Place) -> None:
    async with signed_in(here) as browser:
        own = here.url()[:-1]
        for method, headers, expected in (
            ("POST", {"Origin": own}, 200),
            ("POST", {"Origin": here.url("lab--dev--bob")[:-1]}, 403),
            ("POST", {"Origin": "null"}, 403),
            ("POST", {}, 403),
            ("GET", {"Origin": "https://evil.example"}, 403),
            (
                "GET",
                {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
                403,
            ),
            (
                "GET",
                {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
                403,
            ),
            (
                "GET",
                {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
                200,
            ),
            ("GET", {"Sec-Fetch-Site": "same-origin"}, 200),
        ):
            page = await browser._go(method, here.url(), None, headers, follow=False)
            assert page.status == expected, (method, headers)
        for origin in ("http://evil.example", here.login, here.url("lab--dev--bob")[:-1]):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await browser._session.ws_connect(here.url(), origin=origin)
            assert refused.value.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await browser._session.ws_connect(here.url())


async def browsers(here: Place) -> list[dict[str, str]]:
    """Return the rows of sessions of browsers, the newest first."""
    rows = json.loads(await asyncio.to_thread(here.fairlead.cli, "session", "list", "--json"))
    return [row for row in rows if row["client_type"] == "browser"]


async def listed(here: Place, sockets: int, known: set[str]) -> dict[str, str]:
    """Wait until a session that is not `known` is on record with so many WebSockets, and return its row."""
    doing = "websocket" if sockets == 1 else f"{sockets} websocket"
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for row in await browsers(here):
                if row["id"] not in known and row["doing"] == doing:
                    return row


async def test_sessions_of_browsers_are_listed_with_actor_and_owner_and_can_be_killed(here: Place) -> None:
    known = {row["id"] for row in await browsers(here)}
    async with signed_in(here) as browser:
        socket = await connect(browser, here)
        row = await listed(here, 1, known)
        assert (row["user"], row["owner"], row["blueprint"]) == ("alice", "alice", "dev")
        shown = json.loads(here.fairlead.cli("session", "show", row["id"], "--json"))
        (program,) = shown["programs"]
        assert program["target"].startswith("lab--dev--alice.localhost")
        here.fairlead.cli("session", "kill", row["id"], "--reason", "audit")
        assert await closed(socket) == (POLICY_VIOLATION, "ended by an operator: audit")
        assert await status(browser, here) == 401


async def test_one_websocket_can_be_killed_and_the_session_goes_on(here: Place) -> None:
    known = {row["id"] for row in await browsers(here)}
    async with signed_in(here) as browser:
        socket, stays = await connect(browser, here), await connect(browser, here)
        row = await listed(here, 2, known)
        here.fairlead.cli("session", "kill", f"{row['id']}-1")
        assert (await closed(socket))[0] == POLICY_VIOLATION
        assert await status(browser, here) == 200
        assert not stays.closed
