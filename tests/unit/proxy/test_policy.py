"""Decisions, each with its reason."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy import policy
from proxy.model import User

NOW = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)
A_MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        (User("alice"), ""),
        (User("alice", locked=True), "this user is locked"),
        (User("alice", expires_at=NOW + A_MOMENT), ""),
        (User("alice", expires_at=NOW), "this user expired on 2026-05-06 at 07:08 UTC"),
        (User("alice", locked=True, expires_at=NOW), "this user is locked"),
    ],
)
def test_who_may_log_in(user: User, reason: str) -> None:
    decision = policy.may_login(user, NOW)
    assert decision.reason == reason
    assert bool(decision) == (not reason)


@pytest.mark.parametrize(
    ("user", "has_key", "reason"),
    [
        (User("alice"), True, ""),
        (User("alice"), False, "the key of this connection was removed"),
        (None, True, "this user was removed"),
        (None, False, "this user was removed"),
        (User("alice", locked=True), True, "this user is locked"),
    ],
)
def test_who_may_stay(user: User | None, has_key: bool, reason: str) -> None:
    assert policy.may_stay(user, has_key, NOW).reason == reason
