from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.errors.workspaces import WorkspaceNotFound, WorkspaceStartFailed
from proxy.model import WorkspaceName
from proxy.workspaces.backend import WorkspaceRecord
from proxy.workspaces.state import State, last_words, read_json, try_lock, write_json

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
