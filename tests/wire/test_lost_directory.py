"""The drill: a directory that is dropped, emptied, restored in stages or replaced, under two live proxies.

With commands in between. No session ends, no known user is offered an onboarding, no command makes a table.
"""

import json
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.postgres import Cluster
from tests.wire.harness import Fairlead, free_port, needs
from tests.wire.newcomer import WIDE_OPEN
from tests.wire.peers import until
from tests.wire.replicas import two_proxies
from tests.wire.test_health import get, samples

pytestmark = needs("ssh", "ssh-keygen")

OFFER = "approve this login in a browser"
SORRY = "login is not possible right now"
COMMANDS = (
    ("user", "list"),
    ("key", "list", "alice"),
    ("onboarding", "list"),
    ("workspace", "list"),
    ("session", "list", "--all"),
    ("session", "kill", "--user", "nobody"),
    ("blueprint", "render", "alice+dev"),
    ("database", "show"),
)
"""Every kind of command that looks into the database, and none that changes a thing."""

SETTINGS = {
    "FAIRLEAD_IDENTITY__RECHECK_S": "0.1",
    "FAIRLEAD_IDENTITY__CENSUS_S": "0.1",
    # A loss of any size waits for an operator: the drill takes its time between two stages.
    "FAIRLEAD_IDENTITY__VANISHED_S": "3600",
    "FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.1",
    "FAIRLEAD_SESSIONS__WRITE_EVERY_S": "0.5",
    "FAIRLEAD_SESSIONS__KILL_POLL_S": "0.1",
    "FAIRLEAD_FRONT_DOOR__PROVIDERS": json.dumps([{"kind": "dev", "accounts": [{"name": "alice"}]}]),
    "FAIRLEAD_FRONT_DOOR__ONBOARDING": json.dumps({**WIDE_OPEN, "otherwise": "allow"}),
}


@dataclass
class Session:
    """A live session on one proxy that gives back every line it is sent."""

    user: str
    server: Fairlead
    client: "subprocess.Popen[bytes]"

    def is_alive(self) -> bool:
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        with suppress(BrokenPipeError):
            self.client.stdin.write(b"there\n")
            self.client.stdin.flush()
        return self.client.stdout.readline() == b"there\n"

    def farewell(self) -> str:
        """Wait for the end and return what ssh said."""
        _, err = self.client.communicate(timeout=60)
        return err.decode()


@dataclass
class Drill:
    """Two proxies on one database, and sessions of three users on both of them."""

    proxies: Sequence[Fairlead]
    pages: Sequence[int]
    """Ports of the health pages."""
    sessions: Sequence[Session]
    elsewhere: Path
    """A home that remembers no installation, as an operator's own machine has."""

    def command(self, *words: str, elsewhere: bool = False) -> "subprocess.CompletedProcess[str]":
        """Run a command, whatever becomes of it."""
        first = self.proxies[0]
        server = Fairlead(self.elsewhere, extra_env=first.extra_env) if elsewhere else first
        return server.run(*words)

    def looked(self) -> None:
        """Wait until each proxy has compared its connections with the directory, and counted, since now."""
        before = [self._looks(page) for page in self.pages]
        for page, seen in zip(self.pages, before, strict=True):
            until(lambda page=page, seen=seen: self._looks(page) >= seen + 3, "the proxy has looked")  # type: ignore[misc]

    def _looks(self, page: int) -> float:
        return sum(value for (name, _), value in samples(page).items() if name == "fairlead_rechecks_total")

    def is_held(self, said: str, commands: Sequence[tuple[str, ...]] = COMMANDS[:1]) -> None:
        """Check that every session lives on, that the outage is told, and that no user is onboarded."""
        self.looked()
        for page in self.pages:
            until(lambda page=page: said in get(page, "/readyz")[1], f"{said!r} is told")  # type: ignore[misc]
            assert get(page, "/readyz")[0] == 200
            assert samples(page)["fairlead_directory_in_doubt", ""] == 1
        for words in commands:
            done = self.command(*words)
            assert "Traceback" not in done.stderr, done.stderr
        self.looked()
        for server in self.proxies:
            told = server.ssh("echo in", "-l", "alice+dev", "-o", "BatchMode=yes").stderr.decode()
            assert OFFER not in told
            assert SORRY in told
        assert [session.user for session in self.sessions if not session.is_alive()] == []

    def is_whole(self) -> None:
        """Check that all is as it was."""
        for page in self.pages:
            until(lambda page=page: get(page, "/readyz") == (200, "ok\n"), "the directory is whole")  # type: ignore[misc]
            assert samples(page)["fairlead_directory_in_doubt", ""] == 0
        self.looked()
        assert [session.user for session in self.sessions if not session.is_alive()] == []
        for server in self.proxies:
            done = server.ssh("echo in")
            assert done.stdout == b"in\n", done.stderr


@contextmanager
def drill(directory: Path, database_url: str) -> Iterator[Drill]:
    with ExitStack() as stack:
        settings = {**SETTINGS, **({"FAIRLEAD_IDENTITY__DATABASE_URL": database_url} if database_url else {})}
        both = stack.enter_context(two_proxies(directory, settings, nats=True, start=False))
        proxies, pages = [both.first, both.second], [free_port(), free_port()]
        for server, page in zip(proxies, pages, strict=True):
            server.extra_env["FAIRLEAD_HEALTH__LISTEN"] = f"127.0.0.1:{page}"
            server.start()
        for name in ("bob", "carol"):
            both.first.cli("user", "add", name, "--key", f"{both.first.key}.pub")
        sessions = []
        for server in proxies:
            for user in ("alice", "bob", "carol"):
                client = subprocess.Popen(
                    [*server.command("ssh", "-l", f"{user}+dev"), "fl", "echo in; exec cat"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                stack.callback(client.communicate)
                stack.callback(client.kill)
                assert client.stdout is not None
                assert client.stdout.readline() == b"in\n"
                sessions.append(Session(user, server, client))
        (directory / "elsewhere").mkdir()
        yield Drill(proxies, pages, sessions, directory / "elsewhere")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server of this module, since a test puts another one in its place; each test has its own database."""
    with Cluster.running() as made:
        yield made


def tables(cluster: Cluster, database: str) -> set[str]:
    return set(
        cluster.sql(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'").splitlines()
    )


def others(cluster: Cluster, database: str, staged: Sequence[str]) -> list[str]:
    """Name the tables that have no stage of their own, and the sequences, as pg_restore wants them."""
    sequences = cluster.sql(database, "SELECT sequencename FROM pg_sequences").splitlines()
    names = [*(tables(cluster, database) - set(staged)), *sequences]
    return [word for name in names for word in ("-t", name)]


ANEW = ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
ORDERS = (
    ("keys", "alembic_version", "users", "installation"),
    ("installation", "users", "alembic_version", "keys"),
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("order", ORDERS, ids=["keys before users", "users before keys"])
def test_a_directory_that_is_dropped_and_restored_in_stages_ends_no_session(
    tmp_path: Path, cluster: Cluster, order: Sequence[str]
) -> None:
    name = cluster.create()
    with drill(tmp_path, cluster.url(name)) as scene:
        scene.is_whole()
        dump = cluster.dump(name)
        cluster.sql(name, "DROP TABLE keys, users CASCADE")
        scene.is_held("does not exist")
        cluster.sql(name, *ANEW)
        cluster.restore(name, dump, "--section=pre-data")
        scene.is_held("no longer to")
        for stage in order:
            cluster.restore(name, dump, "--data-only", "-t", stage)
            if stage != order[-1]:
                scene.is_held("")
        cluster.restore(name, dump, "--data-only", *others(cluster, name, order))
        cluster.restore(name, dump, "--section=post-data")
        scene.is_whole()


@pytest.mark.timeout(900)
def test_a_directory_of_which_rows_are_lost_and_come_back_ends_no_session(
    tmp_path: Path, cluster: Cluster
) -> None:
    name = cluster.create()
    with drill(tmp_path, cluster.url(name)) as scene:
        scene.is_whole()
        dump = cluster.dump(name)
        cluster.sql(name, "TRUNCATE users CASCADE")
        scene.is_held("holds 0 of 3 users and 0 of 3 keys")
        cluster.restore(name, dump, "--data-only", "-t", "users")
        scene.is_held("holds 0 of 3 keys")
        cluster.restore(name, dump, "--data-only", "-t", "keys")
        scene.is_whole()
        kept = ("users", "keys")
        cluster.sql(name, *(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}" for table in kept))
        cluster.sql(name, "DELETE FROM users WHERE name <> 'carol'")
        scene.is_held("holds 1 of 3 users and 1 of 3 keys")
        for row in ("bob", "alice"):
            cluster.sql(name, f"INSERT INTO users SELECT * FROM kept_users WHERE name = '{row}'")
            scene.looked()
        cluster.sql(name, "INSERT INTO keys SELECT * FROM kept_keys ON CONFLICT DO NOTHING")
        scene.is_whole()


@pytest.mark.timeout(900)
def test_no_command_makes_tables_under_live_sessions_but_the_one_that_is_asked_to(
    tmp_path: Path, cluster: Cluster
) -> None:
    name = cluster.create()
    with drill(tmp_path, cluster.url(name)) as scene:
        scene.is_whole()
        dump = cluster.dump(name)
        cluster.sql(name, *ANEW)
        scene.is_held("does not exist", COMMANDS)
        said = scene.command("user", "list").stderr
        assert said.startswith("fairlead: the database is empty: `fairlead database upgrade`")
        # The host of a proxy remembers what it served, and makes no new installation in its place.
        assert "should be that of installation" in scene.command("database", "upgrade").stderr
        assert tables(cluster, name) == set()
        # An operator elsewhere makes the tables: empty, and of another installation.
        made = scene.command("database", "upgrade", elsewhere=True)
        assert made.returncode == 0, made.stderr
        scene.is_held("no longer to")
        assert scene.command("user", "add", "mallory", elsewhere=True).returncode == 0
        scene.is_held("no longer to")
        cluster.restore(name, dump, "--clean", "--if-exists", "--single-transaction")
        scene.is_whole()


@pytest.mark.timeout(900)
def test_an_empty_server_at_the_same_address_ends_no_session_and_a_removal_does(
    tmp_path: Path, cluster: Cluster
) -> None:
    name = cluster.create()
    with drill(tmp_path, cluster.url(name)) as scene:
        scene.is_whole()
        with cluster.stand_in():
            scene.is_held("does not exist")
            cluster.sql("postgres", f"CREATE DATABASE {name}")
            scene.is_held("does not exist")
            assert tables(cluster, name) == set()
            made = scene.command("database", "upgrade", elsewhere=True)
            assert made.returncode == 0, made.stderr
            scene.is_held("no longer to")
        scene.is_whole()
        # What is meant is done at once, to the last user.
        for number, user in enumerate(("bob", "carol", "alice"), 1):
            scene.proxies[0].cli("user", "remove", user)
            for session in scene.sessions:
                if session.user == user:
                    assert "this user was removed" in session.farewell()
            scene.sessions = [session for session in scene.sessions if session.user != user]
            assert len(scene.sessions) == 6 - 2 * number
            assert [session.user for session in scene.sessions if not session.is_alive()] == []
        for page in scene.pages:
            assert get(page, "/readyz") == (200, "ok\n")


@pytest.mark.timeout(900)
def test_an_sqlite_file_that_is_emptied_moved_or_replaced_ends_no_session(tmp_path: Path) -> None:
    with drill(tmp_path, "") as scene:
        home = scene.proxies[0].home
        file = home / "fairlead.db"
        scene.is_whole()
        with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as connection:
            for table in ("users", "keys"):
                connection.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
            connection.execute("DELETE FROM keys")
            connection.execute("DELETE FROM users")
            scene.is_held("holds 0 of 3 users and 0 of 3 keys")
            for table in ("users", "keys"):
                connection.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")
        scene.is_whole()

        move(home, home / "kept")
        scene.is_held("there is no database", COMMANDS)
        assert not file.exists()
        made = scene.command("database", "upgrade")
        assert made.returncode == 0, made.stderr
        scene.is_held("was replaced")
        assert scene.command("user", "list").stdout == ""
        move(home, home / "other")
        move(home / "kept", home)
        scene.is_whole()


def move(source: Path, target: Path) -> None:
    """Move a database with its log, as one has to."""
    target.mkdir(exist_ok=True)
    for file in source.glob("fairlead.db*"):
        file.rename(target / file.name)
