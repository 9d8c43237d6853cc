"""Attacks on sharing, each stopped by one rule: without that rule, and no other, it succeeds."""

import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.web.guests import Guest, enter
from tests.web.logins import Place, place

SHARES = {
    "lab": "{{listen: {{port: {port}}}, share: {{users: [bob]}}}}",
    "wide": "{{listen: {{port: {port}}}, share: authenticated}}",
}


@dataclass(frozen=True)
class House:
    """A Fairlead that can be made to lack a rule, alice's apps, and a guest and a stranger."""

    here: Place
    lacks: Path
    bob: Guest
    carol: Guest


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("threats")
    lacks = directory / "lacks"
    lacks.write_text("")

    def blueprint(port: int) -> str:
        apps = "".join(f"  {slug}: {text.format(port=port)}\n" for slug, text in SHARES.items())
        return f"name: dev\napps:\n{apps}"

    env = {"WEAKENED": str(lacks), "PYTHONPATH": os.getcwd()}
    with place(directory / "place", "tests.web.weakened", blueprint=blueprint, **env) as here:
        yield House(here, lacks, Guest.added(here.fairlead, "bob"), Guest.added(here.fairlead, "carol"))


async def uninvited(house: House) -> bool:
    """A user opens an app that is shared with another one only."""
    async with house.carol.browser() as browser:
        page = await browser.get(house.here.url())
        if page.forms:
            page = await browser.submit(page, "open")
        return page.text.startswith("APP")


async def unannounced(house: House) -> bool:
    """An app of another user is shown by a link, without a word on whose it is."""
    async with house.bob.browser() as browser:
        return (await browser.get(house.here.url())).text.startswith("APP")


async def consented_for_the_user(house: House) -> bool:
    """The page of one app presses the button about another, with the browser's cookies."""
    async with house.bob.browser() as browser:
        asked = await browser.get(house.here.url("wide--dev--alice"))
        data = {**asked.forms[0].fields, "csrf": "0" * 64, "decision": "open"}
        origin = house.here.url()[:-1]
        await browser.post(f"{house.here.login}/continue", data, origin=origin)
        return (await browser.get(house.here.url("wide--dev--alice"))).text.startswith("APP")


async def connected_by_a_page_of_another_app(house: House) -> bool:
    """A page of one app opens a WebSocket to another, with the session that the guest has there."""
    async with house.bob.browser() as browser:
        await enter(browser, house.here.url())
        try:
            socket = await browser._session.ws_connect(
                house.here.url(), origin=house.here.url("wide--dev--alice")[:-1]
            )
        except aiohttp.WSServerHandshakeError:
            return False
        await socket.close()
        return True


ATTACKS: dict[Callable[[House], Awaitable[bool]], str] = {
    uninvited: "shares",
    unannounced: "interstitial",
    consented_for_the_user: "forms",
    connected_by_a_page_of_another_app: "own-request",
}
"""The rule without which each attack succeeds."""

ROWS = [
    *(pytest.param(attack, "", id=attack.__name__) for attack in ATTACKS),
    *(pytest.param(attack, rule, id=f"{attack.__name__}-without-{rule}") for attack, rule in ATTACKS.items()),
]


@pytest.mark.parametrize(("attack", "without"), ROWS)
async def test_an_attack_on_sharing_is_stopped_by_its_rule_alone(
    house: House, attack: Callable[[House], Awaitable[bool]], without: str
) -> None:
    house.lacks.write_text(without)
    try:
        assert await attack(house) == bool(without)
    finally:
        house.lacks.write_text("")
