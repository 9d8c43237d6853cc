"""Rules that choose users by patterns."""

import pytest

from proxy.blueprints.audience import may_use
from proxy.model import User


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
    assert bool(may_use(User("alice", groups=("acme/Dev",)), users=users, groups=groups)) is allowed
