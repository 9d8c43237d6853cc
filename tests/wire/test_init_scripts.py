"""Init scripts that fail: what the person at the terminal and `workspace show` are told."""

import json
import subprocess
from typing import Any

from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead

BLUEPRINTS = {
    "dev": "name: dev\ninit:\n- {name: setup, script: 'echo no space left; exit 3', when: every}\n",
    "must": "name: must\ninit:\n- {name: setup, when: every, required: true, "
    "script: 'test -e ~/go || { echo no space left; exit 3; }'}\n",
}
FAILED = "init script setup ended with status 3 and said: no space left"
REQUIRED = "init script setup, which the workspace requires, ended with status 3 and said: no space left"


def record(fairlead: Fairlead, who: str) -> dict[str, Any]:
    name = fairlead.workspace(who).name
    shown: dict[str, Any] = json.loads(fairlead.cli("workspace", "show", name, "--json"))
    return shown


def ssh(fairlead: Fairlead, who: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [*fairlead.command("ssh", "-l", who), "fl", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, input="exit\n")


def test_a_failed_init_script_is_told_to_the_person_and_shown(make_fairlead: MakeFairlead) -> None:
    fairlead = make_fairlead(blueprints=BLUEPRINTS)
    for words in (("true",), ()):  # the command that started the workspace, and a shell afterwards
        done = ssh(fairlead, "alice+dev", *words)
        assert done.returncode == 0, done
        assert FAILED in done.stderr
        assert FAILED not in done.stdout
    assert FAILED not in ssh(fairlead, "alice+dev", "true").stderr, "programs of programs read stderr"
    shown = record(fairlead, "alice+dev")
    assert (shown["phase"], shown["detail"]) == ("running", FAILED)
    asked = [*fairlead.command("ssh", "-l", "alice+dev", "-s"), "fl", "workspace-status"]
    status = subprocess.run(asked, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert f"detail     {FAILED}" in status.stdout


def test_a_required_init_script_that_fails_keeps_the_workspace_from_being_ready(
    make_fairlead: MakeFairlead,
) -> None:
    fairlead = make_fairlead(blueprints=BLUEPRINTS)
    done = ssh(fairlead, "alice+must", "true")
    assert done.returncode == 255
    assert REQUIRED in done.stderr
    assert "is ready" not in done.stderr
    shown = record(fairlead, "alice+must")
    assert (shown["phase"], shown["detail"]) == ("failed", REQUIRED)
    (fairlead.workspace("alice+must") / "home" / "go").touch()
    assert ssh(fairlead, "alice+must", "true").returncode == 0, "the next login tries anew"
    assert record(fairlead, "alice+must")["phase"] == "running"
