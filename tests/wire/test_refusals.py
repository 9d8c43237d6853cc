"""What cannot be had is refused in the words that users of OpenSSH know, and costs nothing else."""

import re
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import asyncssh
import paramiko
import pytest
from asyncssh.packet import String
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.clients import asyncssh_login, paramiko_login
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead, free_port
from tests.wire.master import Master
from tests.wire.peers import connect

SETTINGS = {"FAIRLEAD_CONNECTION__MAX_CHANNELS": "8"}
BLUEPRINTS = {
    "narrow": "forward: {tcp: ['localhost:1'], unix: ['/nowhere/*'], listen_tcp: [], listen_unix: []}\n",
}
LOUD = ("-o", "LogLevel=INFO")


@pytest.fixture(scope="module")
def master(fairlead: Fairlead) -> Iterator[Master]:
    """A connection that must survive everything in this module."""
    with Master(fairlead, *LOUD) as connection:
        yield connection


@pytest.fixture(autouse=True)
def _others_live_on(master: Master) -> Iterator[None]:
    """After every refusal the connection that met it, or stood beside it, still works."""
    yield
    assert master.ssh("echo alive").stdout == b"alive\n"


@pytest.fixture
async def client(fairlead: Fairlead) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh_login(fairlead) as connection:
        yield connection


@pytest.fixture
def transport(fairlead: Fairlead) -> Iterator[paramiko.Transport]:
    with closing(paramiko_login(fairlead)) as connection:
        yield connection


# ------------------------------------------------------------------------------------- forwards


class TestDial:
    def test_a_closed_port_is_refused_in_words(self, fairlead: Fairlead) -> None:
        done = _stdio_forward(fairlead, f"127.0.0.1:{free_port()}")
        assert done.returncode == 255
        assert b"open failed: connect failed: " in done.stderr
        assert b"onnection refused" in done.stderr

    def test_a_name_that_does_not_exist_is_refused_in_words(self, fairlead: Fairlead) -> None:
        done = _stdio_forward(fairlead, "no-such-host.invalid:80")
        assert done.returncode == 255
        assert b"open failed: connect failed: " in done.stderr
        assert b"no-such-host.invalid" in done.stderr

    def test_a_target_outside_the_rules_is_prohibited(self, fairlead: Fairlead) -> None:
        done = _stdio_forward(fairlead, "localhost:2", "-l", "alice+narrow")
        assert done.returncode == 255
        assert b"open failed: administratively prohibited: " in done.stderr

    def test_a_missing_socket_is_refused_in_words(self, master: Master) -> None:
        assert "open failed: connect failed: " in _unix_forward(master, master.directory / "missing")

    def test_a_file_that_is_no_socket_is_refused_in_words(self, master: Master) -> None:
        (master.directory / "file").touch()
        assert "open failed: connect failed: " in _unix_forward(master, master.directory / "file")

    def test_a_socket_outside_the_rules_is_prohibited(self, fairlead: Fairlead) -> None:
        with Master(fairlead, *LOUD, "-l", "alice+narrow") as narrow:
            said = _unix_forward(narrow, narrow.directory / "socket")
            assert "open failed: administratively prohibited: " in said
            assert narrow.ssh("echo alive").stdout == b"alive\n"

    def test_a_socks_client_is_not_left_waiting(self, master: Master) -> None:
        port = free_port()
        master.forward("-D", str(port))
        with connect(port) as link:
            link.sendall(b"\x05\x01\x00")
            assert link.recv(2) == b"\x05\x00"
            link.sendall(b"\x05\x01\x00\x03\x09localhost" + free_port().to_bytes(2, "big"))
            while link.recv(100):
                pass

    @pytest.mark.parametrize("port", [0, 65_536, 2**32 - 1])
    async def test_a_port_that_cannot_be_is_refused(
        self, client: asyncssh.SSHClientConnection, port: int
    ) -> None:
        with pytest.raises(asyncssh.ChannelOpenError) as refused:
            await client.open_connection("127.0.0.1", port, encoding=None)
        assert refused.value.code in (
            asyncssh.OPEN_CONNECT_FAILED,
            asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
        )
        assert (await client.run("echo alive")).stdout == "alive\n"

    @pytest.mark.parametrize("path", ["", "relative", "/x" * 300, "/with\0nul"])
    async def test_a_path_that_cannot_be_is_refused(
        self, client: asyncssh.SSHClientConnection, path: str
    ) -> None:
        with pytest.raises(asyncssh.ChannelOpenError):
            await client.open_unix_connection(path, encoding=None)
        assert (await client.run("echo alive")).stdout == "alive\n"


def _stdio_forward(fairlead: Fairlead, target: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        fairlead.command("ssh", *LOUD, *options, "-W", target, "fl"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )


def _unix_forward(master: Master, target: Path) -> str:
    """Connect through a forward to a path; what the client printed about it."""
    port, before = free_port(), len(master.said)
    master.forward("-L", f"{port}:{target}")
    with connect(port) as link:
        assert link.recv(1) == b""
    return master.said[before:]


class TestListen:
    def test_a_port_outside_the_rules_is_refused(self, fairlead: Fairlead) -> None:
        done = _remote_forward(fairlead, f"{free_port()}:localhost:1", "-l", "alice+narrow")
        assert done.returncode == 255
        assert b"remote port forwarding failed for listen port" in done.stderr

    def test_a_path_outside_the_rules_is_refused(self, fairlead: Fairlead, tmp_path: Path) -> None:
        done = _remote_forward(fairlead, f"{tmp_path}/s:localhost:1", "-l", "alice+narrow")
        assert done.returncode == 255
        assert b"remote port forwarding failed for listen path" in done.stderr

    def test_a_port_that_is_taken_is_refused(self, fairlead: Fairlead) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = _remote_forward(fairlead, f"127.0.0.1:{taken.getsockname()[1]}:localhost:1")
        assert done.returncode == 255
        assert b"remote port forwarding failed for listen port" in done.stderr

    def test_a_path_in_a_directory_that_is_not_there_is_refused(
        self, fairlead: Fairlead, tmp_path: Path
    ) -> None:
        done = _remote_forward(fairlead, f"{tmp_path}/none/s:localhost:1")
        assert done.returncode == 255
        assert b"remote port forwarding failed for listen path" in done.stderr

    def test_cancelling_what_is_not_there_costs_nothing(self, transport: paramiko.Transport) -> None:
        transport.cancel_port_forward("127.0.0.1", 4)
        asked = transport.global_request("cancel-streamlocal-forward@openssh.com", ("/not/there",), wait=True)
        assert asked is None
        assert _says(transport, "echo alive") == b"alive\n"


def _remote_forward(fairlead: Fairlead, spec: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    return fairlead.ssh("true", *LOUD, "-o", "ExitOnForwardFailure=yes", *options, "-R", spec)


# ------------------------------------------------------------------------------------- programs


class TestProgram:
    def test_an_unknown_subsystem_is_refused(self, fairlead: Fairlead) -> None:
        done = fairlead.ssh("no-such-subsystem", "-s")
        assert done.returncode == 255
        assert b"subsystem request failed on channel 0" in done.stderr

    def test_an_unknown_command_is_the_shells_to_refuse(self, fairlead: Fairlead) -> None:
        done = fairlead.ssh("no-such-command-at-all")
        assert done.returncode == 127
        assert b"no-such-command-at-all" in done.stderr

    async def test_a_second_program_on_one_channel_is_refused_and_the_first_goes_on(
        self, client: asyncssh.SSHClientConnection
    ) -> None:
        first = await client.create_process("read line; echo $line")
        for request in (b"exec", b"subsystem"):
            assert await first.channel._make_request(request, String("true")) is False
        assert await first.channel._make_request(b"shell") is False
        assert (await first.communicate("still me\n"))[0] == "still me\n"

    async def test_a_request_that_nobody_knows_is_refused_and_the_program_goes_on(
        self, client: asyncssh.SSHClientConnection
    ) -> None:
        process = await client.create_process("read line; echo $line")
        assert await process.channel._make_request(b"no-such-request@example.com") is False
        assert (await process.communicate("still me\n"))[0] == "still me\n"

    async def test_a_terminal_asked_for_too_late_is_refused(
        self, client: asyncssh.SSHClientConnection
    ) -> None:
        process = await client.create_process("read line; echo $line >&2")
        size = struct.pack(">4I", 80, 24, 0, 0)
        assert await process.channel._make_request(b"pty-req", String("xterm"), size, String(b"\0")) is False
        assert (await process.communicate("still me\n"))[1] == "still me\n"

    async def test_an_environment_too_large_is_cut_and_the_program_runs(
        self, client: asyncssh.SSHClientConnection
    ) -> None:
        env = {"LC_A": "a" * 40_000, "LC_B": "b" * 40_000}
        done = await client.run("echo ${#LC_A} ${#LC_B}", env=env)
        assert done.stdout == "40000 0\n"

    async def test_a_variable_that_is_no_text_arrives_as_it_is(
        self, client: asyncssh.SSHClientConnection
    ) -> None:
        done = await client.run("echo ${#LC_A} ${#LC_B}", env={b"LC_A": b"\xff\xfe", b"LC_B": b"b"})
        assert done.stdout == "2 1\n"

    async def test_a_variable_that_no_program_could_have_is_left_out(
        self, client: asyncssh.SSHClientConnection
    ) -> None:
        done = await client.run("echo ${#LC_B}", env={"LC_\0": "a", "LC_=": "a", "LC_C": "\0", "LC_B": "b"})
        assert done.stdout == "1\n"

    async def test_a_command_with_a_nul_is_refused_in_words(
        self, client: asyncssh.SSHClientConnection
    ) -> None:
        done = await client.run("echo \0")
        assert done.exit_status == 255
        assert "NUL" in str(done.stderr)

    async def test_an_unknown_signal_is_ignored(self, client: asyncssh.SSHClientConnection) -> None:
        process = await client.create_process("read line; echo $line")
        for name in ("NOSUCH", "", "KILL\0", "x" * 10_000):
            process.channel.send_signal(name)
        assert (await process.communicate("still me\n"))[0] == "still me\n"

    async def test_x11_is_refused_and_the_program_runs(self, client: asyncssh.SSHClientConnection) -> None:
        with pytest.raises(asyncssh.ChannelOpenError):
            await client.run("true", x11_forwarding=True, x11_display="localhost:99")
        assert (await client.run("echo alive")).stdout == "alive\n"


class TestConnection:
    def test_a_global_request_that_nobody_knows_is_refused(self, transport: paramiko.Transport) -> None:
        assert transport.global_request("no-such-request@example.com", wait=True) is None
        assert _says(transport, "echo alive") == b"alive\n"

    def test_a_channel_of_a_type_that_nobody_knows_is_refused(self, transport: paramiko.Transport) -> None:
        with pytest.raises(paramiko.ChannelException) as refused:
            transport.open_channel("no-such-type@example.com")
        assert refused.value.code == 3
        assert _says(transport, "echo alive") == b"alive\n"

    @pytest.mark.parametrize("kind", ["x11", "forwarded-tcpip", "auth-agent@openssh.com"])
    def test_a_channel_that_only_a_server_opens_is_refused(
        self, transport: paramiko.Transport, kind: str
    ) -> None:
        with pytest.raises(paramiko.ChannelException) as refused:
            transport.open_channel(kind, ("localhost", 1), ("localhost", 2))
        assert refused.value.code in (1, 2, 3)
        assert _says(transport, "echo alive") == b"alive\n"

    def test_more_channels_than_allowed_are_refused_in_words(
        self, fairlead: Fairlead, transport: paramiko.Transport
    ) -> None:
        opened = [transport.open_session() for _ in range(8)]
        with pytest.raises(paramiko.ChannelException) as refused:
            transport.open_session()
        assert refused.value.code == 4
        for channel in opened:
            channel.close()
        transport.global_request("settle@example.com", wait=True)
        assert _says(transport, "echo alive") == b"alive\n"


def _says(transport: paramiko.Transport, command: str) -> bytes:
    with closing(transport.open_session(timeout=60)) as channel:
        channel.settimeout(60)
        channel.exec_command(command)
        return channel.makefile("rb").read()


# ---------------------------------------------------------------------------------------- login


class TestLogin:
    @pytest.mark.parametrize(
        ("text", "position"),
        [("alice+", 7), ("alice+dev+x=y", 11), ("alice+repo=a+pod=b", 12), ("alice+pod=", 11), ("+dev", 1)],
    )
    def test_a_bad_user_string_is_told_with_its_position(
        self, fairlead: Fairlead, text: str, position: int
    ) -> None:
        done = fairlead.ssh("true", "-l", text)
        assert done.returncode == 255
        assert f"cannot read '{text}'".encode() in done.stderr
        assert b"(character " in done.stderr
        assert f"(character {position})".encode() in done.stderr
        assert b"Expected user" in done.stderr

    def test_a_plus_in_an_ssh_address_is_refused_with_three_ways_that_work(self, fairlead: Fairlead) -> None:
        """OpenSSH makes a blank of it."""
        done = fairlead.ssh("true", host="ssh://alice+dev@fl")
        assert done.returncode == 255
        assert b"cannot read 'alice dev'" in done.stderr
        found = re.search(
            rb"write (%2B) for each, '(~)' for the first, or the whole as (\S+?)[. ]", done.stderr
        )
        assert found, done.stderr
        for written in (f"alice{found[1].decode()}dev", f"alice{found[2].decode()}dev", found[3].decode()):
            done = fairlead.ssh("true", host=f"ssh://{written}@fl")
            assert done.returncode == 0, done.stderr

    def test_a_blueprint_that_does_not_exist_is_told(self, fairlead: Fairlead) -> None:
        done = fairlead.ssh("true", "-l", "alice+no-such-blueprint")
        assert done.returncode == 254
        assert done.stderr.startswith(b"fairlead: ")
        assert b"no-such-blueprint" in done.stderr

    def test_a_workspace_that_does_not_exist_is_told(self, fairlead: Fairlead) -> None:
        done = fairlead.ssh("true", "-l", "alice+pod=no-such-workspace")
        assert done.returncode == 255
        assert b"fairlead: there is no workspace 'no-such-workspace' of alice" in done.stderr

    def test_a_forward_to_a_workspace_that_does_not_exist_is_told(self, fairlead: Fairlead) -> None:
        done = _stdio_forward(fairlead, "localhost:1", "-l", "alice+pod=no-such-workspace")
        assert done.returncode == 255
        assert b"open failed: " in done.stderr
        assert b"no workspace" in done.stderr

    def test_an_account_that_is_not_offered_is_refused_with_254(self, fairlead: Fairlead) -> None:
        done = fairlead.ssh("true", "-l", "alice+dev+user=somebody-else")
        assert done.returncode == 254
        assert b"fairlead: " in done.stderr

    def test_too_many_keys_are_told(self, fairlead: Fairlead, tmp_path: Path) -> None:
        options = []
        for number in range(22):
            file = tmp_path / f"key{number}"
            asyncssh.generate_private_key("ssh-ed25519").write_private_key(file)
            file.chmod(0o600)
            options += ["-i", str(file)]
        config = tmp_path / "config"
        own_key = f"IdentityFile {fairlead.key}"
        config.write_text(fairlead.ssh_config.read_text().replace(own_key, "BatchMode yes"))
        done = subprocess.run(["ssh", "-F", config, *options, "fl", "true"], capture_output=True, timeout=60)
        assert done.returncode == 255
        assert b"Too many authentication failures" in done.stderr


# -------------------------------------------------------------------------------------- nonsense

_cheap = settings(max_examples=25)
_BODY = st.binary(max_size=200)
_GONE = (OSError, EOFError, paramiko.SSHException)


def _send_and_hang_up(fairlead: Fairlead, data: bytes) -> None:
    """Say something, then end; the proxy must end the connection too."""
    with socket.create_connection(("127.0.0.1", fairlead.port), timeout=60) as link:
        try:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            while link.recv(65_536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass


def _plain_packet(payload: bytes) -> bytes:
    """Frame a payload as RFC 4253 §6 wants it before the first key exchange."""
    padding = 8 - (5 + len(payload)) % 8 + 4
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


class TestNonsense:
    """Fuzzing: only the connection that talks nonsense suffers, and nothing of it is a bug of ours."""

    @given(data=st.binary(max_size=2_000))
    @_cheap
    def test_before_the_version(self, fairlead: Fairlead, data: bytes) -> None:
        _send_and_hang_up(fairlead, data)

    @pytest.mark.parametrize(
        "line",
        [b"SSH-2.0-" + b"x" * 100_000, b"SSH-2.0-caf\xc3\xa9\r\n", b"\n" * 10_000],
        ids=["endless", "no ASCII", "empty lines"],
    )
    def test_in_the_version(self, fairlead: Fairlead, line: bytes) -> None:
        _send_and_hang_up(fairlead, line)

    @given(software=st.sampled_from([b"OpenSSH_9.9", b"Other_1"]), data=st.binary(max_size=500))
    @_cheap
    def test_after_the_version(self, fairlead: Fairlead, software: bytes, data: bytes) -> None:
        _send_and_hang_up(fairlead, b"SSH-2.0-" + software + b"\r\n" + data)

    @given(
        software=st.sampled_from([b"OpenSSH_9.9", b"Other_1"]),
        kind=st.sampled_from([1, 2, 3, 4, 5, 6, 7, 20, 20, 20, 21, 30, 31, 50, 80, 90, 255]),
        bodies=st.lists(st.binary(max_size=300), min_size=1, max_size=3),
    )
    @_cheap
    def test_in_packets_of_the_key_exchange(
        self, fairlead: Fairlead, software: bytes, kind: int, bodies: list[bytes]
    ) -> None:
        packets = b"".join(_plain_packet(bytes([kind]) + body) for body in bodies)
        _send_and_hang_up(fairlead, b"SSH-2.0-" + software + b"\r\n" + packets)

    @given(
        messages=st.lists(
            st.tuples(st.sampled_from([*range(1, 8), *range(50, 67), *range(80, 101), 200]), _BODY),
            min_size=1,
            max_size=5,
        )
    )
    @_cheap
    def test_in_messages_after_login(self, fairlead: Fairlead, messages: list[tuple[int, bytes]]) -> None:
        with closing(paramiko_login(fairlead)) as transport:
            transport.open_session(timeout=60)
            for kind, body in messages:
                _send_raw(transport, bytes([kind]) + body)
            _settle(transport)

    @given(
        channel=st.sampled_from([0, 0, 0, 1, 2**32 - 1]),
        name=st.sampled_from(
            [
                "env",
                "pty-req",
                "exec",
                "shell",
                "subsystem",
                "window-change",
                "signal",
                "break",
                "x11-req",
                "auth-agent-req@openssh.com",
                "xon-xoff",
                "exit-status",
                "keepalive@openssh.com",
                "eow@openssh.com",
            ]
        ),
        wants_reply=st.booleans(),
        body=st.binary(max_size=100),
    )
    @_cheap
    def test_in_requests_of_a_channel(
        self, fairlead: Fairlead, channel: int, name: str, wants_reply: bool, body: bytes
    ) -> None:
        with closing(paramiko_login(fairlead)) as transport:
            transport.open_session(timeout=60)
            request = paramiko.Message()
            request.add_byte(b"\x62")
            request.add_int(channel)
            request.add_string(name)
            request.add_boolean(wants_reply)
            _send_raw(transport, request.asbytes() + body)
            _settle(transport)


def _send_raw(transport: paramiko.Transport, payload: bytes) -> None:
    with suppress(*_GONE):  # it was thrown out already
        transport._send_message(paramiko.Message(payload))


def _settle(transport: paramiko.Transport) -> None:
    """Wait until everything sent was read: it was refused, or the connection ended over it."""
    with suppress(*_GONE):
        transport.global_request("settle@example.com", wait=True)


def test_a_client_that_says_nothing_is_let_go_in_time(make_fairlead: MakeFairlead) -> None:
    server = make_fairlead({"FAIRLEAD_LOGIN__KEY_EXCHANGE_TIMEOUT_S": "1"})
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as link:
        while link.recv(1000):
            pass
