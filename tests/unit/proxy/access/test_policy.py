"""Decisions, each with its reason."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.access import policy
from proxy.access.policy import Ceiling, Held
from proxy.model import User
from proxy.settings.blueprints import PersonRule

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


def test_who_loses_the_account_that_vouched_for_the_key_is_told_where() -> None:
    gone = {"ended_at_provider": "company"}
    assert policy.may_stay(User("alice"), True, NOW, **gone).reason == (
        "company does not vouch for this account any more; log in again to ask it"
    )
    assert policy.may_stay(User("alice", locked=True), True, NOW, **gone).reason == "this user is locked"


@pytest.mark.parametrize(
    ("users", "groups", "allowed"),
    [
        ((), (), True),
        (("alice",), (), True),
        (("al*",), (), True),
        (("bob",), (), False),
        ((), ("ACME/dev",), True),
        ((), ("acme",), False),
        ((), ("acme/*",), True),
        (("bob",), ("/acme/dev/",), True),
    ],
)
def test_what_is_for_some_is_for_whoever_one_pattern_matches(
    users: tuple[str, ...], groups: tuple[str, ...], allowed: bool
) -> None:
    assert bool(policy.may_use(User("alice", groups=("acme/Dev",)), users=users, groups=groups)) is allowed


def test_the_first_rule_that_gives_a_value_gives_it() -> None:
    rules = (
        PersonRule(users=("alice",), max_running=1),
        PersonRule(groups=("ml",), default="gpu", max_workspaces=5),
        PersonRule(default="small", max_workspaces=2, max_running=2),
    )
    alice, bob, carol = User("alice"), User("bob", groups=("ml",)), User("carol")
    assert [policy.default_blueprint(user, rules, "dev") for user in (alice, bob)] == ["small", "gpu"]
    assert policy.default_blueprint(alice, rules[:2], "dev") == "dev"
    assert policy.ceiling_of(alice, rules) == Ceiling(2, 1)
    assert policy.ceiling_of(bob, rules) == Ceiling(5, 2)
    assert policy.ceiling_of(carol, rules[:2]) == Ceiling(None, None)


HELD = (Held("a-1", "dev", running=True), Held("a-2", "gpu", running=False))


@pytest.mark.parametrize(
    ("ceiling", "exists", "reason"),
    [
        (Ceiling(), False, ""),
        (Ceiling(3, 2), False, ""),
        (
            Ceiling(total=2),
            False,
            "you may have 2 workspaces and have a-1 (dev), a-2 (gpu); delete one, "
            "or ask an operator for more",
        ),
        (Ceiling(total=2), True, ""),
        (
            Ceiling(running=1),
            True,
            "you may have 1 workspace running and have a-1 (dev); stop one, or ask an operator for more",
        ),
    ],
)
def test_a_ceiling_of_a_person_says_what_is_in_the_way(ceiling: Ceiling, exists: bool, reason: str) -> None:
    assert policy.may_own(ceiling, HELD, exists=exists).reason == reason


@pytest.mark.parametrize(
    ("ceiling", "exists", "reason"),
    [
        (Ceiling(3, 2), False, ""),
        (Ceiling(total=2), False, "room for 2 workspaces of all users together"),
        (Ceiling(total=2), True, ""),
        (Ceiling(running=1), True, "room for 1 workspace running"),
        (Ceiling(running=0), True, "room for no workspace running"),
    ],
)
def test_a_ceiling_of_a_blueprint_names_nobody_s_workspaces(
    ceiling: Ceiling, exists: bool, reason: str
) -> None:
    said = policy.may_fill("gpu", ceiling, HELD, exists=exists).reason
    assert reason in said
    assert bool(said) is bool(reason)
    assert "a-1" not in said


@pytest.mark.parametrize(
    "name", ["root", "daemon", "nobody", "www-data", "postgres", "_apt", "systemd-network"]
)
def test_names_of_system_accounts_are_reserved(name: str) -> None:
    assert policy.may_be_account(name).reason == f"the user name {name} is reserved: it is a system account's"


@pytest.mark.parametrize("name", ["alice", "rooty", "a_b", "roots", "dev", "ci-bot"])
def test_names_of_people_are_not_reserved(name: str) -> None:
    assert policy.may_be_account(name)
