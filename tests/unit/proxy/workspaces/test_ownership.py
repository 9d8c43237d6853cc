"""Whose a workspace is: by the id of the user record, and by age where an older release noted names only."""

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from proxy.errors.programs import OwnerUnknown, Refused
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import User, WorkspaceName
from proxy.userstring import parse, workspace_name
from proxy.workspaces.backend import Backend, WorkspaceRecord
from proxy.workspaces.ownership import Title, check_title, title
from proxy.workspaces.provisioner import address, names

MADE_AT = datetime(2026, 3, 4, 5, 6, 7, 500_000, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
BEFORE, AFTER = MADE_AT - MOMENT, MADE_AT + MOMENT
FIRST = User("alice", id="first", created_at=BEFORE)
SECOND = User("alice", id="second", created_at=AFTER)


def record(name: str, owner: str = "", user: str = "alice") -> WorkspaceRecord:
    return WorkspaceRecord(WorkspaceName(name), user, "dev", MADE_AT, owner=owner)


@pytest.mark.parametrize(
    ("owner", "name", "user", "right"),
    [
        ("first", "alice", FIRST, Title.RECORDED),
        ("first", "alice", SECOND, Title.NONE),
        ("first", "bob", FIRST, Title.RECORDED),
        ("", "alice", FIRST, Title.UNRECORDED),
        ("", "alice", User("alice", id="x", created_at=MADE_AT), Title.UNRECORDED),
        ("", "alice", SECOND, Title.UNKNOWN),
        ("", "alice", User("alice", id="x"), Title.UNKNOWN),
        ("", "bob", FIRST, Title.NONE),
        ("", "", FIRST, Title.UNRECORDED),
        ("", "", SECOND, Title.UNKNOWN),
        ("", "alice", User("alice"), Title.UNKNOWN),
    ],
)
def test_the_id_decides_and_without_one_the_age(owner: str, name: str, user: User, right: Title) -> None:
    found = title(owner, name, MADE_AT, user)
    assert found is right
    assert bool(found) is (right in {Title.RECORDED, Title.UNRECORDED})


def test_an_object_of_a_cluster_is_as_old_as_its_second() -> None:
    made_at = MADE_AT.replace(microsecond=0)
    assert title("", "alice", made_at, FIRST) is Title.UNRECORDED
    later = User("alice", id="x", created_at=made_at + timedelta(seconds=1))
    assert title("", "alice", made_at, later) is Title.UNKNOWN


def test_a_refusal_says_what_an_operator_can_do_and_of_another_s_nothing() -> None:
    with pytest.raises(OwnerUnknown, match=r"fairlead workspace give ws alice$"):
        check_title(record("ws"), "ws", SECOND)
    with pytest.raises(WorkspaceNotFound) as of_another:
        check_title(record("ws", "first"), "ws", SECOND)
    with pytest.raises(WorkspaceNotFound) as of_none:
        check_title(None, "ws", SECOND)
    assert str(of_another.value) == str(of_none.value)


class Held:
    """The part of a backend that knows whose a name is."""

    def __init__(self, **owners: str) -> None:
        self.owners = {name.replace("_", "-"): owner for name, owner in owners.items()}

    def add(self, name: str, owner: str) -> None:
        self.owners[name] = owner

    async def holder(self, name: str) -> WorkspaceRecord | None:
        return record(name, self.owners[name]) if name in self.owners else None


VALUE = parse("alice+dev")
BASE, OF_SECOND, LATER, *REST = names(SECOND, VALUE, "dev")


async def addressed(held: Held, user: User = SECOND) -> str:
    return await address(cast(Backend, held), user, VALUE, "dev")


async def test_a_name_that_is_free_or_one_s_own_is_the_workspace_s() -> None:
    held = Held()
    assert await addressed(held) == BASE == workspace_name(VALUE, "dev")
    held.add(BASE, "second")
    assert await addressed(held) == BASE


async def test_where_the_name_is_an_earlier_user_s_the_next_has_one_of_their_own() -> None:
    held = Held()
    held.add(BASE, "first")
    assert await addressed(held) == OF_SECOND
    assert await addressed(held, FIRST) == BASE
    assert OF_SECOND not in set(names(FIRST, VALUE, "dev"))
    # It stays theirs when the first one's is purged.
    held.add(OF_SECOND, "second")
    del held.owners[BASE]
    assert await addressed(held) == OF_SECOND
    # What was handed over to them comes before it, and what was taken from them is not found.
    held.add(BASE, "second")
    assert await addressed(held) == BASE
    held.add(BASE, "bob")
    held.add(OF_SECOND, "bob")
    assert await addressed(held) == LATER


async def test_a_name_whose_user_is_not_known_is_no_reason_to_make_another() -> None:
    held = Held()
    held.add(BASE, "")
    with pytest.raises(OwnerUnknown):
        await addressed(held)
    assert await addressed(held, FIRST) == BASE


async def test_names_come_to_an_end() -> None:
    held = Held()
    for name in (BASE, OF_SECOND, LATER, *REST):
        held.add(name, "bob")
    with pytest.raises(Refused, match="ask an operator"):
        await addressed(held)
