"""Stops that connections respect, and what the person reads then."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.blueprints.schema import Blueprint
from proxy.errors import EXIT_REFUSED, exit_status_of
from proxy.errors.programs import WorkspaceHeld
from proxy.model import User, WorkspaceName
from proxy.userstring import parse
from proxy.workspaces.backend import Stop, WorkspaceRequest
from proxy.workspaces.stop_holds import ago, check_hold, duration, held_for

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def request(hold_s: float = 900) -> WorkspaceRequest:
    value = parse("alice+dev+user=postgres")
    return WorkspaceRequest(
        WorkspaceName("alice-1"), User("alice"), Blueprint(name="dev"), value, hold_s=hold_s
    )


def stopped(by: str, minutes: float = 2, reason: str = "") -> Stop:
    return Stop(by, datetime.now(UTC) - timedelta(minutes=minutes), reason)


@pytest.mark.parametrize(
    ("by", "passed_s", "left_s"),
    [
        ("alice", 0, 900),
        ("alice", 899, 1),
        ("alice", 900, 0),
        ("cli:root", 0, 900),
        ("idle", 0, 0),
        ("lifetime", 0, 0),
    ],
)
def test_how_long(by: str, passed_s: float, left_s: float) -> None:
    left = held_for(by, NOW, NOW + timedelta(seconds=passed_s), 900)
    assert left == timedelta(seconds=left_s)


def test_what_is_not_held() -> None:
    check_hold(None, request())
    check_hold(stopped("idle"), request())
    check_hold(stopped("alice", minutes=16), request())
    check_hold(stopped("alice"), request(hold_s=0))


def test_the_sentence_says_who_when_how_long_and_what_to_do() -> None:
    with pytest.raises(WorkspaceHeld) as held:
        check_hold(stopped("alice"), request())
    text = held.value.user_message
    assert "stopped by you 3 minutes ago" in text
    assert "for 13 minutes" in text
    assert text.endswith("ssh -s alice+dev+user=postgres@HOST workspace-start")
    assert exit_status_of(held.value) == EXIT_REFUSED
    assert not held.value.retryable


def test_an_operator_has_no_name_but_may_have_a_reason() -> None:
    with pytest.raises(WorkspaceHeld, match=r"by an operator \(a new disk\) ") as held:
        check_hold(stopped("cli:root", reason="a new disk"), request())
    assert "root" not in str(held.value)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "60 seconds"),
        (61, "2 minutes"),
        (3600, "60 minutes"),
        (8 * 3600, "8 hours"),
        (86_400 * 3, "3 days"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


def test_just_now() -> None:
    assert ago(timedelta(milliseconds=5)) == "just now"
