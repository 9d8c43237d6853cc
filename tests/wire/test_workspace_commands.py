"""`fairlead workspace …` beside a running proxy: what an operator does to what people are in."""

import json
import re

import pytest

from tests.wire.harness import Fairlead


def row(fairlead: Fairlead, name: str) -> dict[str, object]:
    shown: dict[str, object] = json.loads(fairlead.cli("workspace", "show", name, "--json"))
    return shown


def test_what_runs_is_listed_stopped_and_started(own_fairlead: Fairlead) -> None:
    fairlead = own_fairlead
    assert fairlead.ssh("echo kept > file").returncode == 0
    fairlead.cli("user", "add", "bob", "--key", f"{fairlead.key}.pub")
    name = fairlead.workspace().name
    (listed,) = json.loads(fairlead.cli("workspace", "list", "--json"))
    shown = row(fairlead, name)
    asked = {key: shown.pop(key) for key in ("active_at", "why")}  # by asking it, as no list does
    assert {key: value for key, value in listed.items() if key not in asked} == shown
    assert asked["active_at"]
    facts = {key: listed[key] for key in ("name", "user", "blueprint", "user_string", "phase", "stopped_by")}
    assert facts == {
        "name": name,
        "user": "alice",
        "blueprint": "dev",
        "user_string": "alice+dev",
        "phase": "running",
        "stopped_by": None,
    }
    assert json.loads(fairlead.cli("workspace", "list", "--user", "bob", "--json")) == []
    fairlead.cli("workspace", "stop", name, "--reason", "moving house")
    stopped = row(fairlead, name)
    assert (stopped["phase"], stopped["stop_reason"]) == ("stopped", "moving house")
    assert str(stopped["stopped_by"]).startswith("cli:")
    assert "stopped by cli:" in fairlead.cli("workspace", "list")
    fairlead.cli("workspace", "start", name)
    assert row(fairlead, name)["phase"] == "running"
    assert fairlead.ssh("cat file").stdout == b"kept\n"


def test_starting_tells_how_it_goes(own_fairlead: Fairlead) -> None:
    own_fairlead.ssh("true")
    name = own_fairlead.workspace().name
    own_fairlead.cli("workspace", "stop", name)
    done = own_fairlead.run("workspace", "start", name)
    said = done.stderr.splitlines()
    assert re.match(rf"fairlead: preparing workspace {name} \(\d+ s\)", said[0])
    assert said[-1].startswith(f"fairlead: workspace {name} is ready (")
    assert done.stdout == ""


def test_deleting_keeps_the_home_until_it_is_purged(own_fairlead: Fairlead) -> None:
    own_fairlead.ssh("echo kept > file")
    name = own_fairlead.workspace().name
    own_fairlead.cli("workspace", "delete", name)
    assert json.loads(own_fairlead.cli("workspace", "list", "--json")) == []
    assert own_fairlead.ssh("cat file").stdout == b"kept\n"
    own_fairlead.cli("workspace", "delete", "--purge", name)
    assert own_fairlead.ssh("cat file").returncode == 1


def test_logs_and_events_are_shown(own_fairlead: Fairlead) -> None:
    own_fairlead.ssh("true")
    name = own_fairlead.workspace().name
    assert '"serving"' in own_fairlead.cli("workspace", "logs", name)
    assert own_fairlead.cli("workspace", "logs", name, "--tail", "0") == ""
    assert json.loads(own_fairlead.cli("workspace", "events", name, "--json")) == []


@pytest.mark.parametrize("verb", ["show", "start", "stop", "delete", "logs", "events"])
def test_what_is_not_there_is_said_and_what_is_there_is_done(own_fairlead: Fairlead, verb: str) -> None:
    own_fairlead.ssh("true")
    name = own_fairlead.workspace().name
    names = ["nope", name] if verb in {"stop", "delete"} else ["nope"]
    done = own_fairlead.run("workspace", verb, *names)
    assert (done.returncode, done.stderr) == (1, "fairlead: there is no workspace 'nope'\n")
    phases = [one["phase"] for one in json.loads(own_fairlead.cli("workspace", "list", "--json"))]
    assert phases == {"stop": ["stopped"], "delete": []}.get(verb, ["running"])
