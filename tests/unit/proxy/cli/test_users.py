"""Users, keys and the waiting list from the command line."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.identity.keys import PublicKey
from proxy.identity.profile import Profile
from proxy.identity.store import SqlDirectory
from tests.fakes.provider import new_key
from tests.unit.proxy.commandline import Run

pytestmark = pytest.mark.usefixtures("database")

KEY = new_key()


@pytest.fixture
def with_directory(tmp_path: Path) -> Callable[[Callable[[SqlDirectory], Awaitable[Any]]], Any]:
    """Does something with the directory of the commands' home."""

    def run(act: Callable[[SqlDirectory], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            store = await SqlDirectory.open(f"sqlite+aiosqlite:///{tmp_path}/home/fairlead.db")
            try:
                return await act(store)
            finally:
                await store.close()

        return asyncio.run(main())

    return run


def users(fairlead: Run) -> dict[str, dict[str, Any]]:
    return {user["name"]: user for user in json.loads(fairlead("user", "list", "--json").stdout)}


def test_a_user_may_have_a_number_and_an_end(fairlead: Run) -> None:
    done = fairlead("user", "add", "alice", "--uid", "4711", "--expires", "2031-12-31")
    assert done.returncode == 0
    fairlead("user", "add", "bob")
    shown = users(fairlead)
    assert (shown["alice"]["uid"], shown["alice"]["expires_at"], shown["alice"]["source"]) == (
        4711,
        "2031-12-31T00:00:00+00:00",
        "static",
    )
    assert (shown["bob"]["uid"], shown["bob"]["expires_at"]) == (10_000, None)
    assert fairlead("user", "add", "carol", "--uid", "4711").stderr == "fairlead: uid 4711 is user alice's\n"
    assert "--expires: 'never' is no date" in fairlead("user", "add", "carol", "--expires", "never").stderr


def test_uids_come_from_the_settings(fairlead: Run) -> None:
    fairlead("user", "add", "alice", FAIRLEAD_IDENTITY__FIRST_UID="20000")
    assert users(fairlead)["alice"]["uid"] == 20_000
    done = fairlead("user", "add", "bob", FAIRLEAD_IDENTITY__FIRST_UID="7", FAIRLEAD_IDENTITY__LAST_UID="6")
    assert done.returncode == 78
    done = fairlead("user", "add", "bob", FAIRLEAD_IDENTITY__FIRST_UID="7", FAIRLEAD_IDENTITY__LAST_UID="7")
    assert "every uid from 7 to 7 is used up" in done.stderr


def test_an_import_adds_and_changes_and_can_be_tried_first(fairlead: Run, tmp_path: Path) -> None:
    fairlead("user", "add", "alice", "--email", "old@example.com")
    file = tmp_path / "users.yaml"
    file.write_text(
        f"- {{name: bob, locked: true}}\n- {{name: alice, email: new@example.com, keys: ['{KEY}']}}\n"
        "- {name: carol, uid: 10001}\n"
    )
    for words in (("--dry-run",), ()):
        done = fairlead("user", "import", str(file), "--json", *words)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["problems"] == []
        assert said["dry_run"] == bool(words)
        assert [
            (user["name"], user["action"], user["new_keys"], user["locked"]) for user in said["users"]
        ] == [
            ("bob", "add", [], True),
            ("alice", "change", [KEY.fingerprint], None),
            ("carol", "add", [], None),
        ]
        assert set(users(fairlead)) == ({"alice"} if words else {"alice", "bob", "carol"})
    shown = users(fairlead)
    assert (shown["alice"]["email"], shown["alice"]["keys"]) == ("new@example.com", 1)
    assert [shown[name]["uid"] for name in ("alice", "bob", "carol")] == [10_000, 10_002, 10_001]
    again = fairlead("user", "import", str(file))
    assert [line.split("\t")[:2] for line in again.stdout.splitlines()] == [
        ["bob", "same"],
        ["alice", "same"],
        ["carol", "same"],
    ]


def test_an_import_with_a_problem_changes_nothing(fairlead: Run, tmp_path: Path) -> None:
    fairlead("user", "add", "alice", "--uid", "4711")
    file = tmp_path / "users.csv"
    file.write_text("name,uid\nbob,4711\nalice,4712\ncarol,5000\ndave,5000\nerin,\n")
    done = fairlead("user", "import", str(file))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"fairlead: {file}: line 2 (bob): uid 4711 is user alice's",
        f"fairlead: {file}: line 3 (alice): has uid 4711, which does not change",
        f"fairlead: {file}: line 5 (dave): uid 5000 is user carol's",
    ]
    assert set(users(fairlead)) == {"alice"}
    file.write_text("name,uid\nbob,x\n,1\n")
    done = fairlead("user", "import", str(file), "--json")
    assert (done.returncode, len(json.loads(done.stdout)["problems"])) == (1, 2)
    assert fairlead("user", "import", "/nowhere").stderr == "fairlead: /nowhere: No such file or directory\n"


def test_the_waiting_list(fairlead: Run, with_directory: Callable[..., Any]) -> None:
    fairlead("user", "list")
    keys: dict[str, PublicKey] = {name: new_key() for name in ("alice", "bob")}

    async def knock(directory: SqlDirectory) -> None:
        for name, key in keys.items():
            profile = Profile("forge", "https://forge.example", f"id-{name}", name.title(), name)
            await directory.waitlist(profile, name, key, "192.0.2.1")

    with_directory(knock)
    rows = json.loads(fairlead("onboarding", "list", "--json").stdout)
    assert [(row["id"], row["name"], row["status"], row["fingerprint"]) for row in rows] == [
        (1, "alice", "waitlisted", keys["alice"].fingerprint),
        (2, "bob", "waitlisted", keys["bob"].fingerprint),
    ]
    assert "Alice" in fairlead("onboarding", "list").stdout
    assert fairlead("onboarding", "approve", "1").stderr == "alice (forge account Alice) is let in\n"
    assert fairlead("onboarding", "reject", "2").stderr == "bob (forge account Bob) stays out\n"
    assert fairlead("onboarding", "list").stdout == ""
    decided = json.loads(fairlead("onboarding", "list", "--all", "--json").stdout)
    assert [row["status"] for row in decided] == ["approved", "rejected"]
    assert decided[0]["decided_by"].startswith("cli:")
    (key,) = json.loads(fairlead("key", "list", "alice", "--json").stdout)
    assert (key["fingerprint"], key["origin"]) == (keys["alice"].fingerprint, "forge")
    shown = json.loads(fairlead("user", "show", "alice", "--json").stdout)
    assert (shown["source"], shown["login"], shown["subject"]) == ("forge", "Alice", "id-alice")
    assert fairlead("onboarding", "approve", "7").stderr == "fairlead: there is no onboarding 7\n"
    assert "was approved by cli:" in fairlead("onboarding", "reject", "1").stderr
    assert fairlead("onboarding", "approve", "2", "--json").returncode == 0
    assert set(users(fairlead)) == {"alice", "bob"}


def test_without_nats_a_change_is_made_all_the_same(fairlead: Run) -> None:
    fairlead("user", "add", "alice")
    nowhere = {"FAIRLEAD_EVENTS__URLS": "nats://127.0.0.1:1", "FAIRLEAD_EVENTS__CLOSE_TIMEOUT_S": "0.1"}
    done = fairlead("user", "lock", "alice", **nowhere)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "fairlead: the change is made, but NATS did not take word of it; "
        "proxies find out by themselves within 2 s\n"
    )
    assert users(fairlead)["alice"]["locked"]


def test_names_of_system_accounts_are_refused_where_workspaces_are_pods(
    fairlead: Run, tmp_path: Path
) -> None:
    pods = {"FAIRLEAD_WORKSPACE__BACKEND": "kubernetes"}
    reserved = "the user name root is reserved: it is a system account's"
    done = fairlead("user", "add", "root", **pods)
    assert (done.returncode, done.stderr) == (1, f"fairlead: {reserved}\n")
    file = tmp_path / "users.yaml"
    file.write_text("[{name: alice}, {name: root}]")
    done = fairlead("user", "import", str(file), **pods)
    assert (done.returncode, done.stderr) == (1, f"fairlead: {file}: user 2: {reserved}\n")
    assert fairlead("user", "list").stdout == ""
    assert fairlead("user", "add", "root").returncode == 0, "a user of this machine may be called so"


def test_a_user_is_removed_though_the_workspaces_cannot_be_looked_at(fairlead: Run, tmp_path: Path) -> None:
    assert fairlead("user", "add", "alice").returncode == 0
    unreachable = {
        "FAIRLEAD_WORKSPACE__BACKEND": "kubernetes",
        "FAIRLEAD_KUBERNETES__KUBECONFIG": str(tmp_path / "nowhere"),
    }
    done = fairlead("user", "remove", "alice", **unreachable)
    assert done.returncode == 1
    first, second, *rest = done.stderr.splitlines()
    assert first == "user alice removed"
    assert second.startswith("fairlead: user alice is removed, but the workspaces were left: ")
    assert rest == []
    assert fairlead("user", "list").stdout == ""


def test_a_workspace_that_is_not_there_and_a_user_who_is_not_are_not_handed_over(fairlead: Run) -> None:
    done = fairlead("workspace", "give", "ws-1", "alice")
    assert (done.returncode, done.stderr) == (1, "fairlead: there is no user alice\n")
    assert fairlead("user", "add", "alice").returncode == 0
    done = fairlead("workspace", "give", "ws-1", "alice")
    assert (done.returncode, done.stderr) == (1, "fairlead: there is no workspace 'ws-1'\n")
