"""How long a workspace may idle, by the blueprint of its owner."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.blueprints.catalog import DirectoryCatalog
from proxy.errors import FairleadError
from proxy.errors.stores import UserNotFound
from proxy.model import User, WorkspaceName
from proxy.settings.blueprints import BlueprintSettings
from proxy.settings.workspace import WorkspaceSettings
from proxy.workspaces.backend import Features, WorkspaceRecord
from proxy.workspaces.lifetimes import BlueprintLifetimes
from proxy.workspaces.provisioner import Workspaces


class Backend:
    """Holds the one workspace."""

    features = Features()

    async def find(self, name: str) -> WorkspaceRecord | None:
        return RECORD if name == RECORD.name else None

    holder = find


class Directory:
    def __init__(self, user: User | None) -> None:
        self.user = user

    async def find(self, name: str) -> User | None:
        return self.user


def bounds(directory: Path, user: User | None) -> BlueprintLifetimes:
    (directory / "staff.yaml").write_text("access: {groups: [acme]}\nidle_stop_s: 77\n")
    workspaces = Workspaces(DirectoryCatalog(directory), cast(Any, Backend()), BlueprintSettings())
    return BlueprintLifetimes(workspaces, cast(Any, Directory(user)), WorkspaceSettings())


RECORD = WorkspaceRecord(
    WorkspaceName("alice-1"), "alice", "staff", datetime.now(UTC), user_string="alice+staff", owner="1"
)


async def test_a_workspace_of_groups_that_have_ended_is_stopped_when_idle_all_the_same(
    tmp_path: Path,
) -> None:
    """Its user is away for longer than groups count, which is when an idle workspace is to be stopped."""
    ended = User("alice", known_groups=("acme",), id="1")
    assert (await bounds(tmp_path, ended)(RECORD)).idle_stop_s == 77


async def test_nobody_knows_the_bounds_of_somebody_elses_blueprint(tmp_path: Path) -> None:
    with pytest.raises(FairleadError):
        await bounds(tmp_path, User("alice", id="1"))(RECORD)
    with pytest.raises(UserNotFound):
        await bounds(tmp_path, None)(RECORD)
