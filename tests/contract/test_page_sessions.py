"""Sessions of our pages by raw bytes: every mend holds alone, and without it its own check fails.

The attack that they end: an attacker who waits in a terminal as `alice`, with a key of their own, plants the
value of a session in alice's browser; alice opens the link and signs in, and confirms nothing; the attacker
confirms with the value that was planted.
"""

import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from proxy.errors import SettingsError
from proxy.http import cookies, listening, sessions, site
from proxy.http.site import Site
from proxy.onboarding import confirm
from proxy.onboarding.flow import Pending
from tests.contract.door import MALLORY, House, open_house
from tests.contract.neighbours import Answer, ask, cookie, value_of
from tests.fakes.browser import Browser

MADE_UP = "x" * 43
"""As long as a value of ours, and never issued."""
BLANKS = [
    chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace() and chr(code) not in " \t\r\n"
]
"""What Python's `str.strip` removes and a browser does not."""


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A confirm page, to which the development provider brings people back."""
    made = await open_house(dev={"approval": "confirm"})
    yield made
    await made.door.close()


@pytest.fixture
async def dev() -> AsyncIterator[House]:
    """The page of the development provider's device codes."""
    made = await open_house()
    yield made
    await made.door.close()


@dataclass
class Leaving:
    """A browser that was sent to the provider."""

    answer: Answer
    link: str

    @property
    def carried(self) -> bytes:
        return cookie(self.answer.set_cookies)


async def leave(pending: Pending, cookies: bytes = b"") -> Leaving:
    link = pending.shown.verification_uri
    return Leaving(await ask(link, cookies), link)


async def at_the_provider(location: str, account: str) -> str:
    """Sign in; gives the address that the provider sends the browser back to."""
    async with Browser() as browser:
        page = await browser.get(location)
        return (await browser.submit(page, "approve", account=account, follow=False)).headers["Location"]


async def sign_in(pending: Pending, account: str, planted: bytes = b"") -> Answer:
    """Open the link and come back, as a browser does that holds `planted` besides what it is given."""
    left = await leave(pending, planted)
    assert left.answer.status == 303, left.answer
    back = await at_the_provider(left.answer.location, account)
    return await ask(back, b"; ".join(filter(None, [planted, left.carried])))


# ------------------------------------------------------------------------------------------ the checks


async def only_bytes_are_compared(house: House, dev: House) -> None:
    """A name with a blank that browsers do not trim is another name, with the right value too."""
    pending, planted = await house.begin(), f"fairlead-dev={MADE_UP}".encode()
    for blank in BLANKS:
        for encoding in ("utf-8", "latin-1"):
            try:
                spaced = blank.encode(encoding)
            except UnicodeEncodeError:
                continue
            assert cookies.CookieNames("dev", is_secure=False).value([spaced + planted]) == ""
    left = await leave(pending)
    back = await at_the_provider(left.answer.location, "alice")
    for blank in BLANKS:
        assert (await ask(back, blank.encode() + left.carried)).status in (400, 403), blank
    assert (await ask(back, b" " + left.carried + b" ")).status == 303


async def a_name_that_imitates_ours_is_told(house: House, dev: House) -> None:
    pending = await house.begin()
    name = "fairlead-confirm-session-01234567"
    for spelling in (f"\u2000{name}", f"{name}\x85", name.upper(), name.replace("f", "\uff46", 1)):
        with capture_logs() as logged:
            answer = await ask(pending.shown.verification_uri, f"{spelling}={MADE_UP}".encode())
        assert (answer.status, "imitates one of ours" in answer.text) == (400, True)
        (line,) = (line for line in logged if line["event"] == "a cookie imitates ours")
        assert line["site"] == "confirm"
        assert MADE_UP not in str(line)


async def a_value_of_others_is_not_adopted(house: House, dev: House) -> None:
    pending = await dev.begin()
    page = await ask(pending.shown.verification_uri_complete, f"fairlead-dev={MADE_UP}".encode())
    given = value_of(page.set_cookies["fairlead-dev"])
    assert given != MADE_UP
    form = {**page.hidden, "account": "alice", "decision": "approve"}
    refused = await ask(pending.shown.verification_uri, f"fairlead-dev={MADE_UP}".encode(), form=form)
    assert refused.status == 403


async def a_sign_in_gives_a_new_value(house: House, dev: House) -> None:
    """The planted value was issued, to the attacker, who signed in with an account of their own."""
    pending = await house.begin(MALLORY)
    own = (await sign_in(pending, "mallory")).set_cookies
    planted = cookie({name: line for name, line in own.items() if "-session-" in name})
    came_back = await sign_in(pending, "alice", planted)
    ((name, line),) = ((name, line) for name, line in came_back.set_cookies.items() if "-session-" in name)
    assert f"{name}={value_of(line)}".encode() != planted
    page = await ask(came_back.location, planted)
    assert page.hidden == {}
    assert page.status == 303


async def a_sign_in_at_the_development_provider_gives_a_new_value(house: House, dev: House) -> None:
    pending = await dev.begin()
    page = await ask(pending.shown.verification_uri_complete)
    before = page.set_cookies
    form = {**page.hidden, "account": "alice", "decision": "approve"}
    approved = await ask(pending.shown.verification_uri, cookie(before), form=form)
    assert approved.status == 200
    after = approved.set_cookies["fairlead-dev"]
    assert value_of(after) != value_of(before["fairlead-dev"])
    again = await dev.begin(MALLORY, "other")
    page = await ask(again.shown.verification_uri_complete, cookie(before))
    assert value_of(page.set_cookies["fairlead-dev"]) != value_of(before["fairlead-dev"])


async def the_browser_that_left_comes_back(house: House, dev: House) -> None:
    """Neither a browser without the visit's cookie, nor one with another visit's, signs in."""
    pending = await house.begin(MALLORY)
    left, other = await leave(pending), await leave(pending)
    back = await at_the_provider(left.answer.location, "alice")
    (name,) = left.answer.set_cookies
    (swapped,) = (value_of(line) for line in other.answer.set_cookies.values())
    for carried in (b"", other.carried, f"{name}={swapped}".encode(), f"{name}={MADE_UP}".encode()):
        assert (await ask(back, carried)).status == 403
    assert (await ask(back, left.carried)).status == 303


async def a_cookie_that_comes_twice_is_none(house: House, dev: House) -> None:
    pending = await house.begin()
    left = await leave(pending)
    back = await at_the_provider(left.answer.location, "alice")
    (name,) = left.answer.set_cookies
    tossed = f"{name}={MADE_UP}".encode()
    assert (await ask(back, left.carried + b"; " + tossed)).status == 403
    assert (await ask(back, left.carried)).status == 303


async def a_cookie_that_was_read_opens_nothing(house: House, dev: House) -> None:
    """Over plain http another port of the host reads cookies; the page needs its address as well."""
    pending = await house.begin(MALLORY)
    came_back = await sign_in(pending, "alice")
    read = cookie(came_back.set_cookies)
    for query in ("", "?view=", f"?view={MADE_UP}"):
        page = await ask(came_back.location.partition("?")[0] + query, read)
        assert (page.status, page.hidden) == (303, {})
    assert (await ask(came_back.location, read)).status == 200


async def over_https_a_name_is_of_this_host_alone(house: House, dev: House) -> None:
    made = await open_house(dev={"approval": "confirm"}, confirm={"public_url": "https://page.example.test"})
    assert made.door._confirm is not None
    port = made.door._confirm._site.port
    pending = await made.begin()
    path = urlsplit(pending.shown.verification_uri).path
    answer = await ask(f"http://login.localhost:{port}{path}", host="page.example.test")
    await made.door.close()
    ((name, line),) = answer.set_cookies.items()
    assert re.fullmatch(r"__Host-Http-fairlead-confirm-visit-[0-9a-f]{8}", name)
    attributes = {part.strip().partition("=")[0].lower() for part in line.split(";")[1:]}
    assert attributes == {"path", "secure", "httponly", "samesite", "max-age"}
    assert "Path=/;" in f"{line};"


async def a_page_has_a_host_name_of_its_own(house: House, dev: House) -> None:
    for link in ((await house.begin()).shown.verification_uri, *dev.door.page_urls, *house.door.page_urls):
        assert urlsplit(link).hostname == "login.localhost"


async def another_host_name_is_refused(house: House, dev: House) -> None:
    for link in (*dev.door.page_urls, *house.door.page_urls):
        port = urlsplit(link).port
        others = (
            "127.0.0.1",
            "localhost",
            "[::1]",
            "evil.login.localhost",
            "login.localhost.",
            "rebound.test",
        )
        for host in others:
            assert (await ask(link, host=f"{host}:{port}")).status == 421, host
        assert (await ask(link, host="login.localhost")).status == 421
        assert (await ask(link, host=f"LOGIN.localhost:{port}")).status != 421


async def both_addresses_of_the_name_are_ours(house: House, dev: House) -> None:
    """A browser may take `login.localhost` for either; another program there would be our origin."""
    for link in (*dev.door.page_urls, *house.door.page_urls):
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with pytest.raises(OSError, match="in use"):
                socket.create_server((address, urlsplit(link).port), family=family).close()


# ------------------------------------------------------------------------------------------ the mends


def careless_trim(text: bytes) -> bytes:
    for encoding in ("utf-8", "latin-1"):
        try:
            return text.decode(encoding).strip().encode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 reads everything")


def adopt(self: Any, value: str, about: Any) -> str:
    """Keep the value from before the sign-in, as long as there is one."""
    if value not in self:
        return self.begin(about)  # type: ignore[no-any-return]
    self._sessions[sessions.digest(value)] = sessions._Session(about, float("inf"))
    return value


def _first_of_many(self: Any, fields: Any, slot: str = "") -> str:
    wanted = self.name(slot).encode()
    return next((value.decode() for name, value in cookies.parse(fields) if name == wanted), "")


Check = Callable[[House, House], Awaitable[None]]
MENDS: dict[str, tuple[Check, Any, str, Any]] = {
    "names are compared as bytes": (only_bytes_are_compared, cookies, "trim", careless_trim),
    "an imitation is refused": (
        a_name_that_imitates_ours_is_told,
        cookies.CookieNames,
        "imitation",
        lambda *_: None,
    ),
    "only issued values count": (
        a_value_of_others_is_not_adopted,
        sessions.Sessions,
        "__contains__",
        lambda *_: True,
    ),
    "a new value at every sign-in": (a_sign_in_gives_a_new_value, sessions.Sessions, "renew", adopt),
    "a new value at the development provider": (
        a_sign_in_at_the_development_provider_gives_a_new_value,
        sessions.Sessions,
        "renew",
        adopt,
    ),
    "a cookie for each visit": (the_browser_that_left_comes_back, confirm._Visit, "is_by", lambda *_: True),
    "twice is none": (a_cookie_that_comes_twice_is_none, cookies.CookieNames, "value", _first_of_many),
    "an address besides the cookie": (
        a_cookie_that_was_read_opens_nothing,
        confirm._SignedIn,
        "is_seen_by",
        lambda *_: True,
    ),
    "__Host-Http- over https": (over_https_a_name_is_of_this_host_alone, cookies, "HOST_ONLY_PREFIX", ""),
    "a host name of its own": (a_page_has_a_host_name_of_its_own, site, "PAGE_HOST", "127.0.0.1"),
    "no other host name": (another_host_name_is_refused, Site, "_is_meant", lambda *_: True),
    "both loopback addresses": (both_addresses_of_the_name_are_ours, listening, "_BESIDE", {}),
}
"""By mend: the check that rests on it, and what is put where to take the mend out."""


def _needs(mend: str) -> None:
    if mend == "both loopback addresses":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError as exc:
            pytest.skip(f"optional, not found here: IPv6 on loopback ({exc.strerror})")


@pytest.mark.parametrize("mend", MENDS)
async def test_a_mend_holds_alone(mend: str, house: House, dev: House) -> None:
    _needs(mend)
    await MENDS[mend][0](house, dev)
    assert house.records.calls == []


@pytest.mark.parametrize("mend", MENDS)
async def test_without_a_mend_its_check_fails(mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _needs(mend)
    check, place, name, without = MENDS[mend]
    monkeypatch.setattr(place, name, without)
    house, dev = await open_house(dev={"approval": "confirm"}), await open_house()
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            await check(house, dev)
    finally:
        await house.door.close()
        await dev.door.close()


# ------------------------------------------------------------------------------------------- the jar


async def test_a_link_that_is_opened_again_and_again_does_not_fill_the_jar(house: House) -> None:
    """The oldest visits go; the last one comes back as ever."""
    pending = await house.begin()
    jar: dict[str, str] = {}
    for _ in range(30):
        left = await leave(pending, cookie(jar))
        for name, line in left.answer.set_cookies.items():
            jar.pop(name, None)
            if "Max-Age=0" not in line:
                jar[name] = line
    assert len(jar) == confirm.MAX_COOKIES_OF_A_KIND
    back = await at_the_provider(left.answer.location, "alice")
    assert (await ask(back, cookie(jar))).status == 303


async def test_cookies_are_taken_back_when_they_have_served(house: House) -> None:
    pending = await house.begin()
    came_back = await sign_in(pending, "alice")
    ended = [name for name, line in came_back.set_cookies.items() if "Max-Age=0" in line]
    assert [name.rpartition("-")[0] for name in ended] == ["fairlead-confirm-visit"]
    carried = cookie(came_back.set_cookies)
    where = came_back.location.partition("?")[0]
    page = await ask(came_back.location, carried)
    denied = await ask(where, carried, form={**page.hidden, "decision": "deny"})
    assert "Denied" in denied.text
    ((name, line),) = denied.set_cookies.items()
    assert "-session-" in name
    assert "Max-Age=0" in line
    assert (await ask(came_back.location, carried)).status == 404


async def test_a_request_that_cannot_be_read_leaves_no_cookie_in_the_log(
    house: House, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The HTTP library quotes the line that it cannot read."""
    answer = await ask(house.door.page_urls[-1], f"fairlead-confirm={MADE_UP}\x01".encode())
    assert answer.status == 400
    assert MADE_UP not in caplog.text + "".join(capsys.readouterr())


async def test_more_cookies_than_can_be_judged_at_once_are_refused(house: House) -> None:
    pending = await house.begin()
    field = b"; ".join(b"%d=%d" % (number, number) for number in range(500))
    for times, status in ((1, 303), (3, 303), (4, 431)):
        several = b"\r\nCookie: ".join([field] * times)
        assert (len(field) * times > site.MAX_COOKIE_BYTES) == (status == 431)
        assert (await ask(pending.shown.verification_uri, several)).status == status


async def test_behind_an_edge_only_its_host_name_is_answered() -> None:
    made = await open_house(
        dev={"approval": "confirm", "public_url": "http://dev.localhost:1"},
        confirm={"public_url": "https://page.example.test"},
    )
    assert made.door._confirm is not None
    pending = await made.begin()
    path = urlsplit(pending.shown.verification_uri).path
    url = f"http://login.localhost:{made.door._confirm._site.port}{path}"
    assert (await ask(url)).status == 421
    for host in ("page.example.test", "PAGE.example.test", "page.example.test:443"):
        left = await ask(url, host=host)
        assert left.status == 303
        assert left.location.startswith("http://dev.localhost:1/authorize?")
    await made.door.close()


async def test_a_page_without_an_address_for_browsers_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"a page that listens on 192\.0\.2\.1 needs a public_url"):
        await open_house(dev={"approval": "confirm"}, confirm={"listen": "192.0.2.1:1"})
