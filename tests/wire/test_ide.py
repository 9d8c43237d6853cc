"""How IDEs use a connection: one shell fed with a script, and then dozens of channels at once."""

import hashlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import userstring
from tests.wire.harness import Fairlead, free_port
from tests.wire.master import Master
from tests.wire.peers import Peer, at_once, connect, echo, noise, received, socks_connect, until
from tests.wire.terminal import Terminal

pytestmark = pytest.mark.usefixtures("warm")

BLUEPRINTS = {"cold": "{}\n"}
CHANNELS = 60
KIB = 1024


class VsCode:
    """`ssh -T -D port host bash` with a script on stdin, as Remote-SSH runs it, left running."""

    def __init__(self, fairlead: Fairlead, *options: str) -> None:
        self.socks = free_port()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.process = subprocess.Popen(
            [*fairlead.command("ssh", "-T", "-D", str(self.socks), *options), "fl", "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self.stdout = b""

    @property
    def stderr(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode()

    def __enter__(self) -> "VsCode":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=30)
        self._stderr.close()

    def say(self, script: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(script.encode())
        self.process.stdin.flush()

    def hear(self, line: str) -> None:
        """Read stdout up to and with a line."""
        assert self.process.stdout
        while not self.stdout.endswith(f"{line}\n".encode()):
            piece = self.process.stdout.readline()
            assert piece, f"stdout ended after {self.stdout!r}"
            self.stdout += piece


@pytest.fixture(scope="module")
def vscode(fairlead: Fairlead) -> Iterator[VsCode]:
    with VsCode(fairlead) as editor:
        editor.say("echo 4f1a: running\n")
        editor.hear("4f1a: running")
        yield editor


def comes_back(link: socket.socket, seed: int) -> bool:
    """Send noise that no other channel carries, and compare what is echoed."""
    sent = b"".join(noise(64 * KIB, seed))
    link.sendall(sent)
    link.shutdown(socket.SHUT_WR)
    return b"".join(received(link)) == sent


# ---------------------------------------------------------------------------------------- VS Code


def test_nothing_of_ours_is_on_stdout_while_the_workspace_starts(fairlead: Fairlead) -> None:
    with VsCode(fairlead, "-o", "User=alice+cold") as editor:
        with fairlead.start_held("alice+cold"):
            editor.say("echo 71b2: start\nprintf 'listeningOn==%s==\\n' 12345\necho 71b2: end\n")
            until(lambda: "preparing workspace" in editor.stderr, "the wait is explained")
        editor.hear("71b2: end")
        assert editor.stdout == b"71b2: start\nlisteningOn==12345==\n71b2: end\n"


def test_dozens_of_tcp_channels_through_socks(vscode: VsCode) -> None:
    with Peer(echo) as server:

        def one(seed: int) -> bool:
            with socks_connect(vscode.socks, "127.0.0.1", server.port) as link:
                return comes_back(link, seed)

        assert at_once([lambda seed=seed: one(seed) for seed in range(CHANNELS)]) == [True] * CHANNELS


def test_dozens_of_channels_to_a_unix_socket(fairlead: Fairlead) -> None:
    """VS Code's server of today listens on one."""
    with Master(fairlead) as master, Peer(echo, master.directory / "server") as server:
        local = master.directory / "local"
        master.forward("-L", f"{local}:{server.path}")

        def one(seed: int) -> bool:
            with connect(local) as link:
                return comes_back(link, seed)

        assert at_once([lambda seed=seed: one(seed) for seed in range(CHANNELS)]) == [True] * CHANNELS


def test_channels_of_all_kinds_at_once_stay_open_together(fairlead: Fairlead, vscode: VsCode) -> None:
    """Requests and answers on channels that all stay open, as an editor with many windows has."""
    with Peer(echo) as server:
        links = at_once(
            [lambda: socks_connect(vscode.socks, "127.0.0.1", server.port) for _ in range(CHANNELS)]
        )
        try:
            for turn in range(5):
                for number, link in enumerate(links):
                    link.sendall(b"%d.%d;" % (turn, number))
                for number, link in enumerate(links):
                    expected = b"%d.%d;" % (turn, number)
                    assert link.recv(len(expected), socket.MSG_WAITALL) == expected
            vscode.say("echo between\n")
            vscode.hear("between")
        finally:
            for link in links:
                link.close()


def test_a_port_that_nobody_listens_on_yet_is_refused_and_asked_again(vscode: VsCode) -> None:
    """The editor knocks until its server is up; each refusal costs one channel and nothing else."""
    port = free_port()
    for _ in range(10):
        with pytest.raises(AssertionError, match="SOCKS refused"):
            socks_connect(vscode.socks, "127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)) as server, socks_connect(vscode.socks, "127.0.0.1", port):
        server.settimeout(30)
        server.accept()[0].close()
    vscode.say("echo unharmed\n")
    vscode.hear("unharmed")


def test_a_user_string_wrapped_in_base64_is_the_same_login(fairlead: Fairlead) -> None:
    """As written into an editor's settings, where `+` and `=` are lost on the way."""
    wrapped = userstring.wrap("alice+dev")
    assert wrapped.startswith("b64-")
    done = fairlead.ssh("pwd", "-l", wrapped)
    assert done.stdout == fairlead.ssh("pwd").stdout
    assert fairlead.ssh("pwd", "-l", wrapped.replace("b64-", "base64-")).stdout == done.stdout


# -------------------------------------------------------------------------------------- JetBrains


@pytest.mark.parametrize("commands", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_commands_one_after_another_while_files_are_uploaded(
    fairlead: Fairlead, tmp_path: Path, commands: int
) -> None:
    """On one connection; every status and every byte of output is its own."""
    payload = tmp_path / "payload"
    payload.write_bytes(b"".join(noise(1024 * KIB)))
    (tmp_path / "batch").write_text("".join(f"put {payload} up{number}\n" for number in range(8)))
    with Master(fairlead) as master:
        upload = subprocess.Popen(
            [*fairlead.command("sftp", "-q", "-b", f"{tmp_path}/batch", *_as_options(master)), "fl"],
            stdout=subprocess.DEVNULL,
        )
        for number in range(commands):
            done = master.ssh(f"echo {number}; exit {number % 256}")
            assert (done.stdout, done.stderr, done.returncode) == (b"%d\n" % number, b"", number % 256)
        assert upload.wait(120) == 0
    home = fairlead.workspace() / "home"
    assert {(home / f"up{number}").read_bytes() == payload.read_bytes() for number in range(8)} == {True}


def test_parallel_uploads_on_one_connection(fairlead: Fairlead, tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(b"".join(noise(1024 * KIB, seed=7)))
    with Master(fairlead) as master:

        def put(number: int) -> int:
            batch = tmp_path / f"batch{number}"
            batch.write_text(f"put {payload} par{number}\n")
            command = [*fairlead.command("sftp", "-q", "-b", str(batch), *_as_options(master)), "fl"]
            return subprocess.run(command, stdout=subprocess.DEVNULL, timeout=120).returncode

        assert at_once([lambda number=number: put(number) for number in range(8)]) == [0] * 8
    home = fairlead.workspace() / "home"
    expected = hashlib.sha256(payload.read_bytes()).hexdigest()
    assert {hashlib.sha256((home / f"par{n}").read_bytes()).hexdigest() for n in range(8)} == {expected}


def test_channels_of_one_connection_do_not_share_what_they_asked_for(fairlead: Fairlead) -> None:
    """Environment, terminal and command are the channel's: a second one does not change the first's."""
    sent = ("-o", "SendEnv=FAIRLEAD_WHO")
    with Master(fairlead, *sent) as master:
        options = (*master.options, *sent)
        command = [*fairlead.command("ssh", "-tt", *options), "fl", "sh"]
        with Terminal(command, env={"FAIRLEAD_WHO": "first"}, columns=111, rows=31) as terminal:
            terminal.ready()
            env = {**os.environ, "FAIRLEAD_WHO": "second"}
            other = fairlead.ssh('echo "<$FAIRLEAD_WHO>"; tty', *options, env=env)
            assert other.stdout == b"<second>\nnot a tty\n"
            assert "first 31 111" in terminal.run('echo "$FAIRLEAD_WHO $(stty size)"')


def test_a_channel_that_nobody_reads_does_not_stop_its_neighbours(fairlead: Fairlead) -> None:
    with Master(fairlead) as master:
        stuck = subprocess.Popen(
            [*fairlead.command("ssh", *master.options), "fl", "exec cat /dev/zero"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        try:
            assert stuck.stdout
            assert stuck.stdout.read(1) == b"\0"
            for number in range(10):
                assert master.ssh(f"echo {number}").stdout == b"%d\n" % number
        finally:
            stuck.kill()
            stuck.communicate()


def _as_options(master: Master) -> tuple[str, ...]:
    """`-S` means another thing to sftp."""
    return "-o", f"ControlPath={master.options[1]}"
