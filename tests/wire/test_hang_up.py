"""What runs on when a connection ends, by the commands of docs/sessions.md."""

import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.wire.harness import Fairlead, needs
from tests.wire.peers import until
from tests.wire.terminal import Terminal

PAGE = Path(__file__).parents[2] / "docs" / "sessions.md"
BUILD, BESIDE = str(1_000_000 + os.getpid()), str(2_000_000 + os.getpid())
"""How long programs sleep, in seconds, by which they are found."""
_TOLD = re.compile(r"^ssh (?:-t )?alice\+dev@host '?([^'#\n]+?)'?\s+#", re.MULTILINE)

pytestmark = pytest.mark.usefixtures("warm")


def commands() -> dict[str, str]:
    """Return the commands of the page by their first word."""
    section = PAGE.read_text().split("## Programs that outlive their connection")[1].split("\n## ")[0]
    return {command.split()[0]: command for command in _TOLD.findall(section)}


def home_of(fairlead: Fairlead) -> Path:
    return fairlead.workspace() / "home"


def running(seconds: str) -> psutil.Process:
    """Wait until `sleep SECONDS` runs on this machine."""

    def found() -> psutil.Process | None:
        processes = psutil.process_iter(["cmdline"])
        return next((one for one in processes if one.info["cmdline"] == ["sleep", seconds]), None)

    process = until(found, "the program runs")
    assert isinstance(process, psutil.Process)
    return process


@pytest.fixture
def build(fairlead: Fairlead) -> Path:
    """A program in the home that writes nothing and takes long."""
    home = home_of(fairlead)
    (home / "build").write_text(f"#!/bin/sh\nexec sleep {BUILD}\n")
    (home / "build").chmod(0o755)
    return home / "build"


@pytest.mark.usefixtures("build")
class TestTheClientIsKilled:
    def test_a_plain_program_is_hung_up(self, fairlead: Fairlead) -> None:
        with subprocess.Popen([*fairlead.command("ssh"), "fl", "./build"]) as client:
            process = running(BUILD)
            client.kill()
        until(lambda: not process.is_running(), "it is gone")

    @pytest.mark.parametrize("how", ["nohup", "setsid"])
    def test_one_that_was_set_free_as_documented_runs_on(self, fairlead: Fairlead, how: str) -> None:
        with subprocess.Popen(
            [*fairlead.command("ssh"), "fl", f"{commands()[how]} sleep {BESIDE}"]
        ) as client:
            process = running(BUILD)
            other = running(BESIDE)
            client.kill()
        try:
            until(lambda: not other.is_running(), "what was not set free is gone")
            assert process.is_running()
        finally:
            process.kill()

    @needs("tmux")
    def test_what_runs_in_tmux_can_be_attached_again(self, fairlead: Fairlead) -> None:
        attach = [*fairlead.command("ssh", "-t"), "fl", commands()["tmux"]]
        with Terminal(attach) as terminal:
            terminal.expect(r"[#$] ")  # the status line of tmux may be drawn behind it
            terminal.send("x=kept\r")
            terminal.send("echo first-$x\r")
            terminal.expect("first-kept")
            terminal.process.kill()
        with Terminal(attach) as terminal:
            terminal.send("echo again-$x\r")
            terminal.expect("again-kept")
            terminal.send("exit\r")
