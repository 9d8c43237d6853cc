"""Decisions, each with its reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.access import policy
from proxy.blueprints.sharing import OWNER_ONLY, Guest, Share
from proxy.model import (
    VISITOR,
    Anonymous,
    Exec,
    KeyProof,
    Principal,
    Shell,
    SshAgentBind,
    Subsystem,
    TcpTarget,
    UnixTarget,
    User,
    Visit,
    WebSession,
)
from tests.fakes.visits import KEY, PEER, visit_of

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


ALICE, BOB = User("alice", id="1"), User("bob", id="2")
OWN = visit_of("alice+dev", ALICE)
OTHERS = Visit(Principal(PEER, BOB, KeyProof(KEY)), ALICE, OWN.address)
"""bob in a workspace of alice."""
RECYCLED = Visit(Principal(PEER, User("alice", id="3"), KeyProof(KEY)), ALICE, OWN.address)
"""A later user of the same name."""
WITHOUT_IDS = Visit(Principal(PEER, User("bob"), KeyProof(KEY)), User("alice"), OWN.address)
BROWSER = Visit(Principal(PEER, ALICE, WebSession("session")), ALICE, OWN.address)
STRANGER = Visit(Principal(PEER, VISITOR, Anonymous()), ALICE, OWN.address)
STRANGER_OF_NONE = Visit(Principal(PEER, VISITOR, Anonymous()), VISITOR, OWN.address)
PAIRED = Visit(Principal(PEER, ALICE, WebSession("session", KeyProof(KEY))), ALICE, OWN.address)

TARGET = TcpTarget("localhost", 8080)
ASKED = {
    "run a shell": lambda visit: policy.may_run(visit, Shell()),
    "run a command": lambda visit: policy.may_run(visit, Exec("id")),
    "run sftp": lambda visit: policy.may_run(visit, Subsystem("sftp")),
    "stop": lambda visit: policy.may_control(visit, "workspace-stop"),
    "dial a port": lambda visit: policy.may_dial(visit, TARGET),
    "dial a socket": lambda visit: policy.may_dial(visit, UnixTarget("/run/x.sock")),
    "listen at a port": lambda visit: policy.may_listen(visit, TARGET),
    "listen for an ssh-agent": lambda visit: policy.may_listen(visit, SshAgentBind("a.sock")),
    "accept": policy.may_accept,
    "open an app": lambda visit: policy.may_open(visit, OWNER_ONLY, NOW),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_workspace_is_its_owner_s(asked: str) -> None:
    assert ASKED[asked](OWN)
    assert ASKED[asked](PAIRED)
    for other in (OTHERS, RECYCLED, WITHOUT_IDS, STRANGER, STRANGER_OF_NONE):
        assert ASKED[asked](other).reason == "this workspace belongs to another user"


def test_a_browser_has_no_ssh_agent() -> None:
    assert policy.may_listen(BROWSER, SshAgentBind("a.sock")).reason == (
        "an ssh-agent is forwarded by SSH clients only"
    )
    assert policy.may_listen(BROWSER, TARGET)
    assert policy.may_run(BROWSER, Shell())


def test_what_is_not_there_is_refused_with_what_is() -> None:
    assert policy.may_run(OWN, Subsystem("netconf")).reason == (
        "no subsystem 'netconf'; there is sftp, workspace-start, workspace-status, workspace-stop"
    )
    assert policy.may_control(OWN, "workspace-burn").reason == (
        "no command 'workspace-burn'; there is workspace-start, workspace-status, workspace-stop"
    )


def test_a_public_app_is_everybody_s() -> None:
    for visit in (OWN, OTHERS, RECYCLED, STRANGER):
        assert policy.may_open(visit, Share("public"), NOW)


@pytest.mark.parametrize(
    ("share", "admitted"),
    [
        (OWNER_ONLY, {"alice"}),
        (Share("authenticated"), {"alice", "bob", "carol", "later bob"}),
        (Share("public"), {"alice", "bob", "carol", "later bob", "visitor"}),
        (Share(users=("b*",)), {"alice", "bob", "later bob"}),
        (Share(groups=("Team*",)), {"alice", "carol"}),
        (Share(guests=(Guest("bob", "2"),)), {"alice", "bob"}),
        (Share(guest_groups=("team",)), {"alice", "carol"}),
        (Share(guest_groups=("tea*",)), {"alice"}),
        (Share(users=("*",), groups=("*",)), {"alice", "bob", "carol", "later bob"}),
    ],
)
def test_a_share_admits_those_it_names_and_a_visitor_only_where_it_is_public(
    share: Share, admitted: set[str]
) -> None:
    users = {
        "alice": ALICE,
        "bob": User("bob", id="2"),
        "later bob": User("bob", id="9"),
        "carol": User("carol", id="4", groups=("/Team",)),
        "visitor": VISITOR,
    }
    visits = {
        name: Visit(Principal(PEER, user, Anonymous()), ALICE, OWN.address) for name, user in users.items()
    }
    assert {name for name, visit in visits.items() if policy.may_open(visit, share, NOW)} == admitted


@pytest.mark.parametrize(
    "share", [Share("public"), Share("authenticated"), Share(guests=(Guest("bob", "2"),))]
)
def test_a_shared_app_is_closed_while_its_owner_or_the_user_may_not_log_in(share: Share) -> None:
    bob, locked = User("bob", id="2"), replace(ALICE, locked=True)
    for actor, owner, reason in (
        (bob, locked, "this app is not shared with you any more"),
        (bob, replace(ALICE, expires_at=NOW), "this app is not shared with you any more"),
        (replace(bob, locked=True), ALICE, "this user is locked"),
        (locked, locked, "this user is locked"),
    ):
        visit = Visit(Principal(PEER, actor, WebSession("session")), owner, OWN.address)
        assert policy.may_open(visit, share, NOW).reason == reason
