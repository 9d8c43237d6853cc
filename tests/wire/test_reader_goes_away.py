"""A reader at the client that leaves, and other words that OpenSSH says to OpenSSH: as with `sshd`."""

import asyncio
import subprocess

import asyncssh
import pytest
from asyncssh.constants import MSG_REQUEST_SUCCESS

from tests.wire.clients import asyncssh_login
from tests.wire.direct import Place
from tests.wire.harness import Fairlead

PATIENCE_S = 60
EOW, NO_MORE_SESSIONS = b"eow@openssh.com", b"no-more-sessions@openssh.com"

pytestmark = pytest.mark.usefixtures("warm")


def leave_after_one_line(place: Place, command: str, data: bytes = b"") -> tuple[int, bytes]:
    """Run `ssh host COMMAND | head -1` with `data` as stdin; gives the exit status of `ssh` and stderr."""
    options = ["-F", "/dev/null", "-i", str(place.key), "-p", str(place.port), "-l", place.user]
    for option in ("IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"):
        options += ["-o", option]
    with subprocess.Popen(
        ["ssh", *options, "-o", "LogLevel=ERROR", "127.0.0.1", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        assert client.stderr is not None
        try:
            assert client.stdout.readline()
            client.stdout.close()
            client.stdin.write(data)
            client.stdin.close()
            return client.wait(PATIENCE_S), client.stderr.read()
        finally:
            client.kill()


class TestOpenSSH:
    def test_a_reader_that_goes_away_ends_a_program_that_writes_on(self, place: Place) -> None:
        assert leave_after_one_line(place, "exec yes") == (255, b"")

    def test_a_program_that_ignores_sigpipe_tells_its_own_status(self, place: Place) -> None:
        assert leave_after_one_line(place, "trap '' PIPE; yes 2>/dev/null; exit 7") == (7, b"")

    def test_a_program_that_writes_no_more_goes_on(self, place: Place) -> None:
        script = "echo one; read a; echo two; read b; exit 3"
        assert leave_after_one_line(place, script, b"a\nb\n") == (3, b"")


class Unread(asyncssh.SSHClientSession[bytes]):
    """A session that reads nothing after its first bytes, so that the window of the channel runs out."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._chan: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        assert self._chan is not None
        self._chan.pause_reading()
        self.begun.set()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.ended.set_result(signal)


async def test_a_client_that_opens_its_window_no_more_hears_the_end_all_the_same(place: Place) -> None:
    async with place.login() as client:
        chan, session = await client.create_session(Unread, "exec yes", encoding=None, window=64 * 1024)
        await asyncio.wait_for(session.begun.wait(), PATIENCE_S)
        chan._send_request(EOW)
        assert await asyncio.wait_for(session.ended, PATIENCE_S) == "PIPE"


async def test_stderr_is_heard_although_stdout_has_no_reader(place: Place) -> None:
    async with place.login() as client:
        process = await client.create_process("trap '' PIPE; yes 2>/dev/null; echo told >&2; exit 7")
        assert await process.stdout.readline() == "y\n"
        process.channel._send_request(EOW)
        done = await asyncio.wait_for(process.wait(), PATIENCE_S)
        assert (done.exit_status, done.stderr) == (7, "told\n")


async def test_a_program_with_a_terminal_is_not_ended(place: Place) -> None:
    async with place.login() as client:
        process = await client.create_process("echo ready; read line; exit 4", term_type="xterm")
        assert "ready" in await process.stdout.readline()
        process.channel._send_request(EOW)
        process.stdin.write("go\n")
        done = await asyncio.wait_for(process.wait(), PATIENCE_S)
        assert done.exit_status == 4


async def test_a_reader_that_left_before_the_program_began_is_remembered(own_fairlead: Fairlead) -> None:
    async with asyncssh_login(own_fairlead) as client:
        with own_fairlead.start_held():
            process = await client.create_process("exec yes")
            process.channel._send_request(EOW)
            assert not await process.channel._make_request(b"keepalive@openssh.com")  # it has arrived
        done = await asyncio.wait_for(process.wait(), PATIENCE_S)
        assert done.exit_signal is not None
        assert (done.exit_signal[0], done.stdout) == ("PIPE", "")


async def test_a_reader_that_leaves_twice_leaves_once(place: Place) -> None:
    async with place.login() as client:
        process = await client.create_process("read line; exit 5")
        for _ in range(3):
            process.channel._send_request(EOW)
        process.stdin.write("go\n")
        done = await asyncio.wait_for(process.wait(), PATIENCE_S)
        assert done.exit_status == 5


async def test_a_session_after_no_more_sessions_ends_the_connection(place: Place) -> None:
    async with place.login() as client:
        process = await client.create_process("cat")
        kind, _ = await client._make_global_request(NO_MORE_SESSIONS)
        assert kind == MSG_REQUEST_SUCCESS
        process.stdin.write("still here\n")
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_S) == "still here\n"
        with pytest.raises((asyncssh.ChannelOpenError, asyncssh.DisconnectError)):
            await client.run("true")
        await asyncio.wait_for(client.wait_closed(), PATIENCE_S)


async def test_a_keepalive_of_a_channel_is_answered(place: Place) -> None:
    """The answer is no, as to every request of a channel that is not known; a client only wants one."""
    async with place.login() as client:
        process = await client.create_process("cat")
        assert await process.channel._make_request(b"keepalive@openssh.com") is False
