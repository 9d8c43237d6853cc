"""Which workspaces are given up because they do not start, and which never are."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from proxy.model import WorkspaceName
from proxy.settings.workspace import WorkspaceSettings
from proxy.workspaces.backend import WorkspacePhase, WorkspaceRecord
from proxy.workspaces.unstarted import Unstarted

AT = datetime(2027, 1, 1, tzinfo=UTC)
FAILED = WorkspaceRecord(WorkspaceName("ws"), "alice", "dev", AT, phase=WorkspacePhase.FAILED)
STARTING = replace(FAILED, phase=WorkspacePhase.STARTING)
SETTINGS = WorkspaceSettings(failed_stop_s=100, start_timeout_s=50)


def test_one_that_failed_is_due_after_its_time_and_one_that_starts_after_more() -> None:
    for record, after_s in ((FAILED, 100), (STARTING, 150)):
        unstarted = Unstarted(SETTINGS)
        assert unstarted.due([record], 1000) == []
        assert unstarted.due([record], 1000 + after_s - 1) == []
        assert unstarted.due([record], 1000 + after_s) == [record]


def test_another_attempt_has_all_of_its_time() -> None:
    unstarted = Unstarted(SETTINGS)
    assert unstarted.due([FAILED], 1000) == []
    assert unstarted.due([STARTING], 1099) == []
    assert unstarted.due([FAILED], 1100) == []
    assert unstarted.due([FAILED], 1200) == [FAILED]


@pytest.mark.parametrize(
    "record",
    [
        replace(STARTING, started_at=AT),  # its container runs, and is too busy for the probe
        replace(FAILED, phase=WorkspacePhase.RUNNING),
        replace(FAILED, phase=WorkspacePhase.STOPPED),
        replace(FAILED, phase=WorkspacePhase.STOPPING),
    ],
)
def test_what_runs_or_is_stopped_is_not_given_up(record: WorkspaceRecord) -> None:
    unstarted = Unstarted(SETTINGS)
    assert unstarted.due([record], 0) == []
    assert unstarted.due([record], 1e9) == []


def test_nothing_is_given_up_where_the_settings_say_never() -> None:
    unstarted = Unstarted(WorkspaceSettings(failed_stop_s=0))
    assert unstarted.due([FAILED], 0) == []
    assert unstarted.due([FAILED], 1e9) == []
