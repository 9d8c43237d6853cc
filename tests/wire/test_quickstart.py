"""`fairlead run` for somebody who is new: the line it prints, typed as it stands, gives a prompt."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from tests.wire.harness import Fairlead
from tests.wire.peers import until
from tests.wire.terminal import Terminal


class Newcomer:
    """A person with a home of their own, in which `fairlead run` and then `ssh` are typed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "newcomer"
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self.server = Fairlead(directory)
        self.said = directory / "said"
        self.process: subprocess.Popen[bytes] | None = None
        # `ssh` looks for its files where passwd says, which is the home of whoever runs the tests.
        tools, config = directory / "tools", directory / "ssh_config"
        tools.mkdir()
        config.write_text(f"UserKnownHostsFile {directory}/known_hosts\nIdentityFile none\n")
        shim = tools / "ssh"
        shim.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
        shim.chmod(0o755)
        self.env = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "FAIRLEAD_HOME": str(self.server.home),
            "FAIRLEAD_LISTEN": f"127.0.0.1:{self.server.port}",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.server.close()

    def run(self) -> str:
        """Type `fairlead run` and wait for the line; gives it."""
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy", "run"],
                env={**self.env, "PYTHONPATH": os.getcwd()},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._answers, "the line to type is printed")
        found = re.search(r"(?m)^ssh .*$", self.said.read_text())
        assert found
        return found.group()

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.said.read_text()
        return re.search(r"(?m)^ssh .*\n", self.said.read_text()) is not None

    def stop(self) -> int:
        """Press Ctrl-C where `fairlead run` was typed."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    def type(self, line: str) -> Terminal:
        """Type a line in another terminal, in the same directory."""
        return Terminal(["sh", "-c", f"cd {self.home} && exec {line}"], env=self.env)

    def key(self, name: str) -> Path:
        file = self.home / ".ssh" / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        return file


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    with Newcomer(tmp_path) as person:
        yield person


def logs_in(newcomer: Newcomer, line: str) -> None:
    """Take the line as it stands: no question, a prompt, and the status of what was done there."""
    with newcomer.type(line) as terminal:
        terminal.expect(r"[#$%>] ?$")
        assert "yes/no" not in terminal.raw.decode()
        terminal.send("echo here''-i-am; exit 5\r")
        terminal.expect("here-i-am")
        assert terminal.wait() == 5


def test_with_a_key_in_the_home(newcomer: Newcomer) -> None:
    newcomer.key("id_ed25519")
    logs_in(newcomer, newcomer.run())


def test_with_a_key_in_an_ssh_agent_only(newcomer: Newcomer) -> None:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fl-"))
        socket = Path(directory) / "agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
        stack.callback(agent.wait, 20)
        stack.callback(agent.terminate)
        until(socket.exists, "ssh-agent listens")
        newcomer.env["SSH_AUTH_SOCK"] = str(socket)
        key = newcomer.key("elsewhere")
        subprocess.run(["ssh-add", "-q", key], env=newcomer.env, check=True, stderr=subprocess.DEVNULL)
        for half in (key, key.with_suffix(".pub")):
            half.unlink()
        line = newcomer.run()
        assert " -i " not in line
        logs_in(newcomer, line)


def test_without_any_key_and_again(newcomer: Newcomer) -> None:
    """A key is made; a second start changes nothing."""
    line = newcomer.run()
    logs_in(newcomer, line)
    assert list((newcomer.home / ".ssh").iterdir()) == []
    made = {
        file: file.read_bytes()
        for file in newcomer.server.home.rglob("*")
        if file.is_file() and "workspaces" not in file.parts and ".db" not in file.name
    }
    assert any(file.name == "dev.yaml" for file in made)
    assert newcomer.stop() in (0, 130)
    assert newcomer.run() == line
    assert {file: file.read_bytes() for file in made} == made
    logs_in(newcomer, line)


def test_a_port_that_is_taken_gets_a_sentence(newcomer: Newcomer) -> None:
    newcomer.run()
    again = subprocess.run(
        [sys.executable, "-m", "proxy", "run"],
        env={**newcomer.env, "PYTHONPATH": os.getcwd()},
        cwd=newcomer.home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 1
    assert re.fullmatch(r"fairlead: 127\.0\.0\.1:\d+ is taken [^\n]*\n", again.stderr)
    assert again.stdout == ""


def test_at_a_terminal_the_line_is_shown_whole_and_ctrl_c_ends_it(newcomer: Newcomer) -> None:
    """However narrow the window is, the line can be copied."""
    newcomer.key("a-key-with-a-rather-long-name-that-does-not-fit")
    command = [sys.executable, "-m", "proxy", "run"]
    env = {**newcomer.env, "PYTHONPATH": os.getcwd()}
    with Terminal(command, columns=50, rows=40, env=env) as terminal:
        shown = terminal.expect(r"(?m)^ *(ssh .*?@127\.0\.0\.1)\r")
        assert "long-name" in shown.group(1)
        terminal.expect("Ctrl-C stops Fairlead")
        terminal.send(b"\x03")
        assert terminal.wait() in (0, 130)
        assert "Traceback" not in terminal.raw.decode()
