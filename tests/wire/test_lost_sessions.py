"""What is left of a session whose client vanished: what was told to stay, and nothing else."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead
from tests.wire.master import Master
from tests.wire.peers import until
from tests.wire.terminal import Terminal

pytestmark = pytest.mark.usefixtures("warm")

BLUEPRINTS = {"dev": "shell: /bin/sh\n", "doomed": "shell: /bin/sh\n"}
GRACE_S = 30
"""More than shelld gives a lost session, whatever this machine is busy with."""


def in_workspace(fairlead: Fairlead, file: str) -> Path:
    return fairlead.workspace() / "home" / file


def word_in(file: Path) -> str:
    """What a program wrote there, once the line is whole."""
    until(lambda: file.exists() and file.read_text().endswith("\n"), f"{file.name} is written")
    return file.read_text().strip()


def lives(fairlead: Fairlead, pid: str) -> bool:
    return fairlead.ssh(f"kill -0 {int(pid)}").returncode == 0


def is_gone(fairlead: Fairlead, pid: str) -> None:
    until(lambda: not lives(fairlead, pid), f"process {pid} has ended", GRACE_S)


def test_a_hang_up_reaches_the_job_in_the_foreground(fairlead: Fairlead) -> None:
    with Terminal([*fairlead.command("ssh", "-tt"), "fl"]) as terminal:
        terminal.ready()
        terminal.send(
            "sh -c 'trap \"echo hup > hup; exit\" HUP; echo up''on; while :; do sleep 0.05; done'\r"
        )
        terminal.expect("upon")
        terminal.hang_up()
    assert word_in(in_workspace(fairlead, "hup")) == "hup"


def test_what_ignores_hang_ups_survives_and_the_rest_is_gone(fairlead: Fairlead) -> None:
    """`nohup` stays; a background job, a stopped job, the foreground job and the shell do not."""
    with Terminal([*fairlead.command("ssh", "-tt"), "fl"]) as terminal:
        terminal.ready()
        terminal.run("nohup sleep 1001 >/dev/null 2>&1 & echo $! > nohup.pid")
        terminal.run("sleep 1002 & echo $! > background.pid")
        terminal.run("echo $$ > shell.pid")
        terminal.send("sh -c 'echo $$ > stopped.pid; echo be''gun; exec sleep 1003'\r")
        terminal.expect("begun")
        terminal.send(b"\x1a")
        terminal.expect("ready> $")
        terminal.send("sh -c 'echo $$ > foreground.pid; echo fore''most; exec sleep 1004'\r")
        terminal.expect("foremost")
        terminal.hang_up()
    pids = {
        name: word_in(in_workspace(fairlead, f"{name}.pid"))
        for name in ("nohup", "background", "shell", "stopped", "foreground")
    }
    for name in ("foreground", "shell", "background", "stopped"):
        is_gone(fairlead, pids[name])
    assert lives(fairlead, pids["nohup"])
    fairlead.ssh(f"kill {pids['nohup']}")


def test_a_program_that_will_not_listen_is_killed_in_the_end(fairlead: Fairlead) -> None:
    stubborn = "trap '' TERM; echo $$ > stubborn.pid; echo up; while :; do sleep 0.2; done"
    with Terminal([*fairlead.command("ssh", "-tt"), "fl", stubborn]) as terminal:
        terminal.expect("up")
        terminal.hang_up()
    is_gone(fairlead, word_in(in_workspace(fairlead, "stubborn.pid")))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_without_a_terminal_ends_with_its_client(
    fairlead: Fairlead, number: signal.Signals
) -> None:
    """An exec that neither reads nor writes never notices by itself: it is told."""
    file = in_workspace(fairlead, f"exec-{number.name}.pid")
    client = subprocess.Popen(
        [*fairlead.command("ssh"), "fl", f"echo $$ > {file.name}; sleep 1005 & exec sleep 1006"],
        stdin=subprocess.DEVNULL,
    )
    pid = word_in(file)
    client.send_signal(number)
    client.wait(30)
    is_gone(fairlead, pid)


def test_a_command_that_is_stuck_on_a_full_pipe_ends_with_its_client(fairlead: Fairlead) -> None:
    file = in_workspace(fairlead, "stuck.pid")
    client = subprocess.Popen(
        [*fairlead.command("ssh"), "fl", f"echo $$ > {file.name}; exec cat /dev/zero"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    pid = word_in(file)
    assert client.stdout
    assert client.stdout.read(1) == b"\0"
    client.send_signal(signal.SIGSTOP)  # it reads no more, and everything behind it fills up
    client.kill()
    client.stdout.close()
    client.wait(30)
    is_gone(fairlead, pid)


def test_one_channel_that_ends_leaves_the_others_of_its_connection_alone(fairlead: Fairlead) -> None:
    with Master(fairlead) as master:
        command = [*fairlead.command("ssh", "-tt", *master.options), "fl"]
        with Terminal(command) as one, Terminal(command) as other:
            one.ready()
            other.ready()
            pid = re.search(r"\d+", other.run("echo $$"))
            assert pid
            other.hang_up()
            one.run("true")  # OpenSSH's master looks at what it lost when it next has something to do
            is_gone(fairlead, pid.group())
            assert "7" in one.run("echo $((3 + 4))")


def test_a_workspace_that_dies_under_a_prompt_is_told_on_a_line_of_its_own(fairlead: Fairlead) -> None:
    with Terminal([*fairlead.command("ssh", "-tt", "-l", "alice+doomed"), "fl"]) as terminal:
        terminal.ready()
        running = json.loads((fairlead.workspace("alice+doomed") / "running.json").read_text())
        os.kill(running["pid"], signal.SIGKILL)
        terminal.expect_screen(r"(?m)^fairlead: the link to the workspace broke; .*\(reference \w+\)?")
        assert terminal.wait() == 255
    again = fairlead.ssh("echo another", "-l", "alice+doomed")
    assert (again.returncode, again.stdout) == (0, b"another\n")
