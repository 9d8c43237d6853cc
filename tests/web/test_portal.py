"""The portal in Chromium and Firefox: every act by mouse and by keyboard, live parts, pictures, axe-core."""

import asyncio
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.remote import DEADLINE_S, Person
from tests.web.browsers import BOTH, Browsers, open_browsers
from tests.web.portals import AUDITOR, OPERATOR, House, house, sign_in

Press = Callable[[Person, str], Awaitable[None]]
"""Activates the first match of a selector."""

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = 390
PICTURES = os.environ.get("PORTAL_PICTURES", "")
"""Folder that `test_pages_have_no_violation_…` writes pictures of the pages into; empty: none are kept."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browsers]:
    async with open_browsers(tmp_path_factory.mktemp("browsers")) as opened:
        yield opened


@pytest_asyncio.fixture(params=BOTH, loop_scope="module")
async def person(request: pytest.FixtureRequest, browsers: Browsers) -> AsyncIterator[Person]:
    """A user who has been nowhere yet, in each browser."""
    yield await browsers.person(request.param)
    await browsers.forget_everyone()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("portal") / "house") as running:
        yield running


async def by_mouse(person: Person, selector: str) -> None:
    await person.click(selector)


async def by_keyboard(person: Person, selector: str) -> None:
    await person.tab_to(selector)
    await person.key("Enter")


async def write(press: Press, person: Person, selector: str, line: str) -> str:
    """Write a line into a field and press Enter; gives the text of the page that comes."""
    await (person.tab_to(selector) if press is by_keyboard else person.click(selector))
    return await person.goes_on(person.type(line))


@pytest.fixture(params=[by_mouse, by_keyboard])
def press(request: pytest.FixtureRequest) -> Press:
    hand: Press = request.param
    return hand


async def joined(person: Person) -> str:
    """Give the text of the page with single spaces."""
    return " ".join((await person.text()).split())


# ----------------------------------------------------------------------------------- workspaces


async def test_a_workspace_starts_and_stops_and_the_open_page_follows(
    here: House, person: Person, press: Press
) -> None:
    user = here.add_user()
    await sign_in(here, person, user)
    assert "not made yet" in await person.text()
    assert "is being started" in await person.goes_on(press(person, "[id^='start-']"))
    other = await person.tab()
    await other.open(f"{here.login}/")
    await person.until("!!document.querySelector('[data-phase=running]')", "running")
    await other.until("!!document.querySelector('[data-phase=running]')", "running in the other tab")
    assert "stops in 7 hours" in (await joined(person)).lower()
    assert await asyncio.to_thread(here.run, user, "echo in") == b"in\n"
    assert "is stopped" in await person.goes_on(press(person, "[id^='stop-']"))
    await other.until("!!document.querySelector('[data-phase=stopped]')", "stopped in the other tab")
    assert "Stopped by you" in await joined(other)


async def test_an_app_is_opened_by_its_tile(here: House, person: Person, press: Press) -> None:
    user = here.add_user()
    await sign_in(here, person, user)
    tile = f"a.tile[href*='lab--dev--{user}.']"
    await press(person, tile)
    await person.until(f"location.host.startsWith('lab--dev--{user}.')", "the app's origin")


async def test_ways_to_connect_are_shown_and_copied(here: House, person: Person, press: Press) -> None:
    await sign_in(here, person, "alice")
    await press(person, "details.connect summary")
    await person.until("document.querySelector('details.connect').open")
    command = await person.run("document.querySelector('[id^=ssh-]').textContent")
    assert command == f"ssh -p {here.here.fairlead.port} alice+dev@127.0.0.1"
    await person.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
    await press(person, "button[data-copy^='ssh-']")
    assert await person.until("window.copied") == command
    await person.shows("Copied")
    block = await person.run("document.querySelector('[id^=config-]').textContent")
    asked = subprocess.run(
        ["ssh", "-G", "-F", "/dev/stdin", "fairlead-dev"],
        input=block,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {"hostname 127.0.0.1", f"port {here.here.fairlead.port}", "user alice+dev"} <= set(asked)
    assert (
        await person.run("document.querySelector('a[href^=\"vscode:\"]').getAttribute('href')")
        == "vscode://vscode-remote/ssh-remote+fairlead-dev/"
    )


async def test_what_is_open_and_focused_stays_so_when_the_page_follows(here: House, person: Person) -> None:
    user = here.add_user()
    await sign_in(here, person, user)
    await by_keyboard(person, "details.connect summary")
    await asyncio.to_thread(here.run, user)
    await person.until("!!document.querySelector('[data-phase=running] details.connect')", "running")
    # The card has another id once the workspace has a name, so what is open is seen from its next change on.
    await by_keyboard(person, "[data-phase=running] details.connect summary")
    await person.run("document.querySelector('details.connect summary').focus()")
    with here.connected(user):
        await person.until("document.querySelector('.why').innerText.includes('1 program')", "1 program")
    assert await person.run("document.querySelector('details.connect').open")
    assert await person.run("document.activeElement === document.querySelector('details.connect summary')")


# ------------------------------------------------------------------------- sessions, browsers, keys


async def test_a_session_is_ended_by_its_user(here: House, person: Person, press: Press) -> None:
    user = here.add_user()
    await sign_in(here, person, user)
    await person.open(f"{here.login}/sessions")
    with here.connected(user) as ssh:
        await person.shows("sleep 600")
        assert "is being ended" in await person.goes_on(press(person, "[id^='end-']"))
        assert await asyncio.to_thread(ssh.wait, DEADLINE_S) == 255
        assert ssh.stderr is not None
        assert b"ended by you" in ssh.stderr.read()
    await person.shows("Nothing is connected")


async def test_another_browser_is_signed_out(
    here: House, browsers: Browsers, person: Person, press: Press
) -> None:
    user = here.add_user()
    await sign_in(here, person, user)
    await sign_in(here, other := await browsers.person("chromium"), user)
    await person.open(f"{here.login}/sessions")
    theirs = await person.run(
        "[...document.querySelectorAll('article')].find(one => one.innerText.includes('A browser'))"
        ".querySelector('[id^=out-]').id"
    )
    assert "is signed out" in await person.goes_on(press(person, f"#{theirs}"))
    assert "Sign in" in await other.reload()
    assert other.status == 401


async def test_this_browser_signs_out(here: House, person: Person, press: Press) -> None:
    await sign_in(here, person, here.add_user())
    await press(person, "#me summary")
    assert "Signed out" in await person.goes_on(press(person, "#me button[value=here]"))
    await person.open(f"{here.login}/")
    assert person.status == 401


async def test_a_revoked_key_admits_no_login_and_ends_this_browser(
    here: House, person: Person, press: Press
) -> None:
    user = here.add_user()
    await sign_in(here, person, user)
    text = await person.open(f"{here.login}/keys")
    assert re.search(r"SHA256:\S+", text)
    assert "added by an operator" in text
    await press(person, "[id^='revoke-'] summary")
    await person.shows("only key")
    await person.goes_on(press(person, "[id^='sure-']"))
    assert "[]" in here.here.fairlead.cli("key", "list", user, "--json")
    done = await asyncio.to_thread(here.here.fairlead.ssh, "true", "-l", f"{user}+dev")
    assert done.returncode == 255
    async with asyncio.timeout(DEADLINE_S):
        while person.status != 401:
            await person.open(f"{here.login}/keys")


# -------------------------------------------------------------------------------------- recordings


async def test_a_user_plays_the_own_recording_and_an_auditor_all(
    here: House, person: Person, press: Press
) -> None:
    user = here.add_user()
    await asyncio.to_thread(here.run, user, "echo recorded words")
    for who in (user, AUDITOR):
        await sign_in(here, person, who)
        await person.open(f"{here.login}/recordings")
        if who == AUDITOR:
            await person.run(f"document.querySelector('#user').value = {user!r}")
            await person.goes_on(press(person, "form[role=search] button"))
        await person.goes_on(press(person, "article a.button"))
        await person.shows("recorded words")
        assert await person.run("self.origin") == "null"


# --------------------------------------------------------------------------------------- operators


async def test_an_operator_stops_a_workspace_of_another_user_with_a_reason(
    here: House, person: Person, press: Press
) -> None:
    user = here.add_user()
    await asyncio.to_thread(here.run, user)
    await sign_in(here, person, OPERATOR)
    await person.open(f"{here.login}/operators?user={user}")
    await press(person, "[id^='stop-'] summary")
    assert "is stopped" in await write(press, person, "input[name=reason]", "maintenance at noon")
    await person.open(f"{here.login}/operators?user={user}")
    await person.goes_on(press(person, "article a"))
    assert f"Stopped by {OPERATOR} (maintenance at noon)" in await joined(person)
    await sign_in(here, person, user)
    assert "Stopped by an operator (maintenance at noon)" in await joined(person)


async def test_an_operator_ends_a_session_and_locks_a_user_out_and_in(
    here: House, person: Person, press: Press
) -> None:
    user = here.add_user()
    await sign_in(here, person, OPERATOR)
    await person.open(f"{here.login}/operators/sessions?user={user}")
    with here.connected(user) as ssh:
        await person.shows("sleep 600")
        await press(person, "[id^='end-'] summary")
        await person.goes_on(press(person, "[id^='end-'] button"))
        assert await asyncio.to_thread(ssh.wait, DEADLINE_S) == 255
        assert ssh.stderr is not None
        assert b"ended by an operator" in ssh.stderr.read()
    await person.open(f"{here.login}/operators/users?user={user}")
    await press(person, f"#lock-{user} summary")
    assert "is locked out" in await person.goes_on(press(person, f"#sure-{user}"))
    done = await asyncio.to_thread(here.here.fairlead.ssh, "true", "-l", f"{user}+dev")
    assert done.returncode == 255
    await person.open(f"{here.login}/operators/users?user={user}")
    assert "may log in again" in await person.goes_on(press(person, f"#unlock-{user}"))
    assert await asyncio.to_thread(here.run, user, "echo back") == b"back\n"


async def test_an_operator_bans_an_address_and_lets_it_in_again(
    here: House, person: Person, press: Press
) -> None:
    await sign_in(here, person, OPERATOR)
    await person.open(f"{here.login}/operators/bans?address=192.0.2.7")
    assert "192.0.2.7 is banned." in await write(press, person, "#reason", "guessing")
    assert '"olga"' in here.here.fairlead.cli("ban", "why", "192.0.2.7", "--json")
    assert "is let in again" in await person.goes_on(press(person, "[id^='unban-']"))
    assert here.here.fairlead.run("ban", "why", "192.0.2.7").returncode == 1


# --------------------------------------------------------------------------- accessibility, pictures


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """The source of axe-core, in the cache of pytest; npm installs it."""
    if shutil.which("npm") is None:
        pytest.skip("NOT TESTED with axe-core: there is no npm on this machine")
    assert request.config.cache is not None
    target = request.config.cache.mkdir("axe-core")
    file = target / "node_modules" / "axe-core" / "axe.min.js"
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not file.is_file():
            command = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                subprocess.run(
                    [*command, "axe-core@^4.10"], cwd=target, check=True, capture_output=True, timeout=90
                )
            except (subprocess.SubprocessError, OSError) as exc:
                pytest.skip(f"NOT TESTED with axe-core: npm could not install it ({exc})")
    return file.read_text()


PAGES = (
    "/",
    "/sessions",
    "/keys",
    "/recordings",
    "/operators",
    "/operators/sessions",
    "/operators/users",
    "/operators/bans",
)


async def test_pages_have_no_violation_that_axe_core_finds_and_fit_a_phone(
    here: House, person: Person, axe: str, request: pytest.FixtureRequest
) -> None:
    browser = request.node.callspec.params["person"]
    looks = [(False, 1_180), (False, PHONE)] + (
        [(True, 1_180), (True, PHONE)] if browser == "chromium" else []
    )
    await asyncio.to_thread(here.run, OPERATOR, "echo hello")
    await sign_in(here, person, OPERATOR)
    with here.connected(OPERATOR):
        workspace = here.here.fairlead.cli("workspace", "list", "--user", OPERATOR, "--json")
        name = re.search(rf'"({OPERATOR}-[0-9a-f]+)"', workspace)
        assert name, workspace
        for path in (*PAGES, f"/operators/workspaces/{name[1]}"):
            for dark, width in looks:
                await person.look(dark=dark, width=width)
                await person.open(f"{here.login}{path}")
                assert person.status == 200
                await person.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
                assert await person.run("document.documentElement.scrollWidth") <= width, path
                await person.run(f"{axe}; true")
                found = await person.run(
                    "axe.run().then(result => result.violations.map(one => one.id + ': ' +"
                    " one.nodes.map(node => node.html.slice(0, 200)).join(' | ')))"
                )
                assert found == [], (path, dark, width)
                if PICTURES:
                    await person.run(
                        "document.querySelectorAll('details').forEach(one => { one.open = false; })"
                    )
                    shot = f"{browser}-{path.strip('/').replace('/', '-') or 'workspaces'}"
                    kind = ("phone" if width == PHONE else "wide") + ("-dark" if dark else "-light")
                    (Path(PICTURES) / f"{shot}-{kind}.png").write_bytes(await person.picture())
