"""`fairlead database`, and what every other command does without a database."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proxy.storage.migrate import HEAD
from tests.unit.proxy.commandline import Run

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJNXJ0rwcTs0CZYOsFMeHLjUUiWYOovhTAlU3HMn9Gc3"

LOOKING = [
    ("user", "list"),
    ("user", "show", "alice"),
    ("user", "add", "alice"),
    ("user", "remove", "alice"),
    ("user", "lock", "alice"),
    ("user", "import", "-", "--format", "json"),
    ("key", "list", "alice"),
    ("key", "remove", "alice", "SHA256:x"),
    ("onboarding", "list"),
    ("onboarding", "approve", "1"),
    ("session", "list"),
    ("session", "list", "--all"),
    ("session", "show", "x"),
    ("session", "kill", "x"),
    ("database", "show"),
    ("database", "accept"),
]


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_no_command_makes_a_database(fairlead: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = fairlead(*words, stdin="[]")
    assert done.returncode == 1
    assert done.stderr == (
        f"fairlead: there is no database {tmp_path}/home/fairlead.db: "
        "`fairlead database upgrade`, or a proxy that starts, makes it\n"
    )
    assert not list((tmp_path / "home").glob("*.db*"))


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_no_command_makes_a_table(fairlead: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "home").mkdir()
    (file := tmp_path / "home" / "fairlead.db").touch()
    done = fairlead(*words, stdin="[]")
    assert done.returncode == 1
    assert done.stderr.startswith("fairlead: the database is empty: `fairlead database upgrade`")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []


def test_a_blueprint_can_be_tried_without_a_database(fairlead: Run, tmp_path: Path) -> None:
    blueprints = tmp_path / "home" / "blueprints"
    blueprints.mkdir(parents=True)
    (blueprints / "dev.yaml").write_text("description: a shell\n")
    assert "name: dev" in fairlead("blueprint", "render", "alice+dev").stdout
    assert not list((tmp_path / "home").glob("*.db*"))


def test_one_command_makes_a_database_and_the_others_go_on(fairlead: Run) -> None:
    made = fairlead("database", "upgrade")
    assert made.returncode == 0
    assert fairlead("user", "add", "alice", "--key", "-", stdin=KEY).returncode == 0
    shown = json.loads(fairlead("database", "show", "--json").stdout)
    assert made.stderr == (
        f"the database has schema {HEAD}, and belongs to installation {shown['installation']}\n"
    )
    assert shown == {
        "installation": shown["installation"],
        "schema": HEAD,
        "users": 1,
        "keys": 1,
        "expected_users": 1,
        "expected_keys": 1,
        "is_whole": True,
    }
    assert "installation:    " in fairlead("database", "show").stdout
    assert fairlead("database", "upgrade").stderr == made.stderr


def test_a_loss_is_shown_and_can_be_accepted(fairlead: Run, tmp_path: Path) -> None:
    fairlead("database", "upgrade")
    for name in ("alice", "bob"):
        fairlead("user", "add", name)
    assert fairlead("database", "accept").stderr == "nothing is lost\n"
    with closing(sqlite3.connect(tmp_path / "home" / "fairlead.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM users")
    assert json.loads(fairlead("database", "show", "--json").stdout)["is_whole"] is False
    assert fairlead("database", "accept").stderr == (
        "the directory holds 0 of 2 users, and no command removed the others; they count as removed now\n"
    )
    assert json.loads(fairlead("database", "show", "--json").stdout)["is_whole"] is True


def test_a_newer_command_leaves_an_older_database_as_it_is(fairlead: Run, tmp_path: Path) -> None:
    fairlead("database", "upgrade")
    with closing(sqlite3.connect(tmp_path / "home" / "fairlead.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0002'")
        connection.execute("DROP TABLE installation")
        before = connection.execute("SELECT sql FROM sqlite_master").fetchall()
        done = fairlead("user", "list")
        assert done.stderr.startswith(
            f"fairlead: the database has schema 0002 and this release needs {HEAD}: start a proxy of this "
        )
        assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == before
