"""Sign-ins in Chromium and Firefox, and what a hostile app can do there to its visitor's other apps.

The hostile app is a page of `open--dev--bob`; its scripts are run by the browser's debugger. Apps stand below
`apps.localhost` over https, where browsers count siblings as one site: SameSite protects nothing there, as
below a domain that is not on the Public Suffix List.
"""

import asyncio
import json
import os
import re
import secrets
import shlex
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from proxy.http.client import LocalhostResolver
from tests.fakes.browser import Browser
from tests.fakes.certificates import Authority
from tests.fakes.remote import DEADLINE_S, Person
from tests.web.browsers import BOTH, Browsers, open_browsers
from tests.web.logins import ACCEPT, Place, place, serve
from tests.wire.test_quickstart import Newcomer

Attack = Callable[[Place, Person], Awaitable[bool]]
"""Tries something from the page of a hostile app; gives whether it succeeded."""

# A start of a browser costs more than a test. It lives as long as the loop, and each test has new people.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browsers]:
    async with open_browsers(tmp_path_factory.mktemp("browsers")) as opened:
        yield opened


@pytest_asyncio.fixture(params=BOTH, loop_scope="module")
async def person(request: pytest.FixtureRequest, browsers: Browsers) -> AsyncIterator[Person]:
    """A user who has been nowhere yet, in each browser."""
    yield await browsers.person(request.param)
    await browsers.forget_everyone()


@dataclass
class FirstApp:
    """What `fairlead run` has printed to a new user, who has started an app over SSH."""

    newcomer: Newcomer
    url: str
    user: str
    ssh: str
    """The printed line, with the user string of a workspace."""

    def type(self, line: str) -> str:
        """Type a line in another terminal; gives what it prints."""
        done = subprocess.run(
            line,
            shell=True,
            env=self.newcomer.env,
            cwd=self.newcomer.home,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def first_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstApp]:
    with Newcomer(tmp_path_factory.mktemp("newcomer")) as newcomer:
        line = newcomer.run()
        said = newcomer.said.read_text()
        found = re.search(r"(?m)(http://http--dev--(\S+)\.localhost:\d+/)", said)
        assert found, said
        assert re.search(r"(?m)^web login: http://login\.localhost:\d+$", said), said
        wait = "until (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep .1; done"
        serve = "nohup python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 &"
        app = FirstApp(newcomer, found[1], found[2], line)
        app.type(f"{line} {shlex.quote(f'{serve} bash -c {shlex.quote(wait)}')}")
        yield app


async def test_the_printed_address_leads_by_the_login_to_an_app_started_over_ssh(
    first_app: FirstApp, person: Person
) -> None:
    assert "development provider" in await person.open(first_app.url)
    await person.run(f"document.querySelector('input[name=account]').value = {first_app.user!r}")
    await person.run("document.querySelector('button[value=approve]').click()")
    await person.shows("Directory listing")
    assert await person.address() == first_app.url


async def test_the_lobby_prints_a_link_and_a_code_that_sign_a_browser_in_without_a_provider(
    first_app: FirstApp, person: Person
) -> None:
    lobby = re.sub(r"\S+@", f"{first_app.user}+lobby@", first_app.ssh)
    said = await asyncio.to_thread(first_app.type, f"{lobby} web")
    link = re.search(r"(?m)^ *(http://login\.localhost:\d+/link/\S+)", said)
    code = re.search(r"show this code: (\S+)", said)
    assert link, said
    assert code, said
    page = await person.open(link[1])
    assert code[1] in page
    assert "SHA256:" in page
    assert f"You are {first_app.user}" in " ".join((await person.press("sign-in")).split())
    await person.run(f"document.querySelector('a[href={json.dumps(first_app.url)}]').click()")
    await person.shows("Directory listing")
    assert await person.address() == first_app.url


@dataclass
class House:
    """A Fairlead that can be made to lack a rule."""

    here: Place
    lacks: Path
    """Holds the name of the rule."""

    def without(self, rule: str) -> Place:
        """Switch one rule off, and all others on; `""` switches all on."""
        self.lacks.write_text(rule)
        return self.here


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("attack")
    cert, key = Authority().issue("*.apps.localhost").write(directory, "apps")
    (lacks := directory / "lacks").touch()
    env = {
        "FAIRLEAD_WEB__APPS_DOMAIN": "apps.localhost",
        "FAIRLEAD_WEB__TLS__CERT": str(cert),
        "FAIRLEAD_WEB__TLS__KEY": str(key),
        "FAIRLEAD_WEB__SESSION__ATTEMPTS_PER_MINUTE": "10000",
        "WEAKENED": str(lacks),
        "PYTHONPATH": os.getcwd(),
    }
    with place(directory / "house", "tests.web.weakened", **env) as here:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "bob"], check=True)
        here.fairlead.cli("user", "add", "bob", "--key", f"{directory / 'bob'}.pub")
        done = here.fairlead.ssh("true", "-l", "bob+dev", "-i", str(directory / "bob"))
        assert done.returncode == 0, done.stderr
        yield House(here, lacks)


async def arrive(here: Place, person: Person) -> None:
    """Sign alice in at her app, and have her open the app of bob, which is public."""
    link = await asyncio.to_thread(here.link)
    assert link["code"] in await person.open(link["url"])
    await person.press("sign-in")
    assert (await person.open(here.url())).startswith("APP")
    async with asyncio.timeout(DEADLINE_S):  # the index of public apps learns of bob
        while not (await person.open(here.url("open--dev--bob"))).startswith("APP"):
            await asyncio.sleep(0.5)


async def reached(here: Place, person: Person, path: str) -> bool:
    """Tell whether a request for a path reached an app, which notes all of them."""
    return path in (await person.open(here.url("open--dev--bob", "/seen")))


def fresh(name: str) -> str:
    """Make a path that no app was asked for before."""
    return f"/{name}-{secrets.token_hex(4)}"


async def post_to_a_sibling(here: Place, person: Person) -> bool:
    path = fresh("posted")
    options = "{method: 'POST', mode: 'no-cors', credentials: 'include', body: 'x'}"
    await person.run(f"fetch({here.url(path=path)!r}, {options}).then(() => 1, () => 0)")
    return await reached(here, person, path)


async def socket_to_a_sibling(here: Place, person: Person) -> bool:
    url = here.url(path="/socket").replace("http", "ws", 1)
    return bool(
        await person.run(
            f"new Promise(done => {{ const s = new WebSocket({url!r}); s.onopen = () => done(true);"
            " s.onerror = () => done(false); })"
        )
    )


async def frame_a_sibling(here: Place, person: Person) -> bool:
    path = fresh("framed")
    url = here.url(path=path)
    await person.run(
        f"new Promise(done => {{ const f = document.createElement('iframe'); f.src = {url!r};"
        " f.onload = () => done(1); document.body.append(f); })"
    )
    return await reached(here, person, path)


async def image_of_a_sibling(here: Place, person: Person) -> bool:
    path = fresh("image")
    url = here.url(path=path)
    await person.run(
        "new Promise(done => { const i = new Image(); i.onload = i.onerror = () => done(1);"
        f" i.src = {url!r}; }})"
    )
    return await reached(here, person, path)


async def frame_the_login(here: Place, person: Person) -> bool:
    """Lay the login page under a click: its frame has no document of ours when it is refused."""
    url = f"{here.login}/"
    await person.run(
        f"new Promise(done => {{ const f = document.createElement('iframe'); f.src = {url!r};"
        " f.onload = () => done(1); document.body.append(f); })"
    )
    return any(await person.frames())


async def sign_out_by_a_form(here: Place, person: Person) -> bool:
    """Post a form to the login origin from the hostile page, in the same window."""
    await person.run(
        f"document.body.innerHTML = '<form method=post action={here.login}/sign-out>"
        "<button value=go>go</button></form>'"
    )
    text = await person.press("go")
    return "Signed out" in text


async def stop_a_workspace_by_a_form(here: Place, person: Person) -> bool:
    """Post a form of the portal from the hostile page, in the same window."""
    await person.run(
        f"document.body.innerHTML = '<form method=post action={here.login}/workspaces/stop>"
        "<input name=address value=alice+dev><button value=go>go</button></form>'"
    )
    is_stopped = "is stopped" in await person.press("go")
    if is_stopped:  # the next attacks need it
        await asyncio.to_thread(here.fairlead.cli, "workspace", "start", here.fairlead.workspace().name)
        await asyncio.to_thread(serve, here.fairlead, here.app_port)
    return is_stopped


async def read_a_session(here: Place, person: Person) -> bool:
    """Look for our cookies in what the visitor's browser sends to an app."""
    text = await person.open(here.url())
    assert text.startswith("APP")
    return "__host-http-fairlead=" in text.lower()


async def toss_a_cookie(here: Place, person: Person) -> bool:
    """Set a cookie for all siblings by an answer of the hostile app."""
    path = fresh("toss")
    await person.open(here.url("open--dev--bob", path))
    assert path[1:] in await person.open(here.url("open--dev--bob")), "the browser takes the cookie"
    return path[1:] in await person.open(here.url())


async def stand_between_the_browser_and_our_paths(here: Place, person: Person) -> bool:
    """Serve a service worker from where sign-ins end."""
    path = fresh(".fairlead/worker") + ".js"
    said = await person.run(
        f"navigator.serviceWorker.register({path!r}).then(() => 'registered', e => e.name)"
    )
    return said == "registered"


async def sign_the_visitor_in_as_the_owner(here: Place, person: Person) -> bool:
    """Send the visitor where a sign-in of bob's was to end: what is typed there would be bob's."""
    own = here.url("lab--dev--bob", "/.fairlead/whoami")
    trusting = aiohttp.TCPConnector(resolver=LocalhostResolver(), ssl=False)
    async with Browser(trusting, **ACCEPT) as bob:
        link = await asyncio.to_thread(here.link, "bob", here.fairlead.directory.parent / "bob")
        await bob.submit(await bob.get(link["url"]), "sign-in")
        leave = await bob._go("GET", here.url("lab--dev--bob"), None, {}, follow=False)
        back = await bob._go("GET", leave.headers["Location"], None, {}, follow=False)
    await person.open(back.headers["Location"])
    return '"user": "bob"' in await person.open(own)


ATTACKS = {
    read_a_session: "stripping",
    post_to_a_sibling: "own-request",
    socket_to_a_sibling: "own-request",
    frame_a_sibling: "own-request",
    image_of_a_sibling: "own-request",
    frame_the_login: "framing",
    sign_out_by_a_form: "forms",
    stop_a_workspace_by_a_form: "forms",
    toss_a_cookie: "cookies-of-apps",
    stand_between_the_browser_and_our_paths: "reserved",
    sign_the_visitor_in_as_the_owner: "binding",
}
"""The rule without which each attack succeeds."""


ROWS = [
    *(pytest.param(attack, "", id=f"{attack.__name__}-with-all") for attack in ATTACKS),
    *(pytest.param(attack, rule, id=f"{attack.__name__}-without-{rule}") for attack, rule in ATTACKS.items()),
]


@pytest.mark.parametrize(("attack", "without"), ROWS)
async def test_a_hostile_app_is_stopped_by_its_rule_alone(
    house: House, person: Person, attack: Attack, without: str
) -> None:
    here = house.without(without)
    await arrive(here, person)
    assert await attack(here, person) is (without == ATTACKS[attack])


async def test_a_hostile_app_sees_and_plants_no_cookie_of_ours(house: House, person: Person) -> None:
    here = house.without("")
    await arrive(here, person)
    before = await person.cookies()
    assert {name for name in before if "fairlead" in name} >= {
        "__Host-Http-fairlead",
        "__Host-Http-fairlead-login",
    }
    for name in ("__Host-Http-fairlead", "__Host-Http-fairlead-login"):
        await person.run(f"document.cookie = '{name}=stolen; Path=/; Secure; Domain=apps.localhost'")
        await person.run(f"document.cookie = '{name}=stolen; Path=/; Secure'")
    assert await person.cookies() == before
    own = await person.open(here.url())
    assert "fairlead" not in own.lower().replace("x-fairlead", "")
    assert "fairlead" not in str(await person.run("document.cookie"))
