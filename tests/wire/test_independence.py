"""What breaks, and what that costs everybody else: nothing."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead, free_port
from tests.wire.master import Master
from tests.wire.peers import MIB, Peer, connect, echo, until
from tests.wire.processes import descendants, every_pid, kill, programs, shelld, words

SETTINGS = {"FAIRLEAD_SHUTDOWN__GRACE_S": "0.5"}


@pytest.fixture(autouse=True)
def _running(fairlead: Fairlead) -> Iterator[None]:
    """Whatever a test ended runs again for the next."""
    yield
    assert fairlead.process is not None
    if fairlead.process.poll() is not None:
        fairlead.start()


def add_user(fairlead: Fairlead, name: str) -> tuple[str, str]:
    """Make another user, who has the same key; gives the option that logs them in."""
    fairlead.cli("user", "add", name, "--key", f"{fairlead.key}.pub")
    return "-l", f"{name}+dev"


def endless(fairlead: Fairlead, *options: str) -> "subprocess.Popen[bytes]":
    """Begin a transfer that never ends by itself, and return when it is under way."""
    process = subprocess.Popen(
        [*fairlead.command("ssh", *options), "fl", "cat /dev/zero"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert len(process.stdout.read(MIB)) == MIB
    threading.Thread(
        target=lambda: [None for _ in iter(lambda: process.stdout.read(MIB), b"")], daemon=True
    ).start()
    return process


def told(process: "subprocess.Popen[bytes]") -> tuple[int, bytes]:
    """Wait for a client's end; its status and what it printed on stderr."""
    assert process.stderr is not None
    with process, process.stderr as stderr:
        said = stderr.read()
        return process.wait(60), said


class TestShelldKilled:
    def test_mid_transfer_it_ends_its_channels_with_255_and_a_sentence(self, fairlead: Fairlead) -> None:
        with Master(fairlead) as master:
            one, two = endless(fairlead, *master.options), endless(fairlead)
            kill(shelld(fairlead))
            for client in (one, two):
                status, said = told(client)
                assert status == 255
                assert said.startswith(b"fairlead: ")
                assert b"workspace" in said

    def test_the_next_channel_gets_a_new_one_on_the_same_connection_and_on_new_ones(
        self, fairlead: Fairlead
    ) -> None:
        with Master(fairlead) as master:
            for _ in range(3):
                assert master.ssh("echo alive").stdout == b"alive\n"
                killed = shelld(fairlead)
                kill(killed)
                assert master.ssh("echo alive").stdout == b"alive\n"
                assert fairlead.ssh("echo alive").stdout == b"alive\n"
                assert shelld(fairlead) != killed

    def test_everything_in_the_workspace_is_gone_with_it(self, fairlead: Fairlead) -> None:
        client = endless(fairlead)
        below = descendants(shelld(fairlead))
        assert below
        kill(shelld(fairlead))
        told(client)
        until(lambda: not below & set(every_pid()), "everything of the workspace is gone")

    def test_its_forwards_end_and_new_ones_work(self, fairlead: Fairlead) -> None:
        with Master(fairlead) as master, Peer(echo) as peer:
            port = free_port()
            master.forward("-L", f"{port}:{peer.target}")
            with connect(port) as link:
                link.sendall(b"x")
                assert link.recv(1) == b"x"
                kill(shelld(fairlead))
                assert _reads_end(link)
            with connect(port) as link:
                link.sendall(b"y")
                assert link.recv(1) == b"y"

    def test_while_it_is_asked_for_a_program_the_asker_is_told(self, fairlead: Fairlead) -> None:
        """A shelld that is stuck answers nothing; killing it frees whoever waits."""
        with Master(fairlead) as master:
            assert master.ssh("true").returncode == 0
            stuck = shelld(fairlead)
            os.kill(stuck, signal.SIGSTOP)
            client = subprocess.Popen(
                [*fairlead.command("ssh", *master.options), "fl", "echo alive"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            with pytest.raises(subprocess.TimeoutExpired):
                client.wait(2)
            kill(stuck)
            out, said = client.communicate(timeout=60)
            assert (client.returncode, out) == (0, b"alive\n") or (
                client.returncode == 255 and said.startswith(b"fairlead: ")
            )
            assert master.ssh("echo alive").stdout == b"alive\n"


def _reads_end(link: socket.socket) -> bool:
    try:
        return link.recv(1) == b""
    except ConnectionResetError:
        return True


class TestProxyKilled:
    def test_it_leaves_no_process_socket_or_zombie_in_the_workspace(self, fairlead: Fairlead) -> None:
        with Peer(echo) as peer, socketed_agent(fairlead) as agent:
            port = free_port()
            script = "sleep 300 & sleep 300; true"
            busy = [
                subprocess.Popen(
                    [*fairlead.command("ssh", *options), "fl", script],
                    env={**os.environ, "SSH_AUTH_SOCK": agent},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                for options in (("-A", "-T"), ("-A", "-tt"), ("-R", f"127.0.0.1:{port}:{peer.target}"))
            ]
            sleeps = lambda: {pid for pid in programs(fairlead) if "sleep" in words(pid)}  # noqa: E731
            until(lambda: len(sleeps()) == 6, "all programs run")
            with connect(port) as link:
                link.sendall(b"x")
                assert link.recv(1) == b"x"
                assert _sockets(fairlead) - {"shelld.sock"}
                fairlead.stop(signal.SIGKILL)
                assert _reads_end(link)
            for client in busy:
                client.wait(60)
        until(lambda: not programs(fairlead), "no program and no zombie is left")
        until(lambda: _sockets(fairlead) == {"shelld.sock"}, "no socket is left")
        until(lambda: not _listens(port), "nobody listens any more")

    def test_another_finds_the_running_workspace(self, fairlead: Fairlead) -> None:
        kept = fairlead.ssh("nohup sleep 300 >/dev/null 2>&1 & echo $!").stdout.decode().strip()
        before = shelld(fairlead)
        fairlead.stop(signal.SIGKILL)
        fairlead.start()
        assert fairlead.ssh(f"kill {kept}").returncode == 0
        assert shelld(fairlead) == before

    def test_one_that_ends_in_order_leaves_the_workspace_running(self, fairlead: Fairlead) -> None:
        assert fairlead.ssh("true").returncode == 0
        before = shelld(fairlead)
        fairlead.stop()
        fairlead.start()
        assert fairlead.ssh("echo alive").stdout == b"alive\n"
        assert shelld(fairlead) == before


class TestProxyAskedToEnd:
    def test_it_tells_the_sessions_busy_ones_too(self, fairlead: Fairlead) -> None:
        with open("/dev/zero", "rb") as zeros:
            receiving = endless(fairlead)
            sending, idle = [
                subprocess.Popen(
                    [*fairlead.command("ssh"), "fl", command], stdin=stdin, stderr=subprocess.PIPE
                )
                for command, stdin in (("exec cat > /dev/null", zeros), ("sleep 60", subprocess.DEVNULL))
            ]
            until(lambda: len(programs(fairlead)) == 3, "every program runs")
            fairlead.stop()
            for client in (receiving, sending, idle):
                status, said = told(client)
                assert status == 255
                assert b"shutting down" in said

    def test_it_lets_them_end_by_themselves(self, make_fairlead: MakeFairlead) -> None:
        server = make_fairlead({"FAIRLEAD_SHUTDOWN__GRACE_S": "30"})
        with subprocess.Popen(
            [*server.command("ssh"), "fl", "echo ready; sleep 1; echo done"], stdout=subprocess.PIPE
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
            server.stop()
            assert client.stdout.read() == b"done\n"
            assert client.wait(60) == 0


def _sockets(fairlead: Fairlead) -> set[str]:
    """Every socket file where the workspace's shelld keeps them."""
    listen = next(word for word in words(shelld(fairlead)) if word.startswith("unix://"))
    directory = Path(listen.removeprefix("unix://")).parent
    return {file.name for file in directory.iterdir() if file.is_socket()}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def socketed_agent(fairlead: Fairlead) -> Iterator[str]:
    """An ssh-agent that holds nothing; gives its socket."""
    path = fairlead.directory / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        until(path.is_socket, "ssh-agent listens")
        yield str(path)
    finally:
        agent.terminate()
        agent.wait(20)


class TestNeighbours:
    """One user's trouble costs another user's workspace nothing."""

    def test_a_stopped_program(self, fairlead: Fairlead, bob: tuple[str, str]) -> None:
        with Master(fairlead) as alice:
            stuck = endless(fairlead, *alice.options)
            for pid in programs(fairlead):
                os.kill(pid, signal.SIGSTOP)
            assert alice.ssh("echo alive").stdout == b"alive\n"
            assert fairlead.ssh("echo alive", *bob).stdout == b"alive\n"
            stuck.kill()
            told(stuck)

    def test_a_stopped_shelld(self, fairlead: Fairlead, bob: tuple[str, str]) -> None:
        assert fairlead.ssh("true").returncode == 0
        pid = shelld(fairlead)
        os.kill(pid, signal.SIGSTOP)
        try:
            waiting = subprocess.Popen(
                [*fairlead.command("ssh"), "fl", "echo alive"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            assert fairlead.ssh("echo alive", *bob).stdout == b"alive\n"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert waiting.communicate(timeout=60)[0] == b"alive\n"

    def test_a_killed_shelld(self, fairlead: Fairlead, bob: tuple[str, str]) -> None:
        theirs = endless(fairlead, *bob)
        assert fairlead.ssh("true").returncode == 0
        kill(shelld(fairlead))
        assert fairlead.ssh("echo alive", *bob).stdout == b"alive\n"
        assert theirs.poll() is None
        theirs.kill()
        told(theirs)

    def test_a_client_that_vanishes_mid_transfer(self, fairlead: Fairlead, bob: tuple[str, str]) -> None:
        theirs = endless(fairlead, *bob)
        vanishing = endless(fairlead)
        vanishing.kill()
        told(vanishing)
        until(lambda: not programs(fairlead), "the vanished client's program is gone")
        assert theirs.poll() is None
        assert fairlead.ssh("echo alive", *bob).stdout == b"alive\n"
        theirs.kill()
        told(theirs)

    def test_a_full_disk(self, fairlead: Fairlead, bob: tuple[str, str]) -> None:
        with full_home(fairlead, "carol") as carol:
            done = fairlead.ssh("head -c 1M /dev/zero > more", *carol)
            assert done.returncode != 0
            assert b"No space left" in done.stderr
            assert fairlead.ssh("echo alive", *carol).stdout == b"alive\n"
            assert fairlead.ssh("echo yes > file && cat file", *bob).stdout == b"yes\n"


@pytest.fixture(scope="module")
def bob(fairlead: Fairlead) -> tuple[str, str]:
    return add_user(fairlead, "bob")


@contextmanager
def full_home(fairlead: Fairlead, name: str) -> Iterator[tuple[str, str]]:
    """A user whose home is a file system of its own, filled to the last byte."""
    login = add_user(fairlead, name)
    home = fairlead.workspace(f"{name}+dev") / "home"
    home.mkdir(parents=True, mode=0o700)
    (home.parent / "lock").touch()  # it tells how old a home is of which there is no record
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M,mode=700", "tmpfs", home], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("optional: a file system of its own needs the right to mount")
    try:
        with (home / "full").open("wb", buffering=0) as full, suppress(OSError):
            while full.write(bytes(4096)):
                pass
        yield login
    finally:
        try:
            fairlead.cli("workspace", "stop", home.parent.name)
        finally:
            subprocess.run(["umount", "--lazy", home], check=True)
