"""Refresh tokens of an OpenID provider that others wrote: rotation, groups that change, accounts that end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.http.clock import REAL, Clock
from proxy.identity.grants import SqlGrants
from proxy.identity.store import SqlDirectory
from proxy.onboarding.refresher import AccountStanding, Refresher
from proxy.onboarding.service import OnboardingService
from proxy.onboarding.vault import Vault
from proxy.settings.groups import GroupSettings
from proxy.settings.onboarding import FrontDoorSettings
from proxy.storage.database import Database
from tests.contract.directories import DEADLINE_S, sqlite_url
from tests.contract.independent import free_issuer, provider_of, running, through_the_provider
from tests.fakes.browser import Browser
from tests.fakes.provider import new_key

ALICE = new_key()
AT_EVERY_LOGIN = GroupSettings(max_age_s=3_600, refresh_s=0.000_001)


@dataclass
class House:
    directory: SqlDirectory
    refreshers: list[Refresher]
    """Of two replicas on one database."""
    door: OnboardingService
    accounts: Path
    provider: AsyncExitStack

    async def groups(self) -> tuple[str, ...]:
        user = await self.directory.find("alice")
        assert user is not None
        return user.groups

    async def is_vouched_for(self) -> bool:
        pair = ("alice", ALICE.fingerprint)
        return not (await self.directory.standing_of([pair]))[pair].ended_at_provider

    async def vouch(self, number: int = 0) -> AccountStanding:
        return await self.refreshers[number].vouch("alice", "independent")


async def _quick(seconds: float) -> None:
    await asyncio.sleep(seconds if seconds > 100 else 0.05)


@pytest.fixture(params=["device", "confirm"])
async def house(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> AsyncIterator[House]:
    """Alice came in by the provider, in the group `wonderland`."""
    issuer, accounts = free_issuer(), tmp_path / "accounts.json"
    accounts.write_text(json.dumps({"alice": ["wonderland"]}))
    provider = provider_of(issuer, tmp_path, request.param)
    settings = FrontDoorSettings.model_validate(
        {
            "providers": [provider],
            "confirm": {"listen": "127.0.0.1:0"},
            "onboarding": {"linger_s": 1000, "otherwise": "allow"},
        }
    )
    async with AsyncExitStack() as stack, AsyncExitStack() as process:
        databases = [
            await Database.open(sqlite_url(tmp_path / "x.db"), query_timeout_s=DEADLINE_S, upgrade=True)
            for _ in range(2)
        ]
        for database in databases:
            stack.push_async_callback(database.close)
        directories = [
            await SqlDirectory.in_database(one, uids=range(10_000, 20_000), groups=AT_EVERY_LOGIN)
            for one in databases
        ]
        refreshers = [
            Refresher(directory, SqlGrants(database), Vault([b"k" * 32]), AT_EVERY_LOGIN)
            for directory, database in zip(directories, databases, strict=True)
        ]
        door = await OnboardingService.open(
            settings.in_effect(embedded=False),
            directories[0],
            clock=Clock(REAL.now, _quick),
            keep=refreshers[0].keep,
        )
        stack.push_async_callback(door.close)
        for refresher in refreshers:
            stack.push_async_callback(refresher.close)
            refresher.start(door.providers, door.issuers, tuple)
        redirect = door._confirm.redirect_uri if door._confirm is not None else "http://127.0.0.1:9/callback"
        await process.enter_async_context(
            running(installed, issuer, redirect, SSH_KEY=str(ALICE), ACCOUNTS=str(accounts))
        )
        made = House(directories[0], refreshers, door, accounts, process)
        await _approve(made, renews=False)
        yield made


async def _approve(house: House, *, renews: bool) -> None:
    onboarding, source = house.door.onboarding, "192.0.2.1"
    if renews:
        pending = await onboarding.renew(source, "alice", ALICE.blob, "independent")
    else:
        pending = await onboarding.begin(source, "alice", ALICE.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        shown = pending.shown
        page = await through_the_provider(
            browser, shown.verification_uri_complete or shown.verification_uri, "alice"
        )
        if not shown.is_code_typed:
            await browser.submit(page, "confirm")
    await waiting


async def test_groups_follow_the_provider_through_rotated_tokens(house: House) -> None:
    assert await house.groups() == ("wonderland",)
    for groups in (["wonderland", "queens"], [], ["queens"]):
        house.accounts.write_text(json.dumps({"alice": groups}))
        assert await house.vouch() is AccountStanding.GOOD
        assert await house.groups() == tuple(groups)


async def test_two_replicas_share_one_rotated_token(house: House) -> None:
    """The provider ends every token of a grant that is used twice; a later refresh shows that it did not."""
    for _ in range(5):
        vouched = await asyncio.gather(house.vouch(0), house.vouch(1))
        assert vouched == [AccountStanding.GOOD, AccountStanding.GOOD]
    house.accounts.write_text(json.dumps({"alice": ["still"]}))
    assert await house.vouch(1) is AccountStanding.GOOD
    assert await house.groups() == ("still",)


async def test_the_end_of_an_account_ends_its_key_and_an_approval_brings_it_back(house: House) -> None:
    house.accounts.write_text(json.dumps({}))
    assert await house.vouch() is AccountStanding.ENDED
    assert (await house.groups(), await house.is_vouched_for()) == ((), False)
    assert await house.vouch(1) is AccountStanding.ENDED
    house.accounts.write_text(json.dumps({"alice": ["back"]}))
    await _approve(house, renews=True)
    assert await house.vouch() is AccountStanding.GOOD
    assert (await house.groups(), await house.is_vouched_for()) == (("back",), True)


async def test_a_provider_that_is_away_ends_nothing(house: House) -> None:
    await house.provider.aclose()
    assert await house.vouch() is AccountStanding.GOOD
    assert (await house.groups(), await house.is_vouched_for()) == (("wonderland",), True)
