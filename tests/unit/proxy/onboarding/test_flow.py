"""The flow manager with a person who answers when the test says so, and time that passes when it does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.errors.login import (
    ApprovalDenied,
    CodeExpired,
    KeyNotConfirmed,
    KeyNotListed,
    KeyNotProved,
    NameTaken,
    OnboardingRefused,
    OtherAccount,
    ProviderUnavailable,
    TooManyForName,
    TooManyFromSource,
    TooManyPending,
)
from proxy.errors.stores import StoreError
from proxy.identity.keys import PublicKey
from proxy.identity.profile import Profile
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.flow import ApprovedUser, Onboarding, Pending
from proxy.settings.onboarding import OnboardingSettings
from tests.fakes.provider import Manual, Registered, StubProvider, new_key, settle

ALICE, OTHER, MALLORY = new_key(), new_key(), new_key()


class Scene:
    """An Onboarding, and everything around it."""

    def __init__(self, **settings: Any) -> None:
        self.time = Manual()
        self.provider = StubProvider(self.time.clock)
        self.provider.listed = [ALICE]
        self.records = Registered()
        limits = OnboardingSettings(**{"otherwise": "allow", **settings})
        self.onboarding = Onboarding([self.provider], self.records, limits, clock=self.time.clock)

    async def begin(self, key: PublicKey = ALICE, source: str = "192.0.2.1", name: str = "alice") -> Pending:
        return await self.onboarding.begin(source, name, key.blob)

    async def wait(self, pending: Pending) -> "asyncio.Task[ApprovedUser]":
        """Wait in the background, as a connection does."""
        task = asyncio.ensure_future(pending.outcome())
        await settle()
        return task


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    await made.onboarding.close()


# ------------------------------------------------------------------------------------ the good way


async def test_a_person_approves_and_is_recorded(scene: Scene) -> None:
    pending = await scene.begin()
    assert pending.shown.user_code == "CODE-1"
    assert pending.shown.verification_uri == "https://stub.example/device"
    assert pending.shown.is_code_typed
    task = await scene.wait(pending)
    await scene.time.advance(20)
    scene.provider.approve()
    await scene.time.advance(5)
    approved = await task
    assert (approved.name, approved.key, approved.profile.subject) == ("alice", ALICE, "id-alice")
    assert scene.records.calls == [("id-alice", "alice", ALICE.fingerprint, "stub")]
    assert len(scene.onboarding) == 0


async def test_the_provider_is_told_what_a_page_should_show(scene: Scene) -> None:
    await scene.begin()
    (about,) = scene.provider.starts
    assert (about.name, about.source, about.fingerprint) == ("alice", "192.0.2.1", ALICE.fingerprint)


async def test_nothing_is_polled_after_the_end(scene: Scene) -> None:
    task = await scene.wait(await scene.begin())
    scene.provider.approve()
    await scene.time.advance(5)
    await task
    polls = scene.provider.polls
    await scene.time.advance(900)
    assert scene.provider.polls == polls == 1


# ------------------------------------------------------------------------------------ once more


async def test_a_known_user_approves_again_without_rules_and_lists(scene: Scene) -> None:
    """The key lets in already; the approval only reads the account anew, and its grant is kept."""
    kept: list[tuple[str, str]] = []

    async def keep(name: str, profile: Profile, tokens: Tokens) -> None:
        kept.append((name, tokens.access.reveal()))

    strict = OnboardingSettings(otherwise="refuse")
    onboarding = Onboarding([scene.provider], scene.records, strict, clock=scene.time.clock, keep=keep)
    scene.provider.can_onboard = False
    scene.provider.listed = []
    scene.provider.account = "alice-renamed"
    pending = await onboarding.renew("192.0.2.1", "alice", ALICE.blob, "stub")
    task = asyncio.ensure_future(pending.outcome())
    scene.provider.approve()
    await scene.time.advance(5)
    await task
    assert (scene.records.calls, scene.records.renewed) == ([], [("id-alice-renamed", "alice")])
    assert kept == [("alice", "access")]
    await onboarding.close()


async def test_a_known_user_who_approves_with_another_account_stays_out(scene: Scene) -> None:
    scene.records.failure = NameTaken("other", user_message="approved by another stub account")
    pending = await scene.onboarding.renew("192.0.2.1", "alice", ALICE.blob, "stub")
    task = await scene.wait(pending)
    scene.provider.approve()
    await scene.time.advance(5)
    with pytest.raises(NameTaken) as caught:
        await task
    assert caught.value.account == "alice"


async def test_a_provider_that_is_no_more_approves_nobody(scene: Scene) -> None:
    with pytest.raises(OnboardingRefused):
        await scene.onboarding.renew("192.0.2.1", "alice", ALICE.blob, "gone")


async def test_a_grant_that_cannot_be_kept_keeps_nobody_out(scene: Scene) -> None:
    async def keep(name: str, profile: Profile, tokens: Tokens) -> None:
        raise StoreError("down")

    limits = OnboardingSettings(otherwise="allow")
    onboarding = Onboarding([scene.provider], scene.records, limits, clock=scene.time.clock, keep=keep)
    task = await scene.wait(await onboarding.begin("192.0.2.1", "alice", ALICE.blob))
    scene.provider.approve()
    await scene.time.advance(5)
    assert (await task).name == "alice"
    await onboarding.close()


# ------------------------------------------------------------------------------------- reconnecting


async def test_a_reconnecting_client_is_shown_the_same_code(scene: Scene) -> None:
    first, second = await asyncio.gather(scene.begin(), scene.begin())
    third = await scene.begin()
    assert first.shown == second.shown == third.shown
    assert len(scene.provider.starts) == 1


async def test_everybody_who_waits_hears_it_and_it_is_recorded_once(scene: Scene) -> None:
    tasks = [await scene.wait(await scene.begin()) for _ in range(3)]
    scene.provider.approve()
    await scene.time.advance(5)
    assert {(await task).key for task in tasks} == {ALICE}
    assert len(scene.records.calls) == 1


async def test_a_client_that_leaves_ends_polling_within_one_interval(scene: Scene) -> None:
    task = await scene.wait(await scene.begin())
    await scene.time.advance(11)
    assert scene.provider.polls == 2
    task.cancel()
    await scene.time.advance(45)
    assert scene.provider.polls == 2
    assert len(scene.onboarding) == 1


async def test_one_who_comes_back_in_time_goes_on_with_the_same_code(scene: Scene) -> None:
    task = await scene.wait(await scene.begin())
    await scene.time.advance(11)
    task.cancel()
    scene.provider.approve()
    await scene.time.advance(40)
    again = await scene.begin()
    assert again.shown.user_code == "CODE-1"
    task = await scene.wait(again)
    await scene.time.advance(5)
    assert (await task).name == "alice"


async def test_a_flow_that_nobody_waits_for_ends(scene: Scene) -> None:
    task = await scene.wait(await scene.begin())
    task.cancel()
    await scene.time.advance(61)
    assert len(scene.onboarding) == 0
    assert (await scene.begin()).shown.user_code == "CODE-2"


async def test_a_flow_that_nobody_ever_waited_for_ends(scene: Scene) -> None:
    await scene.begin()
    await scene.time.advance(61)
    assert len(scene.onboarding) == 0


async def test_waiting_for_an_hour_of_reconnects_keeps_no_tasks(scene: Scene) -> None:
    pending = await scene.begin()
    for _ in range(20):
        task = await scene.wait(pending)
        task.cancel()
        await settle()
    assert len(scene.onboarding._tasks) <= 2


# ---------------------------------------------------------------------------------------- phishing


async def test_keyboard_interactive_first_proves_nothing(scene: Scene) -> None:
    """A client that shows no key gets no code to phish with, and the provider is not even asked."""
    with pytest.raises(KeyNotProved):
        await scene.onboarding.begin("192.0.2.66", "alice", None)
    assert scene.provider.starts == []


async def test_a_strangers_key_gets_nothing_from_her_approval(scene: Scene) -> None:
    task = await scene.wait(await scene.begin(MALLORY, "192.0.2.66"))
    scene.provider.approve()
    await scene.time.advance(5)
    with pytest.raises(KeyNotListed):
        await task
    assert scene.records.calls == []


async def test_nor_where_there_are_no_lists(scene: Scene) -> None:
    scene.provider.listed = None
    scene.provider.confirmed = frozenset([ALICE.fingerprint])
    task = await scene.wait(await scene.begin(MALLORY, "192.0.2.66"))
    scene.provider.approve()
    await scene.time.advance(5)
    with pytest.raises(KeyNotConfirmed):
        await task
    assert scene.records.calls == []


async def test_his_own_account_does_not_make_him_her(scene: Scene) -> None:
    scene.provider.account, scene.provider.listed = "mallory", [MALLORY]
    task = await scene.wait(await scene.begin(MALLORY, "192.0.2.66"))
    scene.provider.approve()
    await scene.time.advance(5)
    with pytest.raises(OtherAccount):
        await task
    assert scene.records.calls == []


async def test_two_who_race_for_one_name_have_codes_of_their_own(scene: Scene) -> None:
    """Her approval of her code does nothing for his connection, although both ask for her name."""
    hers, his = await scene.begin(), await scene.begin(MALLORY, "192.0.2.1")
    assert hers.shown.user_code != his.shown.user_code
    waiting = await scene.wait(hers), await scene.wait(his)
    scene.provider.approve()  # both codes are answered: she approved his as well
    await scene.time.advance(6)  # polls that fall due together are spaced out
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], ApprovedUser)
    assert isinstance(results[1], KeyNotListed)
    assert scene.records.calls == [("id-alice", "alice", ALICE.fingerprint, "stub")]


async def test_the_same_key_from_another_address_does_not_join(scene: Scene) -> None:
    first, second = await scene.begin(), await scene.begin(source="192.0.2.66")
    assert first.shown.user_code != second.shown.user_code


async def test_another_key_on_the_retry_must_be_hers_too(scene: Scene) -> None:
    pending = await scene.begin(MALLORY)
    task = await scene.wait(pending)
    scene.provider.approve()
    await scene.time.advance(5)
    with pytest.raises(KeyNotListed):
        await task
    with pytest.raises(KeyNotListed):
        await pending.try_key(OTHER.blob)
    assert scene.records.calls == []
    approved = await pending.try_key(ALICE.blob)
    assert approved.key == ALICE
    assert scene.records.calls == [("id-alice", "alice", ALICE.fingerprint, "stub")]


async def test_a_confirmed_key_is_no_pass_for_another(scene: Scene) -> None:
    scene.provider.listed, scene.provider.confirmed = None, frozenset([ALICE.fingerprint])
    pending = await scene.begin()
    task = await scene.wait(pending)
    scene.provider.approve()
    await scene.time.advance(5)
    await task
    with pytest.raises(KeyNotConfirmed):
        await pending.try_key(MALLORY.blob)


async def test_a_retry_before_any_approval_is_worth_nothing(scene: Scene) -> None:
    pending = await scene.begin(MALLORY)
    with pytest.raises(KeyNotProved):
        await pending.try_key(ALICE.blob)


@pytest.mark.parametrize("blob", [b"", b"\0\0\0\7ssh-dss", b"\xff" * 100, ALICE.blob[:-1], ALICE.blob + b"x"])
async def test_a_key_that_cannot_be_kept_bothers_nobody(scene: Scene, blob: bytes) -> None:
    with pytest.raises(OnboardingRefused, match="unusable key"):
        await scene.onboarding.begin("192.0.2.1", "alice", blob)
    assert scene.provider.starts == []


# ------------------------------------------------------------------------------------- other ends


@pytest.mark.parametrize("failure", [ApprovalDenied("no"), ProviderUnavailable("down"), CodeExpired("late")])
async def test_what_the_provider_says_is_what_is_heard(scene: Scene, failure: Exception) -> None:
    task = await scene.wait(await scene.begin())
    scene.provider.fail(failure)
    await scene.time.advance(5)
    with pytest.raises(type(failure)):
        await task
    assert len(scene.onboarding) == 0


@pytest.mark.parametrize("failure", [NameTaken("another alice"), StoreError("disk full")])
async def test_a_record_that_cannot_be_made_lets_nobody_in(scene: Scene, failure: Exception) -> None:
    scene.records.failure = failure
    task = await scene.wait(await scene.begin())
    scene.provider.approve()
    await scene.time.advance(5)
    with pytest.raises(type(failure)):
        await task


async def test_a_provider_that_gives_no_code(scene: Scene) -> None:
    scene.provider.start_failure = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):
        await scene.begin()
    assert len(scene.onboarding) == 0
    scene.provider.start_failure = None
    assert (await scene.begin()).shown.user_code == "CODE-2"


async def test_a_bug_is_told_as_one_and_ends_the_flow(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.provider.start_failure = ZeroDivisionError("a bug")
    with pytest.raises(Exception, match="onboarding failed") as caught:
        await scene.begin()
    await settle()
    assert getattr(caught.value, "user_message", "") == "internal error"
    assert len(scene.onboarding) == 0
    assert "ZeroDivisionError" in capsys.readouterr().out


async def test_refused_by_default() -> None:
    scene = Scene(otherwise="refuse")
    task = await scene.wait(await scene.begin())
    scene.provider.approve()
    await scene.time.advance(5)
    with pytest.raises(OnboardingRefused):
        await task
    await scene.onboarding.close()


async def test_a_closed_door_is_closed_at_once() -> None:
    onboarding = Onboarding([], Registered(), OnboardingSettings())
    assert not onboarding.is_open
    with pytest.raises(OnboardingRefused):
        await onboarding.begin("192.0.2.1", "alice", ALICE.blob)


async def test_closing_ends_everything() -> None:
    scene = Scene()
    task = await scene.wait(await scene.begin())
    await scene.onboarding.close()
    with pytest.raises(CodeExpired):
        await task
    assert len(scene.onboarding) == len(scene.onboarding._tasks) == 0


# ------------------------------------------------------------------------------------------- storms


async def test_caps(scene: Scene) -> None:
    del scene
    small = Scene(max_pending=6, max_pending_per_source=3, max_pending_per_name=2)
    await small.begin(name="a")
    await small.begin(name="b")
    await small.begin(name="c")
    with pytest.raises(TooManyFromSource):
        await small.begin(name="d")
    await small.begin(name="a", source="192.0.2.2")
    with pytest.raises(TooManyForName):
        await small.begin(name="a", source="192.0.2.3")
    await small.begin(name="e", source="192.0.2.3")
    await small.begin(name="f", source="192.0.2.4")
    with pytest.raises(TooManyPending):
        await small.begin(name="g", source="192.0.2.5")
    assert (await small.begin(name="a")).shown.user_code == "CODE-1", "joining costs nothing"
    assert len(small.provider.starts) == len(small.onboarding) == 6
    await small.onboarding.close()
    assert len(small.onboarding) == 0


async def test_five_hundred_strangers_cost_what_the_settings_say() -> None:
    scene = Scene(max_pending=50, starts_per_minute=40)
    keys = [new_key() for _ in range(10)]

    async def knock(number: int) -> str:
        source = f"198.51.{number // 250}.{number % 250}"
        try:
            await scene.begin(keys[number % 10], source, f"user{number}")
        except TooManyPending:
            return "refused"
        return "pending"

    results = await asyncio.gather(*(knock(number) for number in range(500)))
    assert results.count("pending") == len(scene.onboarding) == len(scene.provider.starts) == 40
    await scene.time.advance(61)
    assert len(scene.onboarding) == 0
    await scene.onboarding.close()
