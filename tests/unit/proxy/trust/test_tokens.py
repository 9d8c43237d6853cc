"""Tokens as they are minted, against the verifier that shelld has."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.trust.tokens import Minter, key_file, mint, workspace_key
from shelld.errors import Unauthenticated
from shelld.rpc.token import MAX_LIFETIME_S, Caller, read_keys, verify

MASTER = bytes(range(32))
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


def check(token: str, workspace: str = "ws1", user: str = "alice", after_s: float = 0) -> Caller:
    keys = read_keys(key_file([workspace_key(bytes(32), workspace), workspace_key(MASTER, workspace)]))
    return verify(token, keys=keys, workspace=workspace, user=user, now_s=NOW.timestamp() + after_s)


def test_what_is_minted_is_let_through() -> None:
    minter = Minter(MASTER, 300)
    assert check(minter.token("ws1", "alice", "", NOW)) == Caller("alice", "")
    assert check(minter.token("ws1", "alice", "postgres", NOW)) == Caller("alice", "postgres")


def test_a_token_is_good_for_its_workspace_and_user_alone() -> None:
    token = Minter(MASTER, 300).token("ws1", "alice", "", NOW)
    for workspace, user in [("ws2", "alice"), ("ws1", "bob")]:
        with pytest.raises(Unauthenticated):
            check(token, workspace, user)


def test_the_key_of_a_workspace_signs_for_no_other() -> None:
    """Whoever reads the secrets of ws1 from inside must not be able to call ws2."""
    stolen = workspace_key(MASTER, "ws1")
    forged = mint(
        stolen, workspace="ws2", user="alice", account="", issued_at_s=NOW.timestamp(), lifetime_s=300
    )
    with pytest.raises(Unauthenticated, match="signature"):
        check(forged, "ws2")


def test_a_token_is_used_again_for_half_its_life() -> None:
    minter = Minter(MASTER, 300)
    first = minter.token("ws1", "alice", "", NOW)
    assert minter.token("ws1", "alice", "", NOW + timedelta(seconds=149)) is first
    later = minter.token("ws1", "alice", "", NOW + timedelta(seconds=151))
    assert later != first
    assert minter.token("ws1", "alice", "root", NOW) != first
    check(first, after_s=149)
    check(later, after_s=300)
    # A clock that is put back must not keep a token of the future in use.
    assert minter.token("ws1", "alice", "", NOW - timedelta(hours=1)) not in (first, later)


def test_the_longest_lifetime_of_settings_is_one_that_shelld_takes() -> None:
    check(Minter(MASTER, MAX_LIFETIME_S).token("ws1", "alice", "", NOW))


def test_the_cache_is_bounded() -> None:
    minter = Minter(MASTER, 300)
    for number in range(10_050):
        minter.token(f"ws{number}", "alice", "", NOW)
    assert len(minter._tokens) <= 10_000
