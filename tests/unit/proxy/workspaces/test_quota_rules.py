"""How many workspaces a user, or a blueprint, may have."""

import pytest

from proxy.blueprints.resolve import default_blueprint
from proxy.model import User
from proxy.settings.blueprints import PersonRule
from proxy.workspaces.quotas import Ceiling, CountedWorkspace, ceiling_of, may_fill, may_own


def test_the_first_rule_that_gives_a_value_gives_it() -> None:
    rules = (
        PersonRule(users=("alice",), max_running=1),
        PersonRule(groups=("ml",), default="gpu", max_workspaces=5),
        PersonRule(default="small", max_workspaces=2, max_running=2),
    )
    alice, bob, carol = User("alice"), User("bob", groups=("ml",)), User("carol")
    assert [default_blueprint(user, rules, "dev") for user in (alice, bob)] == ["small", "gpu"]
    assert default_blueprint(alice, rules[:2], "dev") == "dev"
    assert ceiling_of(alice, rules) == Ceiling(2, 1)
    assert ceiling_of(bob, rules) == Ceiling(5, 2)
    assert ceiling_of(carol, rules[:2]) == Ceiling(None, None)


HELD = (CountedWorkspace("a-1", "dev", running=True), CountedWorkspace("a-2", "gpu", running=False))


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
    assert may_own(ceiling, HELD, exists=exists).reason == reason


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
    said = may_fill("gpu", ceiling, HELD, exists=exists).reason
    assert reason in said
    assert bool(said) is bool(reason)
    assert "a-1" not in said
