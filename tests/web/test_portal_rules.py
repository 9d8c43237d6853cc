"""The rules of the portal, asked without a browser's help: forms without scripts, forgeries, other users."""

import asyncio
import json
import re
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing

import aiohttp
import pytest

from proxy.http.client import LocalhostResolver
from proxy.http.site import Site
from proxy.web.portal.forms import Forms
from proxy.web.seals import Seals
from tests.fakes.browser import Browser, Form, Page
from tests.fakes.remote import DEADLINE_S
from tests.web.portals import AUDITOR, OPERATOR, House, house

OWN_PAGES = ("/", "/sessions", "/keys", "/recordings", "/live/workspaces", "/live/sessions")
OPERATORS_PAGES = (
    "/operators",
    "/operators/sessions",
    "/operators/users",
    "/operators/bans",
    "/operators/workspaces/alice-0000000000",
    "/live/operators",
    "/live/operators-sessions",
)
FORMS = {
    "/workspaces/start": {"address": "alice+dev"},
    "/workspaces/stop": {"address": "alice+dev"},
    "/sessions/end": {"id": "0" * 16},
    "/browsers/sign-out": {"id": "0" * 16},
    "/keys/revoke": {"fingerprint": "SHA256:none"},
    "/operators/workspaces/stop": {"name": "alice-0000000000", "reason": ""},
    "/operators/sessions/end": {"id": "0" * 16, "reason": ""},
    "/operators/users/lock": {"user": "alice"},
    "/operators/users/unlock": {"user": "alice"},
    "/operators/bans/add": {"address": "192.0.2.9", "hours": "", "reason": ""},
    "/operators/bans/remove": {"address": "192.0.2.9"},
}
"""Every form of the portal, with fields that are well-formed."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = {
        "FAIRLEAD_WEB__PORTAL__STREAMS_PER_USER": "2",
        "FAIRLEAD_WEB__PORTAL__STREAM_S": "3",
        "FAIRLEAD_BLUEPRINT__RULES": '[{"users": ["capped"], "max_workspaces": 0}]',
    }
    with house(tmp_path_factory.mktemp("portal") / "house", **settings) as running:
        yield running


@pytest.fixture
async def signed_in(here: House) -> AsyncIterator["SignIn"]:
    async with AsyncExitStack() as stack:
        yield SignIn(here, stack)


class SignIn:
    """Browsers without scripts, signed in by the SSH key."""

    def __init__(self, here: House, stack: AsyncExitStack) -> None:
        self._here = here
        self._stack = stack

    async def __call__(self, user: str) -> "User":
        browser = await self._stack.enter_async_context(Browser())
        link = await asyncio.to_thread(self._here.here.link, user)
        page = await browser.submit(await browser.get(link["url"]), "sign-in")
        assert page.status == 200
        return User(browser, self._here.login, page)


class User:
    """A user at one browser."""

    def __init__(self, browser: Browser, login: str, page: Page) -> None:
        self.browser = browser
        self.login = login
        self.page = page
        """The last one."""

    async def open(self, path: str) -> Page:
        self.page = await self.browser.get(self.login + path)
        return self.page

    def form(self, action: str, **fields: str) -> Form:
        """Find the form of the page that goes there, with hidden fields as given."""
        found = [
            one for one in self.page.forms if one.action == action and fields.items() <= one.fields.items()
        ]
        assert found, f"no form for {action} with {fields} among {self.page.forms}"
        return found[0]

    async def send(self, action: str, *, fields: dict[str, str] | None = None, **hidden: str) -> Page:
        """Press the button of a form, with more fields filled in."""
        data = {**self.form(action, **hidden).fields, **(fields or {})}
        self.page = await self.browser.post(self.login + action, data)
        return self.page


def phrase(page: Page) -> str:
    return " ".join(page.text.split())


# --------------------------------------------------------------------------- forms without scripts


async def test_a_workspace_starts_and_stops_by_forms_alone(here: House, signed_in: SignIn) -> None:
    user = here.add_user()
    one = await signed_in(user)
    await one.send("/workspaces/start", address=f"{user}+dev")
    assert "is being started" in phrase(one.page)
    async with asyncio.timeout(DEADLINE_S):
        while "running" not in phrase(await one.open("/")):
            assert "http-equiv" in one.page.html  # a page that waits asks again by itself
    assert "http-equiv" not in one.page.html
    assert "is stopped" in phrase(await one.send("/workspaces/stop", address=f"{user}+dev"))
    assert "stopped by you" in phrase(one.page)


async def test_a_start_that_fails_says_why_on_the_page(here: House, signed_in: SignIn) -> None:
    one = await signed_in(here.add_user("capped"))
    await one.send("/workspaces/start", address="capped+dev")
    async with asyncio.timeout(DEADLINE_S):
        while "the last start failed: " not in phrase(await one.open("/")):
            await asyncio.sleep(0.1)
    assert "the last start failed: you may have no workspace" in phrase(one.page)
    assert one.form("/workspaces/start", address="capped+dev")  # and it may be tried again


# -------------------------------------------------------------------------------------- forgeries


@pytest.mark.parametrize("action", FORMS)
async def test_a_form_that_is_not_of_our_page_is_refused(here: House, signed_in: SignIn, action: str) -> None:
    """By Origin, by Fetch Metadata, by its token: each refuses alone."""
    one, other = await signed_in(OPERATOR), await signed_in(OPERATOR)
    await one.open("/operators/bans")
    await other.open("/operators/bans")
    token, theirs = (each.form("/operators/bans/add").fields["csrf"] for each in (one, other))
    own = token if action == "/operators/bans/add" else ""
    data = FORMS[action]

    async def status(data: dict[str, str], origin: str | None = "", **headers: str) -> int:
        page = await one.browser.post(one.login + action, data, origin, follow=False, **headers)
        return page.status

    assert await status(data) == 403
    assert await status({**data, "csrf": "0" * 64}) == 403
    assert await status({**data, "csrf": theirs}) == 403, "the token of another session"
    if action != "/operators/bans/add":
        assert await status({**data, "csrf": token}) == 403, "the token of another action"
    else:
        assert await status({**data, "csrf": own}, "https://evil.example") == 403
        assert await status({**data, "csrf": own}, None) == 403
        crossing = {"Sec-Fetch-Site": "same-site"}  # as an app of a user would send it
        assert await status({**data, "csrf": own}, **crossing) == 403
        assert await status({**data, "csrf": own}) == 303
    here.here.fairlead.run("ban", "remove", "192.0.2.9")


@pytest.mark.parametrize("path", [*OWN_PAGES, *OPERATORS_PAGES])
async def test_no_page_is_shown_without_a_session(here: House, path: str) -> None:
    async with Browser() as browser:
        assert (await browser.get(here.login + path)).status == 401


@pytest.mark.parametrize("action", FORMS)
async def test_no_form_counts_without_a_session(here: House, action: str) -> None:
    async with Browser() as browser:
        assert (await browser.post(here.login + action, FORMS[action])).status == 401


async def test_every_page_forbids_frames_foreign_files_and_inline_scripts(
    here: House, signed_in: SignIn
) -> None:
    one = await signed_in(OPERATOR)
    for path in ("/", "/sessions", "/keys", *(path for path in OPERATORS_PAGES if "live" not in path)):
        page = await one.open(path)
        policy = page.headers["Content-Security-Policy"]
        assert page.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", page.html), path
        assert page.headers["Cache-Control"] == "no-store"


# ------------------------------------------------------------------------------------ other users


@pytest.mark.parametrize("path", OPERATORS_PAGES)
async def test_pages_of_operators_are_for_operators(here: House, signed_in: SignIn, path: str) -> None:
    one = await signed_in("alice")
    page = await one.open(path)
    assert page.status == 403
    assert "This is for operators." in phrase(page)
    assert "Operators" not in phrase(await one.open("/"))


@pytest.mark.parametrize("action", [action for action in FORMS if action.startswith("/operators")])
async def test_forms_of_operators_are_for_operators(here: House, signed_in: SignIn, action: str) -> None:
    """With a token that is good, as a user has on an open page who is an operator no more."""
    one = await signed_in("alice")
    page = await one.browser.post(one.login + action, {**FORMS[action], "csrf": forged(here, one, action)})
    assert page.status == 403
    assert "This is for operators." in phrase(page)


def forged(here: House, user: User, action: str) -> str:
    """Make the token of a form that a user was given none of, with the key of this installation."""
    with closing(sqlite3.connect(here.here.fairlead.home / "fairlead.db")) as database:
        ((key,),) = database.execute("SELECT value FROM web_keys WHERE name = 'values'").fetchall()
    site = Site("login", "", 0, user.login, key=Seals(key).derive("forms", "login").encode())
    return Forms(site, Seals(key)).token(user.browser.cookies["fairlead-login"], action)


async def test_a_user_acts_on_nothing_of_another_one(here: House, signed_in: SignIn) -> None:
    owner, other = here.add_user(), here.add_user()
    await asyncio.to_thread(here.run, owner)
    one = await signed_in(other)
    token = one.form("/workspaces/start").fields["csrf"]
    asked = {"csrf": token, "address": f"{owner}+dev"}
    page = await one.browser.post(f"{one.login}/workspaces/start", asked)
    assert page.status == 403
    assert "belongs to another user" in phrase(page)
    with here.connected(owner):
        session = json.loads(here.here.fairlead.cli("session", "list", "--user", owner, "--json"))[0]["id"]
        with here.connected(other):
            async with asyncio.timeout(DEADLINE_S):
                while not [form for form in (await one.open("/sessions")).forms if "end" in form.action]:
                    await asyncio.sleep(0.1)
            token = one.form("/sessions/end").fields["csrf"]
            page = await one.browser.post(f"{one.login}/sessions/end", {"csrf": token, "id": session})
        assert page.status == 403
        assert owner not in phrase(await one.open("/sessions"))
        assert owner not in phrase(await one.open("/"))


async def test_a_recording_is_shown_to_its_user_and_to_viewers_and_not_to_a_later_user_of_that_name(
    here: House, signed_in: SignIn
) -> None:
    owner, other = here.add_user(), here.add_user()
    await asyncio.to_thread(here.run, owner, "echo private words")
    listed = json.loads(here.here.fairlead.cli("session", "recordings", "list", "--user", owner, "--json"))
    path = f"/recordings/{listed[0]['id']}"
    assert (await (await signed_in(owner)).open(path)).status == 200
    assert (await (await signed_in(AUDITOR)).open(path)).status == 200
    stranger = await signed_in(other)
    refused, absent = await stranger.open(path), await stranger.open("/recordings/" + "0" * 18)
    assert (refused.status, phrase(refused)) == (absent.status, phrase(absent)) == (403, phrase(refused))
    assert "echo private" not in phrase(await stranger.open(f"/recordings?user={owner}"))
    here.here.fairlead.cli("user", "remove", owner)
    here.add_user(owner)
    later = await signed_in(owner)
    assert (await later.open(path)).status == 403
    assert "echo private" not in phrase(await later.open("/recordings"))


async def test_an_operator_neither_locks_nor_bans_the_own_self(here: House, signed_in: SignIn) -> None:
    one = await signed_in(OPERATOR)
    await one.open("/operators/users")
    token = one.form("/operators/users/lock", user="alice").fields["csrf"]
    page = await one.browser.post(f"{one.login}/operators/users/lock", {"csrf": token, "user": OPERATOR})
    assert page.status == 403
    await one.open("/operators/bans")
    own = re.search(r"You come from (\S+)\.", phrase(one.page))
    assert own
    for address in (own[1].removesuffix("/64"), "no address", "127.0.0.1 "):
        page = await one.send("/operators/bans/add", fields={"address": address, "hours": "", "reason": ""})
        if page.status == 200:  # an address of this machine that the browser did not come from
            await one.send("/operators/bans/remove")
        else:
            assert page.status == 403
        await one.open("/operators/bans")


async def test_what_others_wrote_is_text_on_every_page(here: House, signed_in: SignIn) -> None:
    hostile = "<script>alert(1)</script>"
    user = here.add_user()
    command = [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        hostile,
        "-f",
        str(here.here.fairlead.directory / user),
    ]
    await asyncio.to_thread(subprocess.run, command, check=True)
    here.here.fairlead.cli("key", "add", user, f"{here.here.fairlead.directory / user}.pub")
    await asyncio.to_thread(here.run, user, f"echo '{hostile}'")
    one = await signed_in(user)
    for path in ("/keys", "/recordings"):
        page = await one.open(path)
        assert hostile not in page.html
        assert hostile in page.text


# ---------------------------------------------------------------------------------------- streams


async def test_streams_are_few_for_each_user_and_end_by_themselves(here: House, signed_in: SignIn) -> None:
    user = here.add_user()
    one = await signed_in(user)
    connector = aiohttp.TCPConnector(resolver=LocalhostResolver())
    async with aiohttp.ClientSession(connector=connector, cookies=one.browser.cookies) as session:
        url = f"{one.login}/live/workspaces"
        async with session.get(url) as first, session.get(url) as second:
            for stream in (first, second):
                assert stream.headers["Content-Type"] == "text/event-stream"
                assert (await stream.content.readline()).startswith(b"retry:")
            async with session.get(url) as third:
                assert third.status == 429
            async with asyncio.timeout(DEADLINE_S):
                rest = (await first.read()) + await second.read()
        assert b'"name": "workspaces"' in rest
        async with session.get(url, headers={"Sec-Fetch-Site": "same-site"}) as forged:
            assert forged.status == 403


async def test_a_stream_ends_with_its_session(here: House, signed_in: SignIn) -> None:
    one = await signed_in(here.add_user())
    connector = aiohttp.TCPConnector(resolver=LocalhostResolver())
    async with aiohttp.ClientSession(connector=connector, cookies=one.browser.cookies) as session:
        async with session.get(f"{one.login}/live/sessions") as stream:
            assert (await stream.content.readline()).startswith(b"retry:")
            await one.open("/")
            await one.browser.submit(one.page, "here")
            async with asyncio.timeout(DEADLINE_S):
                await stream.read()
        async with session.get(f"{one.login}/live/sessions") as after:
            assert after.status == 401


async def test_an_open_page_alone_is_no_use_of_a_session(here: House, signed_in: SignIn) -> None:
    user = here.add_user()
    async with Browser() as browser:
        link = await asyncio.to_thread(here.here.link, user)
        await browser.submit(await browser.get(link["url"]), "sign-in", follow=False)

        def seen() -> list[object]:
            with closing(sqlite3.connect(here.here.fairlead.home / "fairlead.db")) as database:
                query = "SELECT seen_at FROM web_sessions WHERE user = ?"
                return [row[0] for row in database.execute(query, (user,))]

        assert (await browser.get(f"{here.login}/live/workspaces")).status == 200
        assert seen() == [None]
        assert (await browser.get(f"{here.login}/")).status == 200
        assert None not in seen()


async def test_the_sentence_of_one_session_is_not_said_to_another(here: House, signed_in: SignIn) -> None:
    one, other = await signed_in(OPERATOR), await signed_in(OPERATOR)
    await one.open("/operators/bans")
    await one.send("/operators/bans/add", fields={"address": "192.0.2.77", "hours": "1", "reason": ""})
    assert "192.0.2.77 is banned." in phrase(one.page)
    query = one.page.url.partition("?")[2]
    assert query
    await one.send("/operators/bans/remove", address="192.0.2.77")
    assert "192.0.2.77 is banned." not in phrase(await other.open(f"/operators/bans?{query}"))
