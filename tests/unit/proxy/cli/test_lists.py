"""Lists of commands: what is unknown gives exit 1, what was cut says so, `--since` and `--until` choose."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.sessions.records import ConnectionRecord
from proxy.sessions.store import ProxyProcess, SessionStore
from proxy.storage.database import Database
from tests.unit.proxy.commandline import Run

pytestmark = pytest.mark.usefixtures("database")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "words",
    [
        ("user", "show", "nobody"),
        ("user", "lock", "nobody"),
        ("user", "unlock", "nobody"),
        ("user", "remove", "nobody"),
        ("key", "list", "nobody"),
        ("key", "remove", "nobody", "SHA256:x"),
        ("session", "list", "--user", "nobody"),
        ("session", "list", "--all", "--user", "nobody"),
        ("session", "watch", "--user", "nobody"),
        ("session", "kill", "--user", "nobody"),
        ("session", "recordings", "list", "--user", "nobody"),
        ("workspace", "list", "--user", "nobody"),
    ],
    ids=" ".join,
)
def test_a_user_who_is_unknown_gives_exit_1(fairlead: Run, words: tuple[str, ...]) -> None:
    done = fairlead(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fairlead: there is no user nobody\n"


@pytest.mark.parametrize(
    "words", [("session", "list"), ("workspace", "list"), ("session", "recordings", "list")]
)
def test_a_known_user_of_whom_there_is_nothing_gives_an_empty_list(
    fairlead: Run, words: tuple[str, ...]
) -> None:
    assert fairlead("user", "add", "alice").returncode == 0
    done = fairlead(*words, "--user", "alice", "--json")
    assert (done.returncode, done.stdout) == (0, "[]\n")


@pytest.mark.parametrize("word", ["why", "remove"])
def test_a_ban_that_is_not_there_gives_exit_1(fairlead: Run, word: str) -> None:
    assert fairlead("ban", word, "192.0.2.1").returncode == 1
    assert fairlead("ban", "add", "192.0.2.1").returncode == 0
    assert fairlead("ban", word, "192.0.2.1").returncode == 0


@pytest.mark.parametrize("word", ["add", "why", "remove"])
def test_what_is_no_address_is_named(fairlead: Run, word: str) -> None:
    done = fairlead("ban", word, "not-an-address")
    assert done.returncode == 1
    assert done.stderr == "fairlead: 'not-an-address' is not an IPv4 or IPv6 address\n"


def test_keys_are_a_number_wherever_a_user_is_json(fairlead: Run, tmp_path: Path) -> None:
    assert fairlead("user", "add", "alice").returncode == 0
    (listed,) = json.loads(fairlead("user", "list", "--json").stdout)
    shown = json.loads(fairlead("user", "show", "alice", "--json").stdout)
    assert (listed["keys"], shown["keys"], shown["public_keys"]) == (0, 0, [])


@pytest.fixture
def sessions(tmp_path: Path) -> list[str]:
    """Five sessions of an hour each, one after the other, beginning at noon."""

    def one(number: int) -> ConnectionRecord:
        began = NOON + timedelta(hours=number)
        return ConnectionRecord(
            id=f"s{number}",
            started_at=began,
            updated_at=began,
            ended_at=began + timedelta(hours=1),
            proxy="p",
            proxy_id="local",
            pid=1,
            user="alice",
            workspace="alice-1",
            blueprint="dev",
            account="",
            client_address="192.0.2.1",
            client_port=50_022,
            client_version="OpenSSH_9.2",
            client_type="OpenSSH",
            fingerprint="SHA256:x",
            certificate="",
        )

    async def make() -> None:
        database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/home/fairlead.db", query_timeout_s=60)
        process = ProxyProcess("p", "local", 1, "host", NOON)
        try:
            await SessionStore(database).write(process, NOON, [one(number) for number in range(5)], [])
        finally:
            await database.close()

    asyncio.run(make())
    return [f"s{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (("--since", "2026-03-01T14:30"), ["s4", "s3", "s2"]),
        (("--until", "2026-03-01T14:00"), ["s1", "s0"]),
        (("--since", "2026-03-01T13:30", "--until", "2026-03-01T14:30"), ["s2", "s1"]),
        (("--since", "2026-03-01T15:30+01:00", "--until", "2026-03-01T15:00Z"), ["s2"]),
        (("--since", "2026-03-02"), []),
        (("--since", "99999d"), ["s4", "s3", "s2", "s1", "s0"]),
    ],
)
def test_sessions_are_chosen_by_when_they_lasted(
    fairlead: Run, sessions: list[str], words: tuple[str, ...], ids: list[str]
) -> None:
    done = fairlead("session", "list", "--json", *words)
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in json.loads(done.stdout)] == ids


def test_a_list_that_was_cut_says_so_on_stderr(fairlead: Run, sessions: list[str]) -> None:
    done = fairlead("session", "list", "--since", "2026-03-01", "--limit", "3", "--json")
    assert [row["id"] for row in json.loads(done.stdout)] == ["s4", "s3", "s2"]
    assert done.stderr == "fairlead: only the newest 3 are shown; --limit shows more than 3\n"
    whole = fairlead("session", "list", "--since", "2026-03-01", "--limit", "5", "--json")
    assert (len(json.loads(whole.stdout)), whole.stderr) == (5, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--since", "yesterday"),
            "--since: 'yesterday' is no date such as 2031-12-31 or 2031-12-31T18:00, nor",
        ),
        (
            ("--since", "2026-03-02", "--until", "2026-03-01"),
            "--until 2026-03-01 is not after --since 2026-03-02",
        ),
    ],
)
def test_a_moment_that_makes_no_sense_is_named(fairlead: Run, words: tuple[str, ...], said: str) -> None:
    done = fairlead("session", "list", *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fairlead: {said}")
