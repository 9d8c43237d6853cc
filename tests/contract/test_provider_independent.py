"""The same flows against an OpenID provider that others wrote (npm `oidc-provider`).

Needs node and npm, and once the npm registry; without them these tests are skipped, and say so.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.errors.login import ApprovalDenied, KeyNotListed
from proxy.http.clock import REAL, Clock
from proxy.onboarding.service import OnboardingService
from proxy.settings.onboarding import FrontDoorSettings
from tests.contract.independent import free_issuer, provider_of, running, through_the_provider
from tests.fakes.browser import Browser
from tests.fakes.provider import Registered, new_key

ALICE, MALLORY = new_key(), new_key()


@dataclass
class House:
    door: OnboardingService
    records: Registered
    issuer: str


async def _quick(seconds: float) -> None:
    await asyncio.sleep(seconds if seconds > 100 else 0.05)


@pytest.fixture(params=["device", "confirm"])
async def house(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> AsyncIterator[House]:
    issuer = free_issuer()
    provider = provider_of(issuer, tmp_path, request.param)
    settings = FrontDoorSettings.model_validate(
        {
            "providers": [provider],
            "confirm": {"listen": "127.0.0.1:0"},
            "onboarding": {
                "linger_s": 1000,
                "rules": [{"name": "wonderland", "action": "allow", "organizations": ["wonderland"]}],
            },
        }
    )
    records = Registered()
    clock = Clock(REAL.now, _quick)
    door = await OnboardingService.open(settings.in_effect(embedded=False), records, clock=clock)
    redirect_uri = door._confirm.redirect_uri if door._confirm is not None else "http://127.0.0.1:9/callback"
    try:
        async with running(installed, issuer, redirect_uri, SSH_KEY=str(ALICE)):
            yield House(door, records, issuer)
    finally:
        await door.close()


@pytest.mark.parametrize("house", ["device"], indirect=True)
async def test_device_flow(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.1", "alice", ALICE.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        await through_the_provider(browser, pending.shown.verification_uri_complete, "alice")
    approved = await waiting
    assert (approved.profile.subject, approved.profile.name) == ("alice", "alice")
    assert approved.profile.email == "alice@wonder.example"
    assert house.records.calls == [("alice", "alice", ALICE.fingerprint, "independent")]


@pytest.mark.parametrize("house", ["device"], indirect=True)
async def test_device_flow_for_a_strangers_key(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.66", "alice", MALLORY.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        await through_the_provider(browser, pending.shown.verification_uri_complete, "alice")
    with pytest.raises(KeyNotListed):
        await waiting
    assert house.records.calls == []


@pytest.mark.parametrize("house", ["device"], indirect=True)
async def test_device_flow_denied(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.1", "alice", ALICE.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        await through_the_provider(browser, pending.shown.verification_uri_complete, "alice", abort=True)
    with pytest.raises(ApprovalDenied):
        await waiting


@pytest.mark.parametrize("house", ["confirm"], indirect=True)
async def test_code_pkce_and_the_confirm_page(house: House) -> None:
    pending = await house.door.onboarding.begin("192.0.2.1", "alice", ALICE.blob)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        page = await through_the_provider(browser, pending.shown.verification_uri, "alice")
        assert ALICE.fingerprint in page.text
        assert pending.shown.user_code in page.text
        await browser.submit(page, "confirm")
    approved = await waiting
    assert approved.profile.confirmed == {ALICE.fingerprint}
    assert house.records.calls == [("alice", "alice", ALICE.fingerprint, "independent")]
