"""The policy of the portal: own things, operators, viewers."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.access.administration import Administration
from proxy.model import User
from proxy.settings.base import Audience

NOW = datetime(2026, 3, 4, tzinfo=UTC)
ALICE = User("alice", id="a", created_at=NOW)
OLGA = User("olga", id="o", created_at=NOW)
GRACE = User("grace", id="g", groups=("/Platform",), created_at=NOW)
FORMER = User("fred", id="f", known_groups=("platform",), created_at=NOW)
"""A user whose groups ended: the last known ones give no rights."""

RULES = Administration(Audience(users=("olga",), groups=("platform",)), Audience(users=("vera*",)))


def test_nobody_is_an_operator_or_a_viewer_where_the_settings_name_none() -> None:
    rules = Administration(Audience(), Audience())
    for user in (ALICE, OLGA, GRACE, User("")):
        assert not rules.may_operate(user)
        assert not rules.may_list_recordings(user, "")


@pytest.mark.parametrize(("user", "expected"), [(ALICE, False), (OLGA, True), (GRACE, True), (FORMER, False)])
def test_operators_are_chosen_by_name_and_by_groups_in_effect(user: User, expected: bool) -> None:
    assert bool(RULES.may_operate(user)) is expected


def test_a_user_ends_the_own_sessions_and_an_operator_all() -> None:
    assert RULES.may_end(ALICE, "alice")
    assert not RULES.may_end(ALICE, "bob")
    assert RULES.may_end(OLGA, "bob")


def test_keys_are_removed_by_their_user_alone() -> None:
    assert RULES.may_remove_key(ALICE, "alice")
    assert not RULES.may_remove_key(OLGA, "alice")


def test_an_operator_locks_others_and_bans_other_addresses() -> None:
    assert RULES.may_lock(OLGA, "alice")
    assert not RULES.may_lock(OLGA, "olga")
    assert not RULES.may_lock(ALICE, "bob")
    assert RULES.may_ban(OLGA, "192.0.2.1", "192.0.2.2")
    assert not RULES.may_ban(OLGA, "192.0.2.1", "192.0.2.1")
    assert not RULES.may_ban(ALICE, "192.0.2.1", "")


def test_recordings_are_hidden_from_their_user_unless_the_settings_say_otherwise() -> None:
    later = NOW + timedelta(seconds=1)
    assert not RULES.may_view(ALICE, "alice", later)
    shown = Administration(Audience(), Audience(), owner_may_view=True)
    assert shown.may_view(ALICE, "alice", later)
    assert not shown.may_view(ALICE, "bob", later)
    assert not shown.may_list_recordings(ALICE, "bob")
    assert not shown.may_list_recordings(ALICE, "")


def test_a_recording_from_before_a_user_was_added_is_an_earlier_users() -> None:
    shown = Administration(Audience(), Audience(), owner_may_view=True)
    assert not shown.may_view(ALICE, "alice", NOW - timedelta(seconds=1))
    assert not shown.may_view(User("alice", id="a"), "alice", NOW), "a user whose age is unknown"


def test_viewers_see_recordings_of_all_and_operators_none() -> None:
    assert RULES.may_view(User("vera2"), "alice", NOW - timedelta(days=900))
    assert RULES.may_list_recordings(User("vera2"), "")
    assert not RULES.may_view(OLGA, "alice", NOW)
