"""What every Directory promises, run on each store there is."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.errors.stores import IdentityError, KeyNotFound, UserExists, UserNotFound
from proxy.identity.directory import Directory, KeyStanding, UserEntry
from proxy.model import User
from tests.contract.directories import make_key


def plain(user: User | None) -> User | None:
    """Leave out the numbers that the store chose by itself."""
    return None if user is None else replace(user, uid=None, gid=None, id="", created_at=None)


async def test_a_user_is_found_once_added(directory: Directory) -> None:
    assert await directory.find("alice") is None
    await directory.add_user("alice", full_name="Alice Ö.", email="a@example.com", uid=1_001)
    found = await directory.find("alice")
    assert plain(found) == User("alice", "Alice Ö.", email="a@example.com")
    assert found is not None
    assert (found.uid, found.gid) == (1_001, 1_001)
    record = await directory.show_user("alice")
    assert (record.user.name, record.email, record.uid, record.key_count) == (
        "alice",
        "a@example.com",
        1_001,
        0,
    )
    assert record.created_at.tzinfo is UTC
    assert datetime.now(UTC) - record.created_at < timedelta(minutes=5)


@pytest.mark.parametrize("name", ["Alice", "a b", "", "a+dev", "b64-YQ", ".a", "a" * 129, "a\0"])
async def test_a_name_that_nobody_could_type_is_refused(directory: Directory, name: str) -> None:
    with pytest.raises(IdentityError, match="cannot be a user name"):
        await directory.add_user(name)
    assert await directory.list_users() == []


async def test_a_user_is_added_once(directory: Directory) -> None:
    await directory.add_user("alice", full_name="first")
    with pytest.raises(UserExists, match="already a user alice"):
        await directory.add_user("alice", full_name="second")
    assert plain(await directory.find("alice")) == User("alice", "first")


async def test_users_are_listed_by_name_with_the_number_of_their_keys(directory: Directory) -> None:
    for name in ("bob", "alice"):
        await directory.add_user(name)
    await directory.add_key("bob", make_key())
    await directory.add_key("bob", make_key())
    assert [(record.user.name, record.key_count) for record in await directory.list_users()] == [
        ("alice", 0),
        ("bob", 2),
    ]


async def test_a_key_belongs_to_those_it_was_added_to(directory: Directory) -> None:
    key, other = make_key("laptop"), make_key()
    for name in ("alice", "bob", "carol"):
        await directory.add_user(name)
    assert await directory.add_key("alice", key)
    assert await directory.add_key("bob", key, origin="quickstart")
    found = await directory.key_of("alice", key.blob)
    assert found is not None
    assert (found.user, found.key, found.origin, found.last_used_at) == ("alice", key, "static", None)
    assert await directory.key_of("carol", key.blob) is None
    assert await directory.key_of("nobody", key.blob) is None
    assert await directory.key_of("alice", other.blob) is None
    assert await directory.key_of("alice", b"") is None


async def test_a_key_is_added_once(directory: Directory) -> None:
    await directory.add_user("alice")
    key = make_key()
    assert await directory.add_key("alice", key) is True
    assert await directory.add_key("alice", key) is False
    assert len(await directory.keys_of("alice")) == 1


async def test_keys_are_listed_oldest_first(directory: Directory) -> None:
    await directory.add_user("alice")
    keys = [make_key(str(number)) for number in range(3)]
    for key in keys:
        await directory.add_key("alice", key)
    assert [stored.key for stored in await directory.keys_of("alice")] == keys


async def test_a_key_can_be_taken_away(directory: Directory) -> None:
    await directory.add_user("alice")
    key = make_key()
    await directory.add_key("alice", key)
    await directory.remove_key("alice", key.fingerprint)
    assert await directory.key_of("alice", key.blob) is None
    with pytest.raises(KeyNotFound, match=r"alice has no key SHA256:"):
        await directory.remove_key("alice", key.fingerprint)


async def test_a_removed_user_takes_the_keys_along(directory: Directory) -> None:
    await directory.add_user("alice")
    key = make_key()
    await directory.add_key("alice", key)
    await directory.remove_user("alice")
    assert await directory.find("alice") is None
    assert await directory.key_of("alice", key.blob) is None
    await directory.add_user("alice")
    assert await directory.keys_of("alice") == []


async def test_locking_forgets_nothing(directory: Directory) -> None:
    await directory.add_user("alice", full_name="A")
    key = make_key()
    await directory.add_key("alice", key)
    await directory.lock("alice")
    assert plain(await directory.find("alice")) == User("alice", "A", locked=True)
    assert await directory.key_of("alice", key.blob) is not None
    await directory.lock("alice")
    await directory.unlock("alice")
    assert plain(await directory.find("alice")) == User("alice", "A")


async def test_use_of_a_key_is_noted(directory: Directory) -> None:
    await directory.add_user("alice")
    await directory.add_key("alice", make_key())
    (stored,) = await directory.keys_of("alice")
    before = datetime.now(UTC)
    await directory.touch_key(stored.id)
    (touched,) = await directory.keys_of("alice")
    assert touched.last_used_at is not None
    assert touched.last_used_at.tzinfo is UTC
    assert before <= touched.last_used_at <= datetime.now(UTC)
    await directory.touch_key(stored.id)
    assert await directory.keys_of("alice") == [touched]
    await directory.touch_key(4_711)


async def test_what_needs_a_user_says_that_there_is_none(directory: Directory) -> None:
    key = make_key()
    for attempt in (
        directory.show_user("nobody"),
        directory.remove_user("nobody"),
        directory.lock("nobody"),
        directory.unlock("nobody"),
        directory.keys_of("nobody"),
        directory.add_key("nobody", key),
        directory.remove_key("nobody", key.fingerprint),
    ):
        with pytest.raises(UserNotFound, match="there is no user nobody"):
            await attempt


async def test_many_may_write_at_once(directory: Directory) -> None:
    await directory.add_user("alice")
    keys = [make_key() for _ in range(20)]
    added = await asyncio.gather(*(directory.add_key("alice", key) for key in [*keys, *keys]))
    assert sum(added) == 20
    assert {stored.key for stored in await directory.keys_of("alice")} == set(keys)


@pytest.mark.parametrize("text", ["'; DROP TABLE users; --", "%", "_", "alice' OR '1'='1"])
async def test_text_is_never_read_as_sql(directory: Directory, text: str) -> None:
    await directory.add_user("alice", full_name=text)
    assert await directory.find(text) is None
    assert await directory.key_of(text, text.encode()) is None
    assert (await directory.show_user("alice")).user.full_name == text


async def test_a_user_may_expire(directory: Directory) -> None:
    end = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    added = await directory.add_user("alice", expires_at=end)
    assert added == await directory.find("alice")
    assert plain(added) == User("alice", expires_at=end)
    assert added.uid == added.gid is not None


async def test_what_is_left_of_many_logins_is_one_question(directory: Directory) -> None:
    keys = {name: make_key() for name in ("alice", "bob", "carol", "dave", "erin")}
    for name, key in keys.items():
        await directory.add_user(name)
        await directory.add_key(name, key)
    await directory.add_key("alice", keys["bob"])
    await directory.lock("bob")
    await directory.remove_key("carol", keys["carol"].fingerprint)
    await directory.remove_user("dave")
    pairs = [(name, key.fingerprint) for name, key in keys.items()]
    standing = await directory.standing_of(
        [*pairs, ("bob", ""), ("dave", ""), ("carol", keys["bob"].fingerprint)]
    )
    assert {pair: KeyStanding(plain(found.user), found.has_key) for pair, found in standing.items()} == {
        pairs[0]: KeyStanding(User("alice"), has_key=True),
        pairs[1]: KeyStanding(User("bob", locked=True), has_key=True),
        pairs[2]: KeyStanding(User("carol"), has_key=False),
        pairs[3]: KeyStanding(None, has_key=False),
        pairs[4]: KeyStanding(User("erin"), has_key=True),
        ("bob", ""): KeyStanding(User("bob", locked=True), has_key=True),
        ("dave", ""): KeyStanding(None, has_key=True),
        ("carol", keys["bob"].fingerprint): KeyStanding(User("carol"), has_key=False),
    }
    assert await directory.standing_of([]) == {}


async def test_twelve_thousand_logins_are_no_problem(directory: Directory) -> None:
    await directory.add_user("alice")
    pairs = [(f"user{number}", f"SHA256:{number}") for number in range(12_000)]
    standing = await directory.standing_of([*pairs, ("alice", "")])
    assert plain(standing["alice", ""].user) == User("alice")
    assert [standing[pair].user for pair in pairs] == [None] * 12_000


async def test_a_user_has_an_id_that_no_later_user_of_the_name_has(directory: Directory) -> None:
    added = await directory.add_user("alice")
    entries = [UserEntry("line 1", "bob"), UserEntry("line 2", "alice", full_name="A")]
    await directory.import_users(entries)
    bob = await directory.find("bob")
    assert bob is not None
    found = await directory.find("alice")
    assert found is not None
    assert (found.id, found.created_at) == (added.id, added.created_at)
    assert len({added.id, bob.id, ""}) == 3
    await directory.remove_user("alice")
    again = await directory.add_user("alice")
    assert again.id not in {added.id, bob.id, ""}
    standing = await directory.standing_of([("alice", "")])
    user = standing["alice", ""].user
    assert user is not None
    assert user.id == again.id
