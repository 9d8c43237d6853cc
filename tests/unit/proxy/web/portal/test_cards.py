"""Workspaces as pages show them: phases, reasons, the next stop."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.model import WorkspaceName
from proxy.upstream.frames import Status
from proxy.userstring import format_user_string
from proxy.web.portal.cards import Card, address_of, next_stops, why
from proxy.workspaces.backend import Stop, WorkspacePhase, WorkspaceRecord
from proxy.workspaces.lifetimes import Bounds

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def status(idle_s: float = 0, uptime_s: float = 0, *, draining: bool = False) -> Status:
    return Status(programs=0, connections=0, idle_s=idle_s, uptime_s=uptime_s, draining=draining)


def record(user_string: str = "alice+dev", phase: str = "stopped", **more: object) -> WorkspaceRecord:
    given = {"user_string": user_string, "phase": WorkspacePhase(phase), **more}
    return WorkspaceRecord(WorkspaceName("alice-1"), "alice", "dev", NOW, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bounds", "idle_s", "uptime_s", "said", "is_soon"),
    [
        (Bounds(), 0, 0, ["it does not stop by itself"], False),
        (Bounds(3_600, idle_warn_s=300), 60, 60, ["stops in 59 minutes if nothing happens"], False),
        (Bounds(3_600, idle_warn_s=300), 3_400, 9_000, ["stops in 3 minutes if nothing happens"], True),
        (Bounds(30, idle_warn_s=15), 1, 1, ["stops in less than a minute if nothing happens"], False),
        (Bounds(30, idle_warn_s=15), 20, 20, ["stops in less than a minute if nothing happens"], True),
        (Bounds(0, 7_200), 0, 60, ["stops in 1 hour and 59 minutes in any case: it may run 2 hours"], False),
        (
            Bounds(3_600, 7_200, 300),
            0,
            7_100,
            ["stops in 1 hour if nothing happens", "stops in 1 minute in any case: it may run 2 hours"],
            True,
        ),
    ],
)
def test_the_next_stop_is_said_for_each_limit(
    bounds: Bounds, idle_s: float, uptime_s: float, said: list[str], is_soon: bool
) -> None:
    assert next_stops(bounds, status(idle_s, uptime_s)) == (said, is_soon)


def test_a_workspace_that_is_being_stopped_says_nothing_else() -> None:
    assert next_stops(Bounds(3_600), status(draining=True)) == (["it is being stopped"], True)


def test_a_stop_names_the_user_to_the_user_and_the_operator_to_operators_alone() -> None:
    stop = Stop("olga", datetime.now(UTC) - timedelta(hours=3), "maintenance")
    stopped = record(stop=stop)
    assert why(stopped, None, "alice") == ["stopped by an operator (maintenance), 3 hours ago"]
    assert why(stopped, None, "") == ["stopped by olga (maintenance), 3 hours ago"]
    own = record(stop=Stop("alice", datetime.now(UTC)))
    assert why(own, None, "alice") == ["stopped by you, less than a minute ago"]


def test_a_running_workspace_that_does_not_answer_says_so() -> None:
    assert why(record(phase="running"), None, "alice") == ["it does not say how it is, so far"]
    assert why(record(phase="failed", detail="no such image"), None, "") == ["no such image"]
    assert why(record(phase="running"), status(7_300), "alice") == [
        "nothing runs in it",
        "last activity 2 hours ago",
    ]


def test_the_last_activity_names_the_act_behind_it_and_no_older_one() -> None:
    newest = replace(status(120), why="bob opened lab", why_s=121)
    assert why(record(phase="running"), newest, "alice")[1] == "last activity 2 minutes ago: bob opened lab"
    older = replace(newest, idle_s=10)
    assert why(record(phase="running"), older, "alice")[1] == "last activity less than a minute ago"


@pytest.mark.parametrize(
    ("made_as", "address"),
    [
        ("alice+dev", "alice+dev"),
        ("alice", "alice+dev"),  # the default blueprint may be another one by now
        ("alice+dev+user=root", "alice+dev"),
        ("alice+repo=org/proj+ref=main", "alice+repo=org/proj+ref=main"),
        ("", "alice+pod=alice-1"),
        ("earlier+dev", "alice+pod=alice-1"),  # it was handed over
    ],
)
def test_a_workspace_is_addressed_in_the_name_of_its_owner(made_as: str, address: str) -> None:
    assert format_user_string(address_of(record(made_as), "alice")) == address


def test_acts_are_offered_where_they_change_something() -> None:
    offered = {
        phase: (card.can_start, card.can_stop)
        for phase in ("absent", *(one.value for one in WorkspacePhase))
        for card in [Card("dev", "", "alice+dev", "alice", "dev", phase)]
    }
    assert offered == {
        "absent": (True, False),
        "stopped": (True, False),
        "starting": (False, True),
        "running": (False, True),
        "stopping": (False, False),
        "failed": (True, True),
    }
