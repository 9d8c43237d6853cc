"""Stopping on request, when idle and when old; what people read, and what starts a workspace again."""

import json
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead, free_port, needs

SETTINGS = {"FAIRLEAD_WORKSPACE__KEEPER_INTERVAL_S": "0.3", "FAIRLEAD_WORKSPACE__LIFETIME_WARN_S": "3"}
BLUEPRINTS = {
    "idle": "idle_stop_s: 1.5\n",
    "old": "lifetime_s: 5\n",
    "free": "stop_hold_s: 0\n",
}


def control(fairlead: Fairlead, what: str, who: str = "alice+dev") -> "subprocess.CompletedProcess[str]":
    command = [*fairlead.command("ssh", "-l", who, "-s"), "fl", what]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def until(true: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (value := true()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)
    return value


def record(fairlead: Fairlead, who: str = "alice+dev") -> dict[str, Any]:
    name = fairlead.workspace(who).name
    return json.loads(fairlead.cli("workspace", "show", name, "--json"))


def start(fairlead: Fairlead, *words: str) -> "subprocess.Popen[bytes]":
    command = [*fairlead.command("ssh"), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


def reached(port: int) -> int:
    """Connect and give an errno, 0 for success."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port))


# ----------------------------------------------------------------------------------- on request


def test_the_subsystems_start_nothing_but_the_one_that_starts(fairlead: Fairlead) -> None:
    for what in ("workspace-status", "workspace-stop"):
        done = control(fairlead, what)
        assert done.returncode == 255, done
        assert "there is no workspace" in done.stderr
        assert done.stdout == ""
    assert not fairlead.workspace().exists()
    done = control(fairlead, "workspace-start")
    assert (done.returncode, done.stdout) == (0, f"workspace {fairlead.workspace().name} is running\n")
    done = control(fairlead, "workspace-status")
    assert done.returncode == 0
    assert "phase      running\n" in done.stdout
    assert fairlead.ssh("echo in").stdout == b"in\n"


def test_a_blueprint_may_let_a_connection_undo_a_stop(fairlead: Fairlead) -> None:
    assert fairlead.ssh("touch kept", "-l", "alice+free").returncode == 0
    done = control(fairlead, "workspace-stop", "alice+free")
    assert "starts     with the next connection" in done.stdout
    assert fairlead.ssh("ls", "-l", "alice+free").stdout == b"kept\n"


@needs("sftp")
def test_a_stop_on_request_is_not_undone_by_any_kind_of_channel(fairlead: Fairlead) -> None:
    assert fairlead.ssh("touch kept").returncode == 0
    running = start(fairlead, "fl", "echo up; exec sleep 1000")
    assert running.stdout.readline() == b"up\n"  # type: ignore[union-attr]
    done = control(fairlead, "workspace-stop")
    assert done.returncode == 0, done.stderr
    assert "is stopped\n" in done.stdout
    assert "ssh -s alice+dev@HOST workspace-start" in done.stdout
    _, told = running.communicate(timeout=60)
    assert b"is being stopped by alice" in told

    for command in (
        [*fairlead.command("ssh"), "fl", "true"],
        [*fairlead.command("ssh", "-tt"), "fl"],
        [*fairlead.command("ssh", "-s"), "fl", "sftp"],
        [*fairlead.command("ssh", "-A"), "fl", "true"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 254, (command, done)
        assert "was stopped by you" in done.stdout + done.stderr
        assert "workspace-start" in done.stdout + done.stderr
    command = [*fairlead.command("ssh", "-o", "LogLevel=INFO", "-W", "127.0.0.1:1"), "fl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 255, "ssh's own status for a channel that was not opened"
    assert "administratively prohibited" in done.stderr
    assert "was stopped by you" in done.stderr
    port = free_port()
    forwarding = start(fairlead, "-N", "-o", "LogLevel=INFO", "-L", f"{port}:/tmp/some.sock", "fl")
    until(lambda: not reached(port), "a listener")
    assert b"administratively prohibited" in forwarding.stderr.readline()  # type: ignore[union-attr]
    forwarding.terminate()
    forwarding.communicate(timeout=60)
    command = [*fairlead.command("ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1"), "fl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 255
    assert record(fairlead)["phase"] == "stopped"

    done = control(fairlead, "workspace-status")
    assert "stopped    by you" in done.stdout
    assert control(fairlead, "workspace-stop").stdout.startswith(
        f"workspace {fairlead.workspace().name} is stopped already"
    )
    assert control(fairlead, "workspace-start").returncode == 0
    assert fairlead.ssh("ls").stdout == b"kept\n"


def test_somebody_elses_workspace_is_none(fairlead: Fairlead) -> None:
    assert fairlead.ssh("true").returncode == 0
    name = fairlead.workspace().name
    fairlead.cli("user", "add", "bob", "--key", f"{fairlead.key}.pub")
    for what in ("workspace-status", "workspace-stop", "workspace-start"):
        done = control(fairlead, what, f"bob+pod={name}")
        assert done.returncode == 255, done
        assert "there is no workspace" in done.stderr
    assert fairlead.ssh("echo in").stdout == b"in\n"


def test_an_operators_stop_holds_and_an_operators_start_ends_that(fairlead: Fairlead) -> None:
    assert fairlead.ssh("true").returncode == 0
    name = fairlead.workspace().name
    shell = start(fairlead, "fl", "echo up; exec sleep 1000")
    assert shell.stdout.readline() == b"up\n"  # type: ignore[union-attr]
    fairlead.cli("workspace", "stop", name, "--reason", "a new disk")
    assert b"fairlead: this workspace is being stopped" in shell.communicate(timeout=60)[1]
    done = fairlead.ssh("true")
    assert done.returncode == 254
    assert b"by an operator (a new disk)" in done.stderr
    fairlead.cli("workspace", "start", name)
    assert fairlead.ssh("true").returncode == 0


def test_the_hold_ends_by_itself(make_fairlead: MakeFairlead) -> None:
    fairlead = make_fairlead({"FAIRLEAD_WORKSPACE__STOP_HOLD_S": "2"})
    assert fairlead.ssh("true").returncode == 0
    assert control(fairlead, "workspace-stop").returncode == 0
    assert fairlead.ssh("true").returncode in {254, 0}
    until(lambda: fairlead.ssh("true").returncode == 0, "a start")


# ------------------------------------------------------------------------------------ by itself


def test_idleness_is_announced_and_the_next_connection_starts_it(fairlead: Fairlead) -> None:
    exec_ = start(fairlead, "-l", "alice+idle", "fl", "echo up; exec sleep 1000")
    terminal = start(fairlead, "-l", "alice+idle", "-tt", "fl", "echo up; exec sleep 1000")
    sftp = start(fairlead, "-l", "alice+idle", "-s", "fl", "sftp")
    out, told = exec_.communicate(timeout=60)
    assert out == b"up\n", "nothing of ours on stdout"
    assert b"did nothing for" in told
    assert b"did nothing for" in terminal.communicate(timeout=60)[0]
    assert sftp.communicate(timeout=60)[0] == b""
    until(lambda: record(fairlead, "alice+idle")["phase"] == "stopped", "the end")
    assert record(fairlead, "alice+idle")["stopped_by"] == "idle"
    assert fairlead.ssh("echo again", "-l", "alice+idle").stdout == b"again\n"


def test_a_lifetime_is_announced_and_kept_and_the_next_connection_starts_it(fairlead: Fairlead) -> None:
    busy = start(fairlead, "-l", "alice+old", "fl", "while :; do echo busy; sleep 0.2; done")
    out, told = busy.communicate(timeout=60)
    assert set(out.splitlines()) == {b"busy"}
    assert told.count(b"stops in") == 1
    assert b"that it may run and stops now" in told
    until(lambda: record(fairlead, "alice+old")["phase"] == "stopped", "the end")
    assert record(fairlead, "alice+old")["stopped_by"] == "lifetime"
    assert fairlead.ssh("echo again", "-l", "alice+old").stdout == b"again\n"


def test_a_channel_that_comes_while_it_stops_waits_and_starts_it_anew(make_fairlead: MakeFairlead) -> None:
    fairlead = make_fairlead({"FAIRLEAD_WORKSPACE__STOP_HOLD_S": "0"})
    assert fairlead.ssh("true").returncode == 0
    slow = start(fairlead, "fl", "trap '' HUP TERM; echo up; while :; do sleep 0.1; done")
    assert slow.stdout.readline() == b"up\n"  # type: ignore[union-attr]
    stopping = start(fairlead, "-s", "fl", "workspace-stop")
    assert b"is being stopped" in slow.stderr.readline()  # type: ignore[union-attr]
    done = fairlead.ssh("echo anew")
    assert (done.returncode, done.stdout) == (0, b"anew\n"), done
    assert b"is stopped" in stopping.communicate(timeout=60)[0]
    slow.communicate(timeout=60)


def test_an_unknown_subsystem_is_still_none(fairlead: Fairlead) -> None:
    assert control(fairlead, "workspace-delete").returncode != 0


@pytest.mark.usefixtures("warm")
def test_controls_do_not_read_what_is_typed(fairlead: Fairlead) -> None:
    command = [*fairlead.command("ssh", "-s"), "fl", "workspace-status"]
    done = subprocess.run(command, input=b"x" * 100_000, capture_output=True, timeout=60)
    assert done.returncode == 0
