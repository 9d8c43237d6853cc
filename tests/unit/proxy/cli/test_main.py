"""The command line: output, exit status, nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.proxy.commandline import Run

pytestmark = pytest.mark.usefixtures("database")

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJNXJ0rwcTs0CZYOsFMeHLjUUiWYOovhTAlU3HMn9Gc3"


def test_users_and_keys(fairlead: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_text(f"{KEY} laptop\n")
    assert fairlead("user", "add", "alice", "--key", str(tmp_path / "a.pub")).returncode == 0
    assert fairlead("user", "add", "bob", "--full-name", "Bob", "--key", "-", stdin=KEY).returncode == 0
    assert fairlead("user", "lock", "bob").returncode == 0
    users = json.loads(fairlead("user", "list", "--json").stdout)
    assert [(user["name"], user["full_name"], user["locked"], user["keys"]) for user in users] == [
        ("alice", "", False, 1),
        ("bob", "Bob", True, 1),
    ]
    (key,) = json.loads(fairlead("key", "list", "alice", "--json").stdout)
    assert (key["line"], key["comment"], key["origin"]) == (f"{KEY} laptop", "laptop", "static")
    assert fairlead("key", "list", "alice").stdout.split("\t")[0] == key["fingerprint"]
    assert "0 new keys" in fairlead("key", "add", "alice", "-", stdin=KEY).stderr
    assert fairlead("key", "remove", "alice", key["fingerprint"]).returncode == 0
    shown = json.loads(fairlead("user", "show", "alice", "--json").stdout)
    assert shown["keys"] == 0
    assert shown["public_keys"] == []
    assert fairlead("user", "unlock", "bob").returncode == 0
    assert fairlead("user", "remove", "alice").returncode == 0
    assert fairlead("user", "list").stdout.startswith("bob\tBob\t\t1\t\t")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("user", "show", "nobody"), 1, "fairlead: there is no user nobody\n"),
        (
            ("user", "add", "Alice"),
            1,
            "fairlead: 'Alice' cannot be a user name: ssh would be read as user 'alice'\n",
        ),
        (
            ("user", "add", "alice", "--key", "/nowhere.pub"),
            1,
            "fairlead: /nowhere.pub: No such file or directory\n",
        ),
        (("user", "add", "alice", "--key", "-"), 1, "fairlead: stdin: there is no public key in it\n"),
        (("key", "remove", "nobody", "SHA256:x"), 1, "fairlead: there is no user nobody\n"),
        (("workspace", "stop", "nope"), 1, "fairlead: there is no workspace 'nope'\n"),
        (("--config", "/nowhere.yaml", "settings"), 78, "fairlead: /nowhere.yaml: "),
        (("serve", "--listen", "nonsense"), 78, "fairlead: listen: "),
    ],
)
def test_a_failure_is_one_sentence(fairlead: Run, words: tuple[str, ...], status: int, said: str) -> None:
    done = fairlead(*words)
    assert done.returncode == status
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_bad_key_leaves_no_user_behind(fairlead: Run) -> None:
    assert fairlead("user", "add", "alice", "--key", "-", stdin=f"{KEY}\nssh-dss AAAA\n").returncode == 1
    assert json.loads(fairlead("user", "list", "--json").stdout) == []


def test_settings_are_shown_as_they_are_in_effect(fairlead: Run) -> None:
    shown = json.loads(fairlead("settings", "--json", FAIRLEAD_RELAY__BUFFER_BYTES="8192").stdout)
    assert shown["relay"]["buffer_bytes"] == 8_192
    assert "buffer_bytes: 8192" in fairlead("settings", FAIRLEAD_RELAY__BUFFER_BYTES="8192").stdout


def test_blueprints_are_listed_and_checked(fairlead: Run, tmp_path: Path) -> None:
    directory = tmp_path / "home" / "blueprints"
    directory.mkdir(parents=True)
    (directory / "dev.yaml").write_text("description: a shell\n")
    assert fairlead("blueprint", "list").stdout == "dev\tyes\ta shell\n"
    assert fairlead("blueprint", "check").returncode == 0
    (directory / "two.yaml").write_text("name: dev\n")
    (row,) = [row for row in json.loads(fairlead("blueprint", "check", "--json").stdout) if not row["ok"]]
    assert (row["where"], row["reason"]) == ("two.yaml:1: name", "dev is the name of dev.yaml already")
    (directory / "two.yaml").unlink()
    (directory / "bad.yaml").write_text("\nx: 1\n")
    done = fairlead("blueprint", "check", str(directory / "bad.yaml"))
    assert (done.returncode, done.stdout.split("\t")[2:]) == (
        1,
        ["bad.yaml:2: x", "there is no such field\n"],
    )
    assert fairlead("blueprint", "list").stderr == "fairlead: bad.yaml:2: x: there is no such field\n"


def test_no_workspaces_are_an_empty_list(fairlead: Run) -> None:
    assert json.loads(fairlead("workspace", "list", "--json").stdout) == []


def test_the_version_is_said_without_settings(fairlead: Run) -> None:
    done = fairlead("--version", FAIRLEAD_LISTEN="nonsense")
    assert done.stdout.startswith("fairlead ")
    assert done.returncode == 0


@pytest.mark.parametrize("module", ["sqlalchemy", "alembic", "asyncssh", "grpc", "rich.console", "pydantic"])
def test_heavy_modules_are_imported_only_where_they_are_needed(module: str) -> None:
    code = f"import sys, proxy.cli.main; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "--version"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.startswith(b"fairlead ")
