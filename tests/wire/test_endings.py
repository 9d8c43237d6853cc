"""How programs end: statuses, signals, the last bytes, and the order of the frames."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.wire.clients import asyncssh_login
from tests.wire.harness import Fairlead
from tests.wire.master import Master
from tests.wire.peers import MIB, at_once, noise

SPREAD = (0, 1, 2, 42, 126, 127, 128, 130, 137, 143, 254, 255)
EVERY = pytest.mark.slow
STATUSES = [pytest.param(SPREAD, id="a spread"), pytest.param(range(256), id="every", marks=EVERY)]


@pytest.fixture(scope="module")
def master(fairlead: Fairlead) -> Iterator[Master]:
    with Master(fairlead) as connection:
        yield connection


@pytest.fixture
async def client(fairlead: Fairlead) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A client that tells signals by name, which `ssh` does not."""
    async with asyncssh_login(fairlead) as connection:
        yield connection


# ------------------------------------------------------------------------- statuses and signals


@pytest.mark.parametrize("statuses", STATUSES)
@pytest.mark.parametrize("terminal", ["-T", "-tt"], ids=["pipes", "terminal"])
class TestStatus:
    def test_of_a_command(self, master: Master, statuses: range, terminal: str) -> None:
        def one(status: int) -> int:
            return master.ssh(f"exit {status}", terminal).returncode

        assert _by_four(one, statuses) == list(statuses)

    def test_of_a_shell(self, fairlead: Fairlead, master: Master, statuses: range, terminal: str) -> None:
        def one(status: int) -> int:
            shell = fairlead.command("ssh", *master.options, terminal, "fl")
            return subprocess.run(
                shell, input=b"exit %d\n" % status, capture_output=True, timeout=60
            ).returncode

        assert _by_four(one, statuses) == list(statuses)


def _by_four(call: object, arguments: range) -> list[object]:
    found: list[object] = []
    for begin in range(0, len(arguments), 4):
        found += at_once([lambda a=a: call(a) for a in arguments[begin : begin + 4]])  # type: ignore[operator]
    return found


def _dies_by(name: str) -> str:
    """A command that ends by a signal, even by one that a shell would ignore."""
    code = f"import os, signal as s; s.signal(s.SIG{name}, s.SIG_DFL); os.kill(os.getpid(), s.SIG{name})"
    return f"ulimit -c 0; exec {sys.executable} -c '{code}'"


@pytest.mark.parametrize("terminal", [None, "xterm"], ids=["pipes", "terminal"])
@pytest.mark.parametrize("name", ["HUP", "INT", "TERM", "QUIT", "ABRT", "SEGV", "USR1", "PIPE", "ALRM"])
class TestSignal:
    async def test_that_ends_a_command_arrives_by_name(
        self, client: asyncssh.SSHClientConnection, name: str, terminal: str | None
    ) -> None:
        done = await client.run(_dies_by(name), term_type=terminal)
        assert done.exit_signal is not None
        assert done.exit_signal[:2] == (name, False)

    async def test_that_ends_a_shell_arrives_by_name(
        self, client: asyncssh.SSHClientConnection, name: str, terminal: str | None
    ) -> None:
        done = await client.run(None, input=_dies_by(name) + "\n", term_type=terminal)
        assert done.exit_signal is not None
        assert done.exit_signal[:2] == (name, False)


async def test_a_program_that_is_killed_is_told_as_such(client: asyncssh.SSHClientConnection) -> None:
    done = await client.run("kill -KILL $$")
    assert done.exit_signal is not None
    assert done.exit_signal[0] == "KILL"


@pytest.mark.parametrize("terminal", [None, "xterm"], ids=["pipes", "terminal"])
async def test_a_signal_from_the_client_reaches_the_program(
    client: asyncssh.SSHClientConnection, terminal: str | None
) -> None:
    script = "trap 'echo got USR1; exit 3' USR1; echo ready; while :; do sleep 0.1; done"
    process = await client.create_process(script, term_type=terminal)
    assert "ready" in await process.stdout.readline()
    process.send_signal("USR1")
    done = await process.wait()
    assert "got USR1" in str(done.stdout)
    assert done.exit_status == 3


def test_openssh_reports_a_signal_as_its_own_255(fairlead: Fairlead) -> None:
    assert fairlead.ssh("kill -TERM $$").returncode == 255


# ------------------------------------------------------------------------------ ends by itself


def test_input_that_ends_ends_its_reader(fairlead: Fairlead) -> None:
    done = fairlead.ssh("cat", data=b"x")
    assert (done.returncode, done.stdout) == (0, b"x")


def test_what_follows_the_end_of_input_is_still_heard(fairlead: Fairlead) -> None:
    done = fairlead.ssh("cat; echo done; exit 4", data=b"")
    assert (done.returncode, done.stdout) == (4, b"done\n")


def test_an_empty_input_ends_a_shell(fairlead: Fairlead) -> None:
    done = subprocess.run(
        [*fairlead.command("ssh", "-T"), "fl"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert done.returncode == 0


def test_a_script_piped_into_a_shell_is_run_to_its_end(fairlead: Fairlead) -> None:
    script = b"sleep 0.3\necho one\necho two\n"
    done = subprocess.run(
        [*fairlead.command("ssh", "-T"), "fl"], input=script, capture_output=True, timeout=60
    )
    assert done.stdout.endswith(b"one\ntwo\n")
    assert done.returncode == 0


def test_a_tree_packed_here_is_unpacked_there(fairlead: Fairlead, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(50):
        (tree / f"f{number}").write_bytes(b"".join(noise(20_000, number)))
    with subprocess.Popen(["tar", "c", "-C", tree, "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(
            [
                *fairlead.command("ssh"),
                "fl",
                "mkdir tree && tar x -C tree && cat tree/* | sha256sum && rm -r tree",
            ],
            stdin=tar.stdout,
            capture_output=True,
            timeout=60,
        )
    expected = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(tree.iterdir()))).hexdigest()
    assert done.stderr == b""
    assert done.stdout.split()[0].decode() == expected


def test_a_program_that_reads_nothing_ends_although_input_goes_on(fairlead: Fairlead) -> None:
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            [*fairlead.command("ssh"), "fl", "echo no thanks; exit 5"],
            stdin=endless,
            capture_output=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (5, b"no thanks\n")


def test_a_program_that_closes_its_input_goes_on(fairlead: Fairlead) -> None:
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            [*fairlead.command("ssh"), "fl", "exec <&-; sleep 0.5; echo still here; exit 6"],
            stdin=endless,
            capture_output=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (6, b"still here\n")


def test_a_channel_given_up_while_its_input_is_stuck_ends_its_program(
    fairlead: Fairlead, master: Master
) -> None:
    """A program that does not read leaves input waiting; the close behind it must still be heard."""
    with open("/dev/zero", "rb") as endless:
        command = [*fairlead.command("ssh", *master.options), "fl", "echo $$; exec sleep 300"]
        with subprocess.Popen(command, stdin=endless, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            pid = int(client.stdout.readline())
            assert b"yes" in master.ssh(f"sleep 1; kill -0 {pid} && echo yes").stdout
            client.terminate()
    gone = f"for i in $(seq 300); do kill -0 {pid} 2>/dev/null || exit 0; sleep 0.1; done; exit 1"
    assert master.ssh(gone).returncode == 0


# ---------------------------------------------------------------------------------- last output


class TestLastOutput:
    """A program that writes 1 MiB and exits at once has written 1 MiB."""

    SCRIPT = "head -c 1048576 /dev/zero | tr '\\0' x; exit 9"
    RUNS = (pytest.param(60, id="60"), pytest.param(1000, id="1000", marks=EVERY))

    @pytest.mark.parametrize("runs", [pytest.param(20, id="20"), pytest.param(1000, id="1000", marks=EVERY)])
    def test_on_connections_of_their_own(self, fairlead: Fairlead, runs: int) -> None:
        def one(_: int) -> tuple[int, int]:
            done = fairlead.ssh(self.SCRIPT)
            return done.returncode, len(done.stdout)

        assert set(_by_four(one, range(runs))) == {(9, MIB)}

    @pytest.mark.parametrize("terminal", ["-T", "-tt"], ids=["pipes", "terminal"])
    @pytest.mark.parametrize("runs", RUNS)
    def test_on_channels_of_one_connection(self, master: Master, runs: int, terminal: str) -> None:
        def one(_: int) -> tuple[int, int]:
            done = master.ssh(self.SCRIPT, terminal)
            return done.returncode, len(done.stdout)

        assert set(_by_four(one, range(runs))) == {(9, MIB)}


# ------------------------------------------------------------------------------- order of frames


class Frames(asyncssh.SSHClientSession[bytes]):
    """Writes down what arrives, in order: each callback is one frame of the channel."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bytes = 0
        self.closed = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.bytes += len(data)
        self._note("data")

    def eof_received(self) -> bool:
        self._note("eof")
        return False

    def exit_status_received(self, status: int) -> None:
        self._note(f"exit-status {status}")

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._note(f"exit-signal {signal}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("close")
        self.closed.set()

    def _note(self, what: str) -> None:
        if not self.seen or self.seen[-1] != what:
            self.seen.append(what)


@pytest.mark.parametrize("terminal", [None, "xterm"], ids=["pipes", "terminal"])
@pytest.mark.parametrize(
    ("ending", "frame"), [("exit 7", "exit-status 7"), ("kill -TERM $$", "exit-signal TERM")]
)
@pytest.mark.parametrize("window", [32 * 1024, 2 * MIB], ids=["small window", "large window"])
async def test_the_end_follows_all_output_and_precedes_the_close(
    client: asyncssh.SSHClientConnection, terminal: str | None, ending: str, frame: str, window: int
) -> None:
    _, frames = await client.create_session(
        Frames,
        f"head -c {4 * MIB} /dev/zero | tr '\\0' x; {ending}",
        term_type=terminal,
        encoding=None,
        window=window,
    )
    await asyncio.wait_for(frames.closed.wait(), 60)
    assert frames.seen in (["data", frame, "close"], ["data", frame, "eof", "close"])
    assert frames.bytes == 4 * MIB
