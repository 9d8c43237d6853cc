"""What commit 6516e8d left is kept by the code of today: the local backend, on both databases.

Every later change passes through it: users, homes, recordings, session records and settings stay what they
were, and a name that changes hands finds nothing of the earlier user. Pods: tests/cluster.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.settings import load
from tests.contract.directories import cluster
from tests.contract.state_6516e8d import FIXTURE, Tree, bytes_of, restore_database, restore_home, tree
from tests.wire.harness import Fairlead, needs

__all__ = ["cluster"]

pytestmark = [needs("ssh", "ssh-keygen"), pytest.mark.timeout(900)]

WITH_A_WORKSPACE = ("alice+dev", "alice+data", "bob+dev", "root+dev")
KNOWN = ("a", "a-b", "alice", "bob", "carol", "dave", "erin", "root")


class Former(Fairlead):
    """A proxy of today with the state of then."""

    def home_of(self, user_string: str) -> Path:
        return self.workspace(user_string) / "home"

    def homes(self) -> dict[str, Tree]:
        return {path.parent.name: tree(path) for path in sorted(self.home.glob("workspaces/*/home"))}

    def owner_of(self, user_string: str) -> str:
        return str(json.loads((self.workspace(user_string) / "workspace.json").read_text()).get("owner", ""))

    def rows(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.cli(*words, "--json"))
        return found

    def as_user(
        self, user_string: str, command: str, *, key: Path | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        identity = ["-i", str(key)] if key else []
        return self.ssh(command, "-l", user_string, *identity)

    def told(self, *words: str) -> str:
        """Run a command that succeeds and return what it says on stderr."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def new_key(self) -> Path:
        """Make another person's key."""
        file = self.directory / "another_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        return file


@pytest.fixture(params=["sqlite", "postgresql"])
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Former]:
    server = Former(tmp_path)
    restore_home(server.home)
    settings = tmp_path / "settings.yaml"
    settings.write_text((FIXTURE / "settings.yaml").read_text())
    database = request.getfixturevalue("cluster") if request.param == "postgresql" else None
    url = restore_database(request.param, server.home / "fairlead.db", database)
    server.extra_env = {
        "FAIRLEAD_CONFIG": str(settings),
        "FAIRLEAD_IDENTITY__DATABASE_URL": url,
        "FAIRLEAD_WORKSPACE__STOP_HOLD_S": "0",  # a fixture that was made just now is no other
    }
    (server.home / "fixture_key").rename(server.key)
    server.configure_client()
    try:
        yield server
    finally:
        server.close()


def test_every_home_has_the_same_bytes_and_is_recorded_as_its_user_s(former: Former) -> None:
    before = former.homes()
    assert len(before) == 6
    former.start()
    ids = {row["name"]: row["id"] for row in former.rows("user", "list")}
    for who in WITH_A_WORKSPACE:
        user = who.partition("+")[0]
        done = former.as_user(who, "cat notes secret; deep/er/run")
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode() == f"grüße von {user}\nonly {user} reads this\nran\n"
        assert former.owner_of(who) == ids[user]
    # The home that `workspace delete` kept is found again.
    assert former.as_user("dave+dev", "cat secret").stdout == b"only dave reads this\n"
    assert former.owner_of("dave+dev") == ids["dave"]
    assert former.homes() == before


def test_what_nothing_tells_whose_it_is_is_refused_and_an_operator_hands_it_over(former: Former) -> None:
    before = former.homes()
    former.start()
    done = former.as_user("carol+dev", "cat secret")
    assert (done.returncode, done.stdout) == (254, b"")
    name = former.workspace("carol+dev").name
    assert f"workspace {name} is older than the user carol of today" in done.stderr.decode()
    assert f"fairlead workspace give {name} carol" in done.stderr.decode()
    assert former.as_user(f"carol+pod={name}", "cat secret").returncode == 254
    former.told("workspace", "give", name, "carol")
    assert former.as_user("carol+dev", "cat secret").stdout == b"only carol reads this\n"
    assert former.homes() == before


@pytest.mark.parametrize("was_back", [True, False], ids=["recorded", "not recorded yet"])
def test_a_recycled_name_finds_none(former: Former, was_back: bool) -> None:
    """Whether or not the first user was back since owners are recorded."""
    before = former.homes()
    former.start()
    if was_back:
        for who in ("alice+dev", "dave+dev"):
            assert former.as_user(who, "true").returncode == 0
        # A program of the first user that outlives the connection.
        started = former.as_user("alice+dev", "setsid sleep 12345 > /dev/null 2>&1 & echo $!")
        command = Path("/proc", started.stdout.decode().strip(), "cmdline")
        assert b"12345" in command.read_bytes()
    first = former.workspace("alice+dev").name
    told = former.told("user", "remove", "alice")
    assert f"workspace {first} is stopped; it stays with its home" in told
    assert "fairlead workspace give NAME USER" in told
    if was_back:
        assert not command.exists() or b"12345" not in command.read_bytes()
    told = former.told("user", "remove", "dave")
    assert ("dave" in told.partition("\n")[2]) == was_back, (
        "where nothing is noted of a home, its name says nothing"
    )
    key = former.new_key()
    for name in ("alice", "dave"):
        former.cli("user", "add", name, "--key", f"{key}.pub")
    for who in ("alice+dev", "alice+data", "alice"):
        done = former.as_user(who, "cat notes secret 2>/dev/null; ls", key=key)
        assert (done.returncode, done.stdout) == (0, b""), (who, done.stderr)
    assert former.as_user(f"alice+pod={first}", "cat secret", key=key).returncode == 255
    dave = former.as_user("dave", "cat secret; ls", key=key)
    assert b"only dave" not in dave.stdout
    if not was_back:  # nothing says whose the kept home was
        assert b"is older than the user dave of today" in dave.stderr
    rows = {row["name"]: row for row in former.rows("workspace", "list")}
    own = [name for name, row in rows.items() if row["user"] == "alice" and name not in before]
    assert len(own) == 2, "dev, which is the default, and data"
    assert len({rows[name]["owner"] for name in own} | {rows[first]["owner"]}) == 2
    assert {name: homes for name, homes in former.homes().items() if name in before} == before
    # An operator can hand it over, to any user.
    former.told("workspace", "give", first, "bob")
    done = former.as_user(f"bob+pod={first}", "cat secret")
    assert (done.returncode, done.stdout) == (0, b"only alice reads this\n")


def test_a_workspace_of_a_removed_user_is_deleted_when_that_is_asked_for(former: Former) -> None:
    before = former.homes()
    former.start()
    name = former.workspace("bob").name
    told = former.told("user", "remove", "bob", "--workspaces", "delete")
    assert f"workspace {name} is deleted; its home stays" in told
    assert name not in {row["name"] for row in former.rows("workspace", "list")}
    assert former.homes() == before
    key = former.new_key()
    former.cli("user", "add", "bob", "--key", f"{key}.pub")
    assert former.as_user("bob", "ls", key=key).stdout == b""
    former.told("workspace", "give", name, "alice")
    assert former.as_user("alice+dev", "true").returncode == 0
    former.cli("workspace", "delete", "--purge", name)
    assert not former.home_of("bob").exists()


def test_users_records_and_recordings_are_read(former: Former) -> None:
    former.cli("database", "upgrade")
    users = {row["name"]: row for row in former.rows("user", "list")}
    assert tuple(sorted(users)) == KNOWN
    assert len({row["id"] for row in users.values()}) == len(KNOWN)
    assert len({row["uid"] for row in users.values()}) == len(KNOWN)
    assert users["erin"]["subject"] == "1"
    (waiting,) = former.rows("onboarding", "list")
    assert (waiting["name"], waiting["status"]) == ("frank", "waitlisted")
    sessions = former.rows("session", "list", "--all", "--days", "36500")
    assert {row["user"] for row in sessions} == {"alice", "bob", "carol", "dave", "root"}
    assert all(row["ended_at"] for row in sessions)
    recordings = former.rows("session", "recordings", "list")
    assert len(recordings) == 3
    for row in recordings:
        assert former.cli("session", "verify", row["id"]).startswith("intact")


def test_every_setting_of_then_is_taken_and_means_the_same(tmp_path: Path) -> None:
    settings = json.loads((FIXTURE / "every-setting.json").read_text())
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    now = load(file=file, overrides={}).model_dump(mode="json")

    def kept(then: Any, today: Any, where: str) -> None:
        if isinstance(then, dict) and isinstance(today, dict):
            for key, value in then.items():
                assert key in today, f"{where}{key} is gone"
                kept(value, today[key], f"{where}{key}.")
        else:
            assert then == today, where

    kept(settings, now, "")


def test_the_fixture_has_a_file_that_only_its_owner_reads() -> None:
    entries = {entry["path"]: entry for entry in json.loads((FIXTURE / "home.json").read_text())}
    secrets = [entry for path, entry in entries.items() if path.endswith("/home/secret")]
    assert len(secrets) == 6
    assert all(entry["mode"] == 0o600 and b"reads this" in bytes_of(entry["data"]) for entry in secrets)
