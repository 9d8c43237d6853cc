"""Shares: their caps, and what two of them are together."""

import pytest

from proxy.blueprints.sharing import OWNER_ONLY, Cap, Guest, Share, capped, joined
from proxy.model import User

BOB = Guest("bob", "2")
ALL = Share("public", ("b*",), ("Team",), (BOB,), ("crew",))
NAMED = Share("owner", ("b*",), ("Team",), (BOB,), ("crew",))


@pytest.mark.parametrize(
    ("cap", "left"),
    [
        ("owner", OWNER_ONLY),
        ("users", Share(users=("b*",), guests=(BOB,))),
        ("groups", NAMED),
        ("authenticated", Share("authenticated", *(("b*",), ("Team",), (BOB,), ("crew",)))),
        ("public", ALL),
    ],
)
def test_a_cap_leaves_what_it_permits(cap: Cap, left: Share) -> None:
    assert capped(ALL, cap) == left
    assert capped(left, cap) == left


@pytest.mark.parametrize(
    ("share", "widest"),
    [
        (OWNER_ONLY, "owner"),
        (Share(users=("b*",)), "users"),
        (Share(guests=(BOB,)), "users"),
        (Share(guests=(BOB,), guest_groups=("crew",)), "groups"),
        (Share(groups=("Team",)), "groups"),
        (Share("authenticated", users=("b*",)), "authenticated"),
        (ALL, "public"),
    ],
)
def test_the_lowest_cap_that_permits_a_whole_share_leaves_it_as_it_is(share: Share, widest: Cap) -> None:
    assert share.widest == widest
    assert capped(share, widest) == share


def test_two_shares_admit_whom_either_admits() -> None:
    both = joined(
        Share("authenticated", users=("b*",)), Share("owner", guests=(BOB,), guest_groups=("crew",))
    )
    assert both == Share("authenticated", ("b*",), (), (BOB,), ("crew",))
    assert joined(OWNER_ONLY, OWNER_ONLY) == OWNER_ONLY


def test_a_group_that_an_owner_named_is_compared_without_case_and_slash_and_is_no_pattern() -> None:
    carol = User("carol", id="4", groups=("/Crew",))
    assert Share(guest_groups=("crew",)).admits(carol)
    assert not Share(guest_groups=("*",)).admits(carol)
    assert not Share(guest_groups=("crew",)).admits(User("carol", id="4", known_groups=("crew",)))
