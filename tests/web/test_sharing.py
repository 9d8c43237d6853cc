"""Sharing: what another user reaches, and nothing besides; over real HTTP, WebSocket and SSH."""

import asyncio
import json
import subprocess
from collections.abc import Iterator

import aiohttp
import pytest

from tests.fakes.browser import Browser
from tests.web.guests import Guest, enter, owner
from tests.web.logins import Place, place, serve
from tests.web.test_login import seen
from tests.web.test_revocation import POLICY_VIOLATION, browsers, closed, connect, status
from tests.wire.harness import free_port

NOT_THERE = "There is nothing here, or it is not for you"


def apps(app_port: int, other_port: int) -> str:
    return (
        f"name: dev\napps:\n"
        f"  lab: {{title: a lab, listen: {{port: {app_port}}}, share_max: groups}}\n"
        f"  mine: {{listen: {{port: {app_port}}}}}\n"
        f"  second: {{listen: {{port: {other_port}}}, share_max: public}}\n"
        f"  open: {{listen: {{port: {app_port}}}, share: public}}\n"
        f"  team: {{listen: {{port: {app_port}}}, share: {{users: [bob]}}}}\n"
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("sharing")) as one:
        (one.fairlead.home / "blueprints" / "dev.yaml").write_text(apps(one.app_port, free_port()))
        yield one


@pytest.fixture(scope="module")
def bob(here: Place) -> Guest:
    return Guest.added(here.fairlead, "bob")


@pytest.fixture(scope="module")
def carol(here: Place) -> Guest:
    return Guest.added(here.fairlead, "carol")


@pytest.fixture
def alice(here: Place) -> Iterator[Guest]:
    """The owner; what she shares in a test ends with it."""
    alice = owner(here)
    yield alice
    for app in ("lab", "second", "open", "team"):
        assert alice.lobby(f"share {app} --as-blueprint")[0] == 0


def share(alice: Guest, words: str) -> dict[str, object]:
    code, out, err = alice.lobby(f"{words} --json")
    assert code == 0, err
    return dict(json.loads(out))


async def test_a_shared_app_is_reached_after_a_page_that_names_its_owner_once(
    here: Place, alice: Guest, bob: Guest
) -> None:
    said = share(alice, "share lab --with bob")
    assert (said["users"], said["level"], said["address"]) == (["bob"], "owner", here.url())
    async with bob.browser() as browser:
        asked = await browser.get(here.url(path="/tree?x=1"))
        assert asked.text.startswith("This page is alice's")
        assert "a lab" in asked.text
        assert asked.url.startswith(f"{here.login}/login")
        assert asked.headers["X-Frame-Options"] == "DENY"
        page = await browser.submit(asked, "open")
        assert page.url == here.url(path="/tree?x=1")
        assert "cookie" not in seen(page)
        await browser.post(here.url(path="/.fairlead/sign-out"), {})
        again = await browser.get(here.url(path="/again"))
        assert again.text.startswith("APP"), "once for each browser and app"
    async with bob.browser() as other:
        assert (await other.get(here.url())).text.startswith("This page is alice's")


async def test_the_owner_is_asked_nothing(here: Place, alice: Guest) -> None:
    async with alice.browser() as browser:
        assert (await browser.get(here.url())).text.startswith("APP")


async def test_a_visit_that_is_declined_opens_nothing_and_asks_again(
    here: Place, alice: Guest, bob: Guest
) -> None:
    share(alice, "share lab --with bob")
    async with bob.browser() as browser:
        declined = await browser.submit(await browser.get(here.url()), "leave")
        assert declined.text.startswith("Not opened")
        assert (await browser.get(here.url())).text.startswith("This page is alice's")


async def test_no_other_page_and_no_other_browser_answers_for_a_user(
    here: Place, alice: Guest, bob: Guest, carol: Guest
) -> None:
    share(alice, "share lab --with bob --with carol")
    async with bob.browser() as browser, carol.browser() as other:
        asked = await browser.get(here.url())
        data = {**asked.forms[0].fields, "decision": "open"}
        target = f"{here.login}/continue"
        assert (await browser.post(target, data, origin=here.url()[:-1])).status == 403
        assert (await browser.post(target, {**data, "csrf": "0" * 64})).status == 403
        assert (await other.post(target, data)).status == 403
        changed = {**data, "label": "second--dev--alice"}
        assert (await browser.post(target, changed)).status == 403, "the form is for one app"
        assert (await browser.get(here.url())).text.startswith("This page is alice's")


OUT_OF_REACH = (
    "mine--dev--alice",
    "second--dev--alice",
    "terminal--dev--alice",
    "files--dev--alice",
    "lab--other--alice",
    "none--dev--alice",
    "lab--dev--nobody",
    "lab--dev--carol",
    "p8888--dev--alice",
)
"""Labels of apps that are not shared with bob, and of none at all."""


async def test_who_may_open_one_app_finds_no_other_and_learns_of_none(
    here: Place, alice: Guest, bob: Guest, carol: Guest
) -> None:
    """Absent and forbidden ones are answered alike, at the login origin and at their own."""
    share(alice, "share lab --with bob")
    async with bob.browser() as browser:
        await enter(browser, here.url())
        absent = await browser.get(here.url("gone--dev--nowhere"))
        assert absent.status == 404
        assert absent.text.startswith(NOT_THERE)
        for label in OUT_OF_REACH:
            page = await browser.get(here.url(label))
            assert (page.status, page.text) == (absent.status, absent.text), label
            for method in ("GET", "POST"):
                answers = []
                for one in (label, "gone--dev--nowhere"):
                    bare = await browser._go(method, here.url(one), None, {"Accept": "*/*"}, follow=False)
                    answers.append((bare.status, bare.text))
                assert answers[0] == answers[1], label


async def test_a_session_of_one_app_is_none_of_another(here: Place, alice: Guest, bob: Guest) -> None:
    share(alice, "share lab --with bob")
    async with bob.browser() as browser:
        await enter(browser, here.url())
        cookies = {
            cookie.key: cookie.value
            for cookie in browser._session.cookie_jar
            if cookie["domain"].startswith("lab--")
        }
        assert cookies
        field = "; ".join(f"{name}={value}" for name, value in cookies.items())
        async with Browser(Accept="*/*", Cookie=field) as thief:
            for label in ("mine--dev--alice", "second--dev--alice", "login"):
                page = await thief._go("GET", here.url(label), None, {}, follow=False)
                assert page.status == 401, label
            assert (await thief._go("GET", here.url(), None, {}, follow=False)).status == 200


async def test_the_portal_shows_a_guest_what_is_shared_and_nothing_else_of_the_owner(
    here: Place, alice: Guest, bob: Guest
) -> None:
    share(alice, "share lab --with bob")
    async with bob.browser() as browser:
        await enter(browser, here.url())
        portal = await browser.get(f"{here.login}/")
        assert "bob" in portal.text
        assert here.url() in portal.html
        for label in ("mine--dev--alice", "second--dev--alice", "terminal--dev--alice"):
            assert label not in portal.html


def test_a_guest_has_no_ssh_no_port_and_no_command_of_the_owner(
    here: Place, alice: Guest, bob: Guest
) -> None:
    share(alice, "share lab --with bob")
    for login in ("alice", "alice+dev", "alice+lobby"):
        done = bob.ssh(login, "id")
        assert done.returncode == 255, login
        assert b"Permission denied" in done.stderr
    named = bob.ssh(f"bob+pod={here.fairlead.workspace('alice+dev').name}", "id")
    assert (named.returncode, named.stdout) == (255, b"")
    assert b"there is no workspace" in named.stderr
    for words in ("-W", "-s"):
        target = f"127.0.0.1:{here.app_port}" if words == "-W" else "sftp"
        command = ["ssh", *bob.options(), "-l", "alice+dev"]
        extra = [words, target, "127.0.0.1"] if words == "-W" else [words, "127.0.0.1", target]
        done = subprocess.run([*command, *extra], input=b"", capture_output=True, timeout=60)
        assert done.returncode == 255
    code, _, err = bob.lobby("unshare lab --with bob -w dev")
    assert code == 1, "bob's own lab is meant"
    assert "you do not share it with bob" in err
    assert (code, share(alice, "shares")["shared"][0]["users"]) == (1, ["bob"])


async def test_what_is_not_shared_any_more_is_closed_with_its_reason(
    here: Place, alice: Guest, bob: Guest, carol: Guest
) -> None:
    share(alice, "share lab --with bob --with carol")
    async with bob.browser() as browser, carol.browser() as other, alice.browser() as own:
        await enter(browser, here.url())
        await enter(other, here.url())
        await own.get(here.url())
        socket, stays, hers = [await connect(one, here) for one in (browser, other, own)]
        share(alice, "unshare lab --with bob")
        assert await closed(socket) == (POLICY_VIOLATION, "this app is not shared with you any more")
        assert await status(browser, here) == 404
        assert await status(other, here) == 200
        assert not stays.closed
        share(alice, "unshare lab")
        assert (await closed(stays))[0] == POLICY_VIOLATION
        assert await status(own, here) == 200
        assert not hers.closed


async def test_a_stream_that_is_no_websocket_is_broken_off_too(here: Place, alice: Guest, bob: Guest) -> None:
    share(alice, "share lab --with bob")
    async with bob.browser() as browser:
        await enter(browser, here.url())
        async with browser._session.get(here.url(path="/endless")) as response:
            assert await response.content.readexactly(5) == b"tick\n"
            share(alice, "unshare lab")
            assert not await is_complete(response)


async def is_complete(response: aiohttp.ClientResponse) -> bool:
    """Read an answer to its end; return whether it was a proper one."""
    try:
        async with asyncio.timeout(60):
            while await response.content.readany():
                pass
    except aiohttp.ClientPayloadError:
        return False
    return True


async def test_a_locked_owner_or_guest_loses_what_is_open(here: Place, alice: Guest, bob: Guest) -> None:
    share(alice, "share lab --with bob")
    for locked, reason in (
        ("alice", "this app is not shared with you any more"),
        ("bob", "this user is locked"),
    ):
        async with bob.browser() as browser:
            await enter(browser, here.url())
            socket = await connect(browser, here)
            here.fairlead.cli("user", "lock", locked)
            try:
                assert await closed(socket) == (POLICY_VIOLATION, reason)
                await until(browser, here, 404 if locked == "alice" else 401)
            finally:
                here.fairlead.cli("user", "unlock", locked)


async def until(browser: Browser, here: Place, wanted: int) -> None:
    """Ask again until a request is answered so: what a session was believed is believed for a second."""
    async with asyncio.timeout(60):
        while await status(browser, here) != wanted:
            await asyncio.sleep(0.1)


async def test_an_owner_who_loses_the_blueprint_shares_nothing_of_it(
    here: Place, alice: Guest, bob: Guest
) -> None:
    share(alice, "share lab --with bob")
    file = here.fairlead.home / "blueprints" / "dev.yaml"
    before = file.read_text()
    async with bob.browser() as browser, alice.browser() as own:
        await enter(browser, here.url())
        await own.get(here.url())
        sockets = await connect(browser, here), await connect(own, here)
        file.write_text(f"access: {{users: [bob, carol]}}\n{before}")
        try:
            assert await closed(sockets[0]) == (POLICY_VIOLATION, "this app is not shared with you any more")
            assert await closed(sockets[1]) == (POLICY_VIOLATION, "this app is not there any more")
            refused = await browser._go("GET", here.url(), None, {"Accept": "*/*"}, follow=False)
            assert refused.status == 404
            assert "dev" not in refused.text.replace("dev--", "")
            assert "blueprint" not in refused.text
        finally:
            file.write_text(before)
            async with asyncio.timeout(60):
                while (await own.get(here.url())).status != 200:
                    await asyncio.sleep(0.2)


async def test_records_and_events_name_user_and_owner(here: Place, alice: Guest, bob: Guest) -> None:
    share(alice, "share lab --with bob")
    async with bob.browser() as browser:
        await enter(browser, here.url())
        await connect(browser, here)
        async with asyncio.timeout(60):
            while not (rows := [row for row in await browsers(here) if row["user"] == "bob"]):
                pass
        row = rows[0]
        assert (row["user"], row["owner"], row["blueprint"]) == ("bob", "alice", "dev")
        shown = json.loads(here.fairlead.cli("session", "show", row["id"], "--json"))
        assert (shown["user"], shown["owner"]) == ("bob", "alice")
        assert shown["workspace"].startswith("alice-")
        assert shown["programs"][0]["target"].startswith("lab--dev--alice.localhost")


async def test_what_the_blueprint_gives_needs_no_word_of_the_owner_and_can_be_closed(
    here: Place, alice: Guest, bob: Guest, carol: Guest
) -> None:
    url = here.url("team--dev--alice")
    async with bob.browser() as browser, carol.browser() as other:
        assert (await enter(browser, url)).text.startswith("APP")
        assert (await other.get(url)).status == 404
        assert share(alice, "unshare team")["users"] == []
        assert (await browser._go("GET", url, None, {"Accept": "*/*"}, follow=False)).status == 404
        assert share(alice, "share team --as-blueprint")["users"] == ["bob"]
        assert (await browser.get(url)).text.startswith("APP")


async def test_an_owner_opens_an_app_to_those_signed_in_or_to_everybody(
    here: Place, alice: Guest, carol: Guest
) -> None:
    serve(here.fairlead, _port_of(here, "second"))
    url = here.url("second--dev--alice")
    async with carol.browser() as browser, Browser(Accept="*/*") as stranger:
        share(alice, "share second --signed-in")
        assert (await enter(browser, url)).text.startswith("APP")
        assert (await stranger.get(url)).status == 401
        share(alice, "share second --public")
        assert (await stranger.get(url)).text.startswith("APP")
        share(alice, "unshare second --public")
        assert (await stranger.get(url)).status == 401
        assert (await browser._go("GET", url, None, {"Accept": "*/*"}, follow=False)).status == 404


def _port_of(here: Place, app: str) -> int:
    text = (here.fairlead.home / "blueprints" / "dev.yaml").read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith(f"{app}:"))
    return int(line.partition("port: ")[2].partition("}")[0])


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("share lab", 2, "say with whom"),
        ("share", 2, "the following arguments are required: app"),
        ("share lab --with", 2, "expected one argument"),
        ("share lab --signed-in --public", 2, "not allowed with argument"),
        ("share lab --with bob --as-blueprint", 2, "--as-blueprint undoes"),
        ("share lab --group 't*'", 2, "is not the name of a group"),
        ("share lab --public", 1, "may be shared by its owner with users and groups by name"),
        ("share lab --signed-in", 1, "may be shared by its owner with users and groups by name"),
        ("share mine --with bob", 1, "may be shared by its owner with no other user"),
        ("share lab --with nobody", 1, "there is no user 'nobody'"),
        ("share lab --with alice", 1, "alice is the owner"),
        (
            "share none --with bob",
            1,
            "blueprint dev has no app 'none'; it has: lab, mine, open, second, team",
        ),
        ("share lab --with bob -w gone", 1, "there is no blueprint 'gone'"),
        ("unshare lab --with carol", 1, "you do not share it with carol"),
        ("unshare lab --public", 1, "you do not share it with all visitors"),
        ("shares lab", 2, "shares takes no arguments"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_a_sentence_and_changes_nothing(
    here: Place, alice: Guest, bob: Guest, words: str, code: int, sentence: str
) -> None:
    before = share(alice, "shares")
    got, out, err = alice.lobby(words)
    assert (got, out) == (code, "")
    assert sentence in err
    assert share(alice, "shares") == before


def test_shares_lists_what_is_shared_both_ways(here: Place, alice: Guest, bob: Guest) -> None:
    share(alice, "share lab --with bob --group Crew")
    code, out, _ = alice.lobby("shares")
    assert code == 0
    assert f"{here.url()}  bob, group crew\n" in out
    assert f"{here.url('team--dev--alice')}  bob\n" in out
    assert f"{here.url('open--dev--alice')}  all visitors\n" in out
    document = json.loads(bob.lobby("shares --json")[1])
    addresses = [one["address"] for one in document["shared_with_me"] if one["owner"] == "alice"]
    assert addresses == [here.url(), here.url("team--dev--alice")]
