import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.blueprints.schema import Blueprint
from proxy.errors.workspaces import WorkspaceNotFound, WorkspaceStartFailed
from proxy.model import Endpoint, User, WorkspaceName
from proxy.userstring import UserString
from proxy.workspaces.backend import WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.local.state import State, last_words, read_json, try_lock, write_json
from proxy.workspaces.pending_starts import PendingStart, PendingStarts

RECORD = WorkspaceRecord(WorkspaceName("ws-1"), "alice", "dev", datetime(2026, 1, 2, 3, 4, tzinfo=UTC))


@pytest.fixture
def state(tmp_path: Path, short_dir: Path) -> State:
    return State(tmp_path, short_dir)


def test_a_record_is_read_back(state: State) -> None:
    state.make(state.places("ws-1"), RECORD)
    assert state.record("ws-1") == RECORD
    assert list(state.records()) == [RECORD]


def test_a_record_is_written_once(state: State) -> None:
    """Whoever comes second does not become the owner."""
    state.make(state.places("ws-1"), RECORD)
    state.make(state.places("ws-1"), WorkspaceRecord(RECORD.name, "mallory", "dev", datetime.now(UTC)))
    assert state.record("ws-1") == RECORD


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"user": "alice"}', '{"created_at": 1}', "\udcff"])
def test_a_broken_record_lets_nobody_in_and_hides_no_other(state: State, content: str) -> None:
    for name in ("ws-1", "ws-2"):
        state.make(state.places(name), RECORD)
    state.places("ws-2").record.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(WorkspaceStartFailed, match="cannot be read") as caught:
        state.record("ws-2")
    assert "/" not in caught.value.user_message
    assert list(state.records()) == [RECORD]


def test_a_home_begins_as_a_copy_of_the_skeleton(state: State) -> None:
    places = state.places("ws-1")
    state.make(places, RECORD)
    there = {path.name for path in Path("/etc/skel").glob("*")} if Path("/etc/skel").is_dir() else set()
    assert {path.name for path in places.home.iterdir()} == there
    assert places.home.stat().st_mode & 0o777 == 0o700
    (places.home / "mine").touch()
    state.make(places, RECORD)
    assert (places.home / "mine").exists()


def test_a_home_that_was_half_made_is_made_again(state: State) -> None:
    places = state.places("ws-1")
    (places.root / "home.new" / "rest").mkdir(parents=True)
    state.make(places, RECORD)
    assert not (places.home / "rest").exists()


def test_the_directory_of_all_workspaces_may_be_missing(state: State) -> None:
    assert list(state.records()) == []
    assert state.record("ws-1") is None


def test_socket_paths_leave_room_for_the_name_of_an_ssh_agent_socket(tmp_path: Path) -> None:
    """`ssh-agent-ux-{proxy-id}-{proxy-pid}-{channel}.sock` with the longest of each, in 107 bytes."""
    longest = State(tmp_path / ("long" * 20)).places("a" * 128).runtime
    widest_uid = str(longest).replace("fairlead-0-", "fairlead-4294967294-")
    assert len(f"{widest_uid}/ssh-agent-ux-{'p' * 31}-4194304-999999.sock") <= 107


def test_two_installations_share_no_sockets(tmp_path: Path) -> None:
    assert State(tmp_path / "a").runtime != State(tmp_path / "b").runtime
    assert State(tmp_path / "a").runtime == State(tmp_path / "b" / ".." / "a").runtime


@pytest.mark.parametrize("name", ["..", "", "a/b", "-", "a\n"])
def test_a_name_is_never_a_path(state: State, name: str) -> None:
    with pytest.raises(WorkspaceNotFound, match="cannot be the name"):
        state.places(name)


def test_files_are_replaced_whole_and_private(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    write_json(file, {"b": "ü"})
    assert read_json(file) == {"b": "ü"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    file.write_text("[1]")
    assert read_json(file) == {}
    assert read_json(tmp_path / "none") == {}


def test_last_words_are_those_of_this_start_and_few(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("old\nnew\n")
    assert last_words(file, since=4) == "new"
    assert last_words(file, since=400) == ""
    file.write_text("x" * 5_000 + "end")
    assert last_words(file, since=0, most=10) == "xxxxxxxend"
    assert last_words(tmp_path / "none", since=0) == ""


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with try_lock(file) as mine, try_lock(file) as theirs:
        assert (mine, theirs) == (True, False)
    with try_lock(file) as again:
        assert again


def test_the_owner_is_written_and_changes_hands(state: State) -> None:
    places = state.places("ws-1")
    state.make(places, replace(RECORD, owner="first"))
    assert state.holder("ws-1") == state.record("ws-1") == replace(RECORD, owner="first")
    state.give(places, User("bob", id="second"))
    assert state.record("ws-1") == replace(RECORD, user="bob", owner="second")


def test_a_home_that_is_kept_stays_its_owner_s_until_it_is_purged(state: State) -> None:
    places = state.places("ws-1")
    state.make(places, replace(RECORD, owner="first"))
    (places.home / "file").write_text("kept")
    state.forget(places, purge=False)
    assert state.record("ws-1") is None
    assert list(state.records()) == []
    assert state.holder("ws-1") == replace(RECORD, owner="first")
    state.give(places, User("bob", id="second"))
    assert state.record("ws-1") is None
    assert state.holder("ws-1") == replace(RECORD, user="bob", owner="second")
    state.make(places, replace(RECORD, user="bob", owner="second"))
    assert not places.kept.exists()
    assert (places.home / "file").read_text() == "kept"
    state.forget(places, purge=True)
    assert state.holder("ws-1") is None


def test_a_home_that_an_older_release_kept_is_as_old_as_its_lock(state: State) -> None:
    places = state.places("ws-1")
    places.home.mkdir(parents=True)
    made_at = datetime(2026, 1, 2, tzinfo=UTC)
    unknown = state.holder("ws-1")
    assert unknown is not None
    assert unknown.created_at.year == 1, "no user is older, so an operator decides"
    places.lock.touch()
    os.utime(places.lock, (made_at.timestamp(), made_at.timestamp()))
    found = state.holder("ws-1")
    assert found is not None
    assert (found.user, found.owner, found.created_at) == ("", "", made_at)


async def test_a_start_is_joined_by_its_own_user_only() -> None:
    """A name may change hands while its workspace is being started."""
    starts, going_on = PendingStarts(timeout_s=60), asyncio.Event()

    async def carry(start: PendingStart) -> Endpoint:
        await going_on.wait()
        return Endpoint(RECORD.name, "unix:///nowhere", "1")

    def asked(owner: str) -> WorkspaceRequest:
        user = User("alice", id=owner)
        return WorkspaceRequest(RECORD.name, user, Blueprint(name="dev"), UserString("alice"))

    first = asyncio.ensure_future(starts.join(asked("first"), lambda _: None, carry))
    await asyncio.sleep(0)
    with pytest.raises(WorkspaceNotFound, match="no workspace 'ws-1' of alice"):
        await starts.join(asked("second"), lambda _: None, carry)
    going_on.set()
    assert (await first).workspace == RECORD.name
    await starts.close()
