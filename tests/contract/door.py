"""A front door with the development provider behind it, in the loop of the test."""

import asyncio
from typing import Any

from proxy.http.clock import REAL, Clock
from proxy.onboarding.flow import Pending
from proxy.onboarding.service import OnboardingService
from proxy.settings.onboarding import (
    ConfirmSettings,
    DevAccount,
    DevSettings,
    FrontDoorSettings,
    OnboardingSettings,
)
from tests.fakes.provider import Registered, new_key

ALICE, OTHER, MALLORY = new_key(), new_key(), new_key()


class Hurried:
    """Pauses between polls are cut short, and the time that they should have taken has passed."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self.clock = Clock(lambda: REAL.now() + self._skipped, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        if seconds > 100:  # lingering, which these tests do not want to end
            return await asyncio.sleep(seconds)
        self._skipped += seconds
        return await asyncio.sleep(0.02)


class House:
    """A front door with its records."""

    def __init__(self, door: OnboardingService, records: Registered) -> None:
        self.door = door
        self.records = records
        self.onboarding = door.onboarding

    async def begin(self, key=ALICE, name="alice", source="192.0.2.1") -> Pending:
        return await self.onboarding.begin(source, name, key.blob)


async def open_house(**settings: Any) -> House:
    provider = DevSettings(
        accounts=(
            DevAccount(name="listed", keys=(str(ALICE),)),
            DevAccount(name="alice", full_name="Alice Liddell", groups=("wonderland",)),
        ),
        **settings.pop("dev", {}),
    )
    confirm = ConfirmSettings(**{"listen": "127.0.0.1:0", **settings.pop("confirm", {})})
    onboarding = OnboardingSettings(**{"linger_s": 1000, **settings.pop("onboarding", {})})
    chosen = FrontDoorSettings(providers=(provider,), confirm=confirm, onboarding=onboarding)
    records = Registered()
    return House(
        await OnboardingService.open(chosen.in_effect(embedded=True), records, clock=Hurried().clock), records
    )
