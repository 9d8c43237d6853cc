"""What becomes of somebody whom a provider vouches for: bound to one account, with a uid nobody shares."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from proxy.errors.login import NameTaken, OnboardingRefused, OnboardingRejected, Waitlisted
from proxy.errors.stores import IdentityError
from proxy.identity.directory import Directory, OnboardingStatus
from proxy.identity.profile import Profile
from proxy.onboarding.flow import ApprovedUser, Onboarding
from proxy.settings.onboarding import OnboardingSettings
from tests.contract.directories import Replica, make_key
from tests.fakes.provider import Manual, StubProvider, settle


def profile(name: str, subject: str = "", **more: object) -> Profile:
    facts: dict[str, object] = {
        "provider": "forge",
        "issuer": "https://forge.example",
        "subject": subject or f"id-of-{name}",
        "login": name.title(),
        "name": name,
        "full_name": f"{name} Ö.",
        "email": f"{name}@example.com",
        "groups": ("org", "org/team"),
    }
    return Profile(**{**facts, **more})  # type: ignore[arg-type]


async def test_who_registers_is_a_user_bound_to_the_account_with_the_key(directory: Directory) -> None:
    key = make_key()
    await directory.register(profile("alice"), "alice", key, "forge")
    record = await directory.show_user("alice")
    assert (record.user.name, record.user.full_name, record.email) == (
        "alice",
        "alice Ö.",
        "alice@example.com",
    )
    assert record.account is not None
    assert (record.account.provider, record.account.issuer, record.account.subject) == (
        "forge",
        "https://forge.example",
        "id-of-alice",
    )
    assert (record.account.login, record.account.groups) == ("Alice", ("org", "org/team"))
    assert record.account.refreshed_at is not None
    assert record.account == await directory.account_of("alice")
    stored = await directory.key_of("alice", key.blob)
    assert stored is not None
    assert stored.origin == "forge"


async def test_registering_again_adds_a_key_and_refreshes_what_the_provider_said(
    directory: Directory,
) -> None:
    first, second = make_key(), make_key()
    await directory.register(profile("alice"), "alice", first, "forge")
    uid = (await directory.show_user("alice")).uid
    await directory.register(profile("alice"), "alice", first, "forge")
    await directory.register(profile("alice", full_name="A. Renamed", groups=()), "alice", second, "forge")
    record = await directory.show_user("alice")
    assert (record.user.full_name, record.uid, record.key_count) == ("A. Renamed", uid, 2)
    assert record.account is not None
    assert record.account.groups == ()


async def test_a_name_that_is_somebody_elses_is_taken(directory: Directory) -> None:
    await directory.add_user("static")
    await directory.register(profile("alice"), "alice", make_key(), "forge")
    for other in (profile("alice", "another-id"), profile("alice", issuer="https://other.example")):
        with pytest.raises(NameTaken, match="is not bound to"):
            await directory.register(other, "alice", make_key(), "forge")
    with pytest.raises(NameTaken):
        await directory.register(profile("static"), "static", make_key(), "forge")
    with pytest.raises(NameTaken, match="is user 'alice'") as caught:
        await directory.register(profile("renamed", "id-of-alice"), "renamed", make_key(), "forge")
    assert "alice" not in caught.value.user_message
    assert await directory.find("renamed") is None
    assert (await directory.show_user("alice")).key_count == 1


async def test_fifty_first_logins_at_two_replicas_get_fifty_uids(replica: Replica) -> None:
    replicas = [await replica(), await replica()]
    key = make_key()
    await asyncio.gather(
        *(
            replicas[number % 2].register(profile(f"user{number}"), f"user{number}", key, "forge")
            for number in range(50)
        )
    )
    uids = [record.uid for record in await replicas[0].list_users()]
    assert sorted(uid for uid in uids if uid is not None) == list(range(10_000, 10_050))


async def test_racing_logins_of_one_account_make_one_user(directory: Directory) -> None:
    keys = [make_key() for _ in range(8)]
    await asyncio.gather(*(directory.register(profile("alice"), "alice", key, "forge") for key in keys))
    assert (await directory.show_user("alice")).key_count == 8
    rivals = [profile("bob", f"id-{number}") for number in range(8)]
    ends = await asyncio.gather(
        *(directory.register(rival, "bob", make_key(), "forge") for rival in rivals), return_exceptions=True
    )
    assert sum(end is None for end in ends) == 1
    assert sum(isinstance(end, NameTaken) for end in ends) == 7


async def test_a_uid_of_the_mapping_is_taken_when_it_is_free(directory: Directory) -> None:
    await directory.register(profile("alice", uid=10_001), "alice", make_key(), "forge")
    await directory.register(profile("bob", uid=10_001), "bob", make_key(), "forge")
    await directory.add_user("carol")
    uids = {record.user.name: (record.uid, record.gid) for record in await directory.list_users()}
    assert uids == {"alice": (10_001, 10_001), "bob": (10_000, 10_000), "carol": (10_002, 10_002)}
    with pytest.raises(IdentityError, match="uid 10001 is user alice's"):
        await directory.add_user("dave", uid=10_001)


async def test_a_uid_is_not_given_to_somebody_else_later(directory: Directory) -> None:
    await directory.add_user("alice")
    await directory.remove_user("alice")
    await directory.add_user("bob")
    assert (await directory.show_user("bob")).uid == 10_001


async def test_what_a_provider_stops_listing_goes_and_nothing_else(directory: Directory) -> None:
    kept, gone, own = make_key(), make_key(), make_key()
    await directory.register(profile("alice"), "alice", kept, "forge")
    await directory.register(profile("alice"), "alice", gone, "forge")
    await directory.add_key("alice", own)
    before = await directory.account_of("alice")
    now = datetime.now(UTC)
    assert await directory.drop_unlisted("alice", "other", [], now) == []
    assert await directory.drop_unlisted("alice", "forge", [], now - timedelta(hours=1)) == []
    assert await directory.drop_unlisted("alice", "forge", [kept.blob, b"more"], now) == [gone.fingerprint]
    assert {stored.key.blob for stored in await directory.keys_of("alice")} == {kept.blob, own.blob}
    after = await directory.account_of("alice")
    assert before is not None
    assert after is not None
    assert before.refreshed_at is not None
    assert after.refreshed_at == now > before.refreshed_at
    assert await directory.add_key("alice", gone, origin="forge")  # listed again, in again


async def test_a_key_that_an_operator_took_does_not_come_back_by_a_provider(directory: Directory) -> None:
    key = make_key()
    await directory.register(profile("alice"), "alice", key, "forge")
    for _ in range(2):
        await directory.remove_key("alice", key.fingerprint)
        assert not await directory.add_key("alice", key, origin="forge")
        assert await directory.key_of("alice", key.blob) is None
        assert await directory.add_key("alice", key)
    await directory.remove_key("alice", key.fingerprint)
    await directory.remove_user("alice")
    await directory.register(profile("alice"), "alice", key, "forge")
    assert await directory.key_of("alice", key.blob) is not None


# ------------------------------------------------------------------------------------- the waiting list


async def test_who_waits_becomes_a_user_with_the_proved_key_when_approved(directory: Directory) -> None:
    key = make_key()
    await directory.waitlist(profile("alice", uid=4_711), "alice", key, "192.0.2.7")
    assert await directory.find("alice") is None
    (waiting,) = await directory.list_onboardings()
    assert (waiting.status, waiting.name, waiting.key.fingerprint, waiting.source_address) == (
        OnboardingStatus.WAITLISTED,
        "alice",
        key.fingerprint,
        "192.0.2.7",
    )
    approved = await directory.approve(waiting.id, "cli:root")
    assert (approved.status, approved.decided_by) == (OnboardingStatus.APPROVED, "cli:root")
    assert approved.decided_at is not None
    assert await directory.key_of("alice", key.blob) is not None
    record = await directory.show_user("alice")
    assert (record.uid, record.account) == (4_711, await directory.account_of("alice"))
    with pytest.raises(IdentityError, match="was approved by cli:root; user alice can be locked"):
        await directory.approve(waiting.id, "cli:root")
    with pytest.raises(IdentityError, match="was approved"):
        await directory.reject(waiting.id, "cli:root")


async def test_who_asks_again_is_on_the_list_once_with_the_last_key(directory: Directory) -> None:
    key = make_key()
    for one in (make_key(), key):
        await directory.waitlist(profile("alice"), "alice", one, "192.0.2.7")
    (waiting,) = await directory.list_onboardings()
    assert waiting.key.fingerprint == key.fingerprint


async def test_a_rejection_is_remembered_until_an_operator_thinks_otherwise(directory: Directory) -> None:
    await directory.waitlist(profile("alice"), "alice", make_key(), "192.0.2.7")
    (waiting,) = await directory.list_onboardings()
    await directory.reject(waiting.id, "cli:root")
    for attempt in (
        directory.waitlist(profile("alice"), "alice", make_key(), "192.0.2.7"),
        directory.register(profile("alice"), "alice", make_key(), "forge"),
        directory.register(profile("renamed", "id-of-alice"), "renamed", make_key(), "forge"),
    ):
        with pytest.raises(OnboardingRejected) as caught:
            await attempt
        assert caught.value.user_message == "an operator rejected your request to log in here"
    assert await directory.list_users() == []
    await directory.approve(waiting.id, "cli:root")
    assert await directory.find("alice") is not None


async def test_a_rule_that_lets_in_later_takes_from_the_list(directory: Directory) -> None:
    await directory.waitlist(profile("alice"), "alice", make_key(), "192.0.2.7")
    await directory.register(profile("alice"), "alice", make_key(), "forge")
    (record,) = await directory.list_onboardings()
    assert (record.status, record.decided_by) == (OnboardingStatus.APPROVED, "a rule")


async def test_nobody_waits_for_a_name_that_is_somebody_elses(directory: Directory) -> None:
    await directory.add_user("alice")
    with pytest.raises(NameTaken):
        await directory.waitlist(profile("alice"), "alice", make_key(), "192.0.2.7")
    assert await directory.list_onboardings() == []


async def test_a_name_that_was_taken_meanwhile_stops_an_approval(directory: Directory) -> None:
    await directory.waitlist(profile("alice"), "alice", make_key(), "192.0.2.7")
    await directory.add_user("alice")
    with pytest.raises(NameTaken):
        await directory.approve(1, "cli:root")
    (record,) = await directory.list_onboardings()
    assert record.status is OnboardingStatus.WAITLISTED


async def test_there_is_no_such_onboarding(directory: Directory) -> None:
    for attempt in (directory.approve(7, "x"), directory.reject(7, "x")):
        with pytest.raises(IdentityError, match="there is no onboarding 7"):
            await attempt


async def test_from_the_approval_in_the_browser_over_the_list_to_a_user(directory: Directory) -> None:
    """The whole way: a rule says waitlist, an operator approves, and the very key that was proved is in."""
    time = Manual()
    provider = StubProvider(time.clock)
    key = make_key()
    provider.listed = [key]
    rule = OnboardingSettings(otherwise="waitlist")
    onboarding = Onboarding([provider], directory, rule, clock=time.clock)

    async def knock() -> ApprovedUser:
        outcome = asyncio.ensure_future((await onboarding.begin("192.0.2.9", "alice", key.blob)).outcome())
        await settle()
        await time.advance(5)
        return await outcome

    provider.approve()
    try:
        with pytest.raises(Waitlisted, match="waits for an operator"):
            await knock()
        assert await directory.find("alice") is None
        (waiting,) = await directory.list_onboardings()
        assert (waiting.name, waiting.source_address) == ("alice", "192.0.2.9")
        await directory.reject(waiting.id, "cli:root")
        with pytest.raises(OnboardingRejected):
            await knock()
        await directory.approve(waiting.id, "cli:root")
        assert await directory.key_of("alice", key.blob) is not None
    finally:
        await onboarding.close()


async def test_renamed_and_recycled_logins_at_the_provider_are_other_people(directory: Directory) -> None:
    await directory.register(profile("alice", "1"), "alice", make_key(), "forge")
    first = await directory.find("alice")
    assert first is not None
    # Account 1 is renamed there, and account 2 takes its login.
    with pytest.raises(NameTaken):
        await directory.register(profile("alicia", "1"), "alicia", make_key(), "forge")
    with pytest.raises(NameTaken):
        await directory.register(profile("alice", "2"), "alice", key := make_key(), "forge")
    assert await directory.key_of("alice", key.blob) is None
    # An operator removes the first: whoever comes by the name then is another user.
    await directory.remove_user("alice")
    await directory.register(profile("alice", "2"), "alice", key, "forge")
    second = await directory.find("alice")
    assert second is not None
    assert second.id
    assert second.id != first.id
    account = await directory.account_of("alice")
    assert account is not None
    assert account.subject == "2"


async def test_nobody_is_onboarded_by_the_name_of_a_system_account(directory: Directory) -> None:
    for name in ("root", "daemon", "_apt"):
        with pytest.raises(OnboardingRefused, match=f"the user name {name} is reserved"):
            await directory.register(profile(name), name, make_key(), "forge")
    # One who waits since before names were reserved is not approved either.
    await directory.waitlist(profile("postgres"), "postgres", make_key(), "192.0.2.1")
    (record,) = await directory.list_onboardings()
    with pytest.raises(OnboardingRefused, match="is reserved"):
        await directory.approve(record.id, "ops")
    assert await directory.list_users() == []
    provider = StubProvider(Manual())
    onboarding = Onboarding([provider], directory, OnboardingSettings())
    with pytest.raises(OnboardingRefused, match="the user name root is reserved"):
        await onboarding.begin("192.0.2.1", "root", make_key().blob)
    await onboarding.close()
    # An operator may have them, where workspaces are no pods.
    assert (await directory.add_user("root")).name == "root"
