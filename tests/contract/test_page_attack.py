"""Attacks on the confirm page in a real Chromium: by a sibling host, and by another port of this machine.

Mallory waits in a terminal as `alice`, with Mallory's own key. Alice opens the link that Mallory sent, signs
in at the provider, and confirms nothing. Mallory has planted the value of a session, or has read one, and
tries to confirm that key for alice's name.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from proxy.http import cookies, sessions, site
from proxy.onboarding import confirm
from proxy.onboarding.flow import ApprovedUser, Pending
from tests.contract.door import MALLORY, House, open_house
from tests.contract.neighbours import Answer, Edge, Neighbour, ask, open_edge, open_neighbour, value_of
from tests.contract.test_page_sessions import adopt, at_the_provider, careless_trim
from tests.fakes.certificates import Authority
from tests.fakes.chromium import Chromium, open_chromium
from tests.fakes.remote import Person
from tests.wire.harness import needs

# A start of the browser costs more than a test. It lives as long as the loop, and each test has new people.
pytestmark = [needs("chromium"), pytest.mark.asyncio(loop_scope="module")]
PAGE, SIBLING = "page.example.test", "evil.example.test"
SPACES = ("\u2000", "\u00a0", "\u0085")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    """A browser whose resolver knows two sibling hosts, and that trusts their certificates."""
    flags = ("--host-resolver-rules=MAP *.example.test 127.0.0.1", "--ignore-certificate-errors")
    async with open_chromium(tmp_path_factory.mktemp("chromium"), flags) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def chromium(browser: Chromium) -> AsyncIterator[Chromium]:
    """The browser, without the people of the tests before."""
    yield browser
    await browser.forget_everyone()


@dataclass
class Scene:
    """A confirm page at `https://page.example.test`, a sibling host of Mallory's, and Mallory's terminal."""

    house: House
    edge: Edge
    sibling: Neighbour
    pending: Pending
    waiting: "asyncio.Future[ApprovedUser]"

    @property
    def link(self) -> str:
        return self.pending.shown.verification_uri

    @property
    def local(self) -> str:
        """The page without its edge, for Mallory's own requests."""
        assert self.house.door._confirm is not None
        return f"http://login.localhost:{self.house.door._confirm._site.port}"

    async def ask(self, url: str, cookies: bytes = b"", **more: Any) -> Answer:
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        return await ask(f"{self.local}{parts.path}{query}", cookies, host=parts.netloc, **more)

    async def session_of_mallory(self) -> tuple[str, str]:
        """Open the link as Mallory and sign in as Mallory; gives name and value of the session."""
        left = await self.ask(self.link)
        back = await at_the_provider(left.location, "mallory")
        ((name, line),) = left.set_cookies.items()
        signed_in = await self.ask(back, f"{name}={value_of(line)}".encode())
        return next(
            (name, value_of(line)) for name, line in signed_in.set_cookies.items() if "session" in name
        )

    async def confirm_with(self, name: str, value: str) -> Answer:
        """Try to confirm by the value alone, as Mallory does who has no more than that."""
        carried = f"{name}={value}".encode()
        where = f"{self.link}/confirm"
        page = await self.ask(where, carried)
        form = {"csrf": "0" * 64, **page.hidden, "decision": "confirm"}
        return await self.ask(where, carried, form=form, origin=f"https://{urlsplit(where).netloc}")

    async def plant(self, victim: Person, *lines: str) -> None:
        """Have the victim's browser come by the sibling host."""
        self.sibling.plants = [line.encode() for line in lines]
        assert "welcome" in await victim.open(f"https://{SIBLING}:{self.sibling.port}/")

    async def is_refused(self) -> bool:
        """Tell whether nothing was confirmed by the time that the loop has come to rest."""
        await asyncio.sleep(0)
        return not self.waiting.done() and self.house.records.calls == []


@pytest_asyncio.fixture(loop_scope="module")
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().issue("127.0.0.1").write(tmp_path, "page"))
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(open_edge(context))
        sibling = await stack.enter_async_context(open_neighbour(context))
        url = f"https://{PAGE}:{edge.port}"
        house = await open_house(dev={"approval": "confirm"}, confirm={"public_url": url})
        stack.push_async_callback(house.door.close)
        assert house.door._confirm is not None
        edge.target = house.door._confirm._site.port
        pending = await house.begin(MALLORY)
        waiting = asyncio.ensure_future(pending.outcome())
        yield Scene(house, edge, sibling, pending, waiting)
        waiting.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await waiting


async def signs_in(victim: Person, link: str, account: str = "alice") -> str:
    """Open a link and say at the provider who one is; gives the text of the page at the end."""
    text = await victim.open(link)
    return await victim.press("approve", account=account) if "Fairlead wants to know" in text else text


def planting(name: str, value: str, space: str = "") -> str:
    return f"{space}{name}={value}; Domain=example.test; Path=/; Secure"


# ----------------------------------------------------------------------------------- a sibling host


async def test_a_session_planted_by_a_sibling_host_is_worth_nothing(chromium: Chromium, scene: Scene) -> None:
    """The attack as it was shown: the browser takes the cookie, since its name has no prefix for it."""
    name, value = await scene.session_of_mallory()
    for space in SPACES:
        victim = await chromium.person()
        await scene.plant(victim, planting(name, value, space))
        assert f"{space}{name}" in await victim.cookies()
        text = await signs_in(victim, scene.link)
        assert (victim.status, "imitates one of ours" in text) == (400, True)
        assert (await scene.confirm_with(name, value)).status == 403
    assert await scene.is_refused()


async def test_a_name_of_ours_is_not_to_be_set_by_a_sibling_host(chromium: Chromium, scene: Scene) -> None:
    """The browser itself refuses it, in any case of letters; then the sign-in issues a value of its own."""
    name, value = await scene.session_of_mallory()
    victim = await chromium.person()
    await scene.plant(victim, planting(name, value), planting(name.lower(), value), f"={name}={value}")
    assert [kept for kept in await victim.cookies() if "fairlead" in kept.lower()] == []
    assert "Is this your key?" in await signs_in(victim, scene.link)
    assert (await victim.cookies())[name] != value
    assert (await scene.confirm_with(name, value)).status == 403
    assert await scene.is_refused()


async def test_the_way_back_of_another_browser_signs_no_user_in(chromium: Chromium, scene: Scene) -> None:
    """Mallory leaves for the provider; alice is sent there in Mallory's place, and comes back."""
    left = await scene.ask(scene.link)
    victim = await chromium.person()
    ((name, line),) = left.set_cookies.items()
    await scene.plant(victim, planting(name, value_of(line)))
    text = await signs_in(victim, left.location)
    assert (victim.status, "did not begin here" in text) == (403, True)
    assert await scene.is_refused()


async def test_with_every_mend_taken_out_the_attack_succeeds(
    chromium: Chromium, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes the tests above worth something: the same steps let Mallory's key in for alice's name."""
    monkeypatch.setattr(cookies, "trim", careless_trim)
    monkeypatch.setattr(cookies.CookieNames, "imitation", lambda *_: None)
    monkeypatch.setattr(sessions.Sessions, "renew", adopt)
    monkeypatch.setattr(confirm._SignedIn, "is_seen_by", lambda *_: True)
    name, value = await scene.session_of_mallory()
    victim = await chromium.person()
    await scene.plant(victim, planting(name, value, "\u2000"))
    await signs_in(victim, scene.link)
    assert (await scene.confirm_with(name, value)).status == 200
    assert (await scene.waiting).key == MALLORY
    assert scene.house.records.calls == [("dev-alice", "alice", MALLORY.fingerprint, "dev")]


@pytest.mark.parametrize("mend", ["trim", "imitation", "renew", "is_seen_by"])
async def test_with_one_mend_left_the_attack_fails(
    chromium: Chromium, scene: Scene, monkeypatch: pytest.MonkeyPatch, mend: str
) -> None:
    """Each of them alone ends the same attack."""
    out = {
        "trim": (cookies, "trim", careless_trim),
        "imitation": (cookies.CookieNames, "imitation", lambda *_: None),
        "renew": (sessions.Sessions, "renew", adopt),
        "is_seen_by": (confirm._SignedIn, "is_seen_by", lambda *_: True),
    }
    for place, attribute, without in (entry for left, entry in out.items() if left != mend):
        monkeypatch.setattr(place, attribute, without)
    name, value = await scene.session_of_mallory()
    victim = await chromium.person()
    await scene.plant(victim, planting(name, value, "\u2000"))
    await signs_in(victim, scene.link)
    assert (await scene.confirm_with(name, value)).status in (400, 403)
    assert await scene.is_refused()


async def test_without_the_prefix_a_sibling_host_reaches_our_names(
    chromium: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the browser's part: it is the prefix that keeps a planted name away."""
    name = cookies.CookieNames("confirm", is_secure=True).name("session-01234567")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().issue("127.0.0.1").write(tmp_path, "page"))
    async with open_neighbour(context) as sibling, open_neighbour(context) as page:
        for planted, arrives in ((name, False), (name.removeprefix(cookies.HOST_ONLY_PREFIX), True)):
            victim = await chromium.person()
            sibling.plants = [planting(planted, "x" * 43).encode()]
            await victim.open(f"https://{SIBLING}:{sibling.port}/")
            await victim.open(f"https://{PAGE}:{page.port}/")
            assert page.saw(f"{planted}={'x' * 43}") == arrives


# ------------------------------------------------------------------------- another port of this machine


@pytest_asyncio.fixture(loop_scope="module")
async def here() -> AsyncIterator[House]:
    """The pages as `make run` has them, over plain http."""
    made = await open_house(dev={"approval": "confirm"})
    yield made
    await made.door.close()


async def carried_to(chromium: Chromium, house: House, forwarded: Neighbour) -> bool:
    """Sign in, then open a program behind `ssh -L`; tells whether it was sent a cookie of ours."""
    pending = await house.begin()
    person = await chromium.person()
    assert "Is this your key?" in await signs_in(person, pending.shown.verification_uri)
    assert any(name.startswith("fairlead-") for name in await person.cookies())
    for host in ("127.0.0.1", "localhost"):
        await person.open(f"http://{host}:{forwarded.port}/")
    return forwarded.saw("fairlead-")


async def test_a_program_behind_a_forward_does_not_share_our_jar(chromium: Chromium, here: House) -> None:
    async with open_neighbour() as forwarded:
        assert not await carried_to(chromium, here, forwarded)


async def test_on_127_0_0_1_it_would_share_our_jar(
    chromium: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same steps with the host name taken out: cookies ignore ports."""
    monkeypatch.setattr(site, "PAGE_HOST", "127.0.0.1")
    house = await open_house(dev={"approval": "confirm"})
    async with open_neighbour() as forwarded:
        assert await carried_to(chromium, house, forwarded)
    await house.door.close()


async def test_a_program_behind_a_forward_plants_nothing_for_our_host(
    chromium: Chromium, here: House
) -> None:
    pending = await here.begin()
    person = await chromium.person()
    async with open_neighbour() as forwarded:
        for domain in ("localhost", "login.localhost"):
            forwarded.plants = [f"fairlead-confirm=x; Domain={domain}".encode()]
            for host in ("127.0.0.1", "localhost", "other.localhost"):
                await person.open(f"http://{host}:{forwarded.port}/")
    assert await person.cookies_for(pending.shown.verification_uri) == {}
    assert "Is this your key?" in await signs_in(person, pending.shown.verification_uri)


async def test_a_port_that_takes_our_host_name_reads_cookies_and_confirms_nothing(
    chromium: Chromium, here: House
) -> None:
    """A browser that is led to `login.localhost:<other port>` takes our cookies there."""
    pending = await here.begin(MALLORY)
    waiting = asyncio.ensure_future(pending.outcome())
    victim = await chromium.person()
    assert "Is this your key?" in await signs_in(victim, pending.shown.verification_uri)
    async with open_neighbour() as squatter:
        await victim.open(f"http://login.localhost:{squatter.port}/")
        ((name, value),) = (
            (name, value) for name, value in (await victim.cookies()).items() if "confirm-session" in name
        )
        assert squatter.saw(f"{name}={value}")
    where = f"{pending.shown.verification_uri}/confirm"
    carried = f"{name}={value}".encode()
    page = await ask(where, carried)
    assert (page.status, page.hidden) == (303, {})
    refused = await ask(where, carried, form={"csrf": "0" * 64, "decision": "confirm"})
    assert refused.status == 403
    assert not waiting.done()
    assert here.records.calls == []
    waiting.cancel()


async def test_a_port_that_takes_our_host_name_plants_a_visit_and_confirms_nothing(
    chromium: Chromium, here: House
) -> None:
    """Mallory plants the cookie of a visit and of a session, and sends alice on Mallory's way."""
    pending = await here.begin(MALLORY)
    waiting = asyncio.ensure_future(pending.outcome())
    left = await ask(pending.shown.verification_uri)
    ((visit, line),) = left.set_cookies.items()
    other = await ask(pending.shown.verification_uri)
    back = await at_the_provider(other.location, "mallory")
    ((second, second_line),) = other.set_cookies.items()
    signed_in = await ask(back, f"{second}={value_of(second_line)}".encode())
    session, planted = next(
        (name, value_of(line)) for name, line in signed_in.set_cookies.items() if "session" in name
    )
    victim = await chromium.person()
    async with open_neighbour() as squatter:
        squatter.plants = [f"{visit}={value_of(line)}".encode(), f"{session}={planted}".encode()]
        await victim.open(f"http://login.localhost:{squatter.port}/")
        assert "Is this your key?" in await signs_in(victim, left.location)
        squatter.plants = []
        await victim.open(f"http://login.localhost:{squatter.port}/")
    read = (await victim.cookies())[session]
    assert read != planted
    where = f"{pending.shown.verification_uri}/confirm"
    for value in (planted, read):
        carried = f"{session}={value}".encode()
        page = await ask(where, carried)
        assert page.hidden == {}
        form = {"csrf": "0" * 64, "decision": "confirm"}
        assert (await ask(where, carried, form=form)).status == 403
    assert not waiting.done()
    assert here.records.calls == []
    waiting.cancel()


# --------------------------------------------------------------------------------- what people see


async def test_a_person_confirms_their_own_key(chromium: Chromium, scene: Scene) -> None:
    """All of it leaves the way open for whom it is meant, over https."""
    pending = await scene.house.begin()
    waiting = asyncio.ensure_future(pending.outcome())
    person = await chromium.person()
    text = await signs_in(person, pending.shown.verification_uri)
    assert pending.shown.user_code in text
    assert all(name.startswith("__Host-Http-fairlead-confirm-session-") for name in await our_cookies(person))
    assert "Is this your key?" in await person.reload()
    assert "Confirmed" in await person.press("confirm")
    assert (await waiting).profile.login == "alice"
    assert await our_cookies(person) == []


async def our_cookies(person: Person) -> list[str]:
    return [name for name in await person.cookies() if "fairlead-confirm" in name]


async def test_two_tabs_at_once_end_where_they_began(chromium: Chromium, here: House) -> None:
    """Two terminals of one person: neither sign-in ends the other."""
    person = await chromium.person()
    both = [await here.begin(), await here.begin(MALLORY, source="192.0.2.2")]
    waiting = [asyncio.ensure_future(pending.outcome()) for pending in both]
    pages = []
    for pending in both:
        assert pending.shown.user_code in await signs_in(person, pending.shown.verification_uri)
        pages.append(await person.address())
    for page, outcome in zip(pages, waiting, strict=True):
        assert "Is this your key?" in await person.open(page)
        assert "Confirmed" in await person.press("confirm")
        await outcome
