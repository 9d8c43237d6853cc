"""The same promises to every client: OpenSSH with its algorithms, Dropbear, PuTTY, Paramiko, asyncssh."""

import asyncio
import hashlib
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest
from asyncssh.packet import SSHPacket

from tests.wire.harness import BANNER, Fairlead, free_port, needs
from tests.wire.peers import MIB, Peer, at_once, connect, echo, noise, received
from tests.wire.terminal import Terminal

pytestmark = pytest.mark.usefixtures("warm")

BLUEPRINTS = {"dev": "shell: /bin/sh\n"}
SIZE = 8 * MIB
COUNT_AND_HASH = "cat | sha256sum"


@pytest.fixture(scope="module")
def payload() -> bytes:
    return b"".join(noise(SIZE))


@pytest.fixture(scope="module")
def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


@pytest.fixture(scope="module")
def file(fairlead: Fairlead, payload: bytes) -> Path:
    """A file in the workspace; what clients fetch."""
    fairlead.ssh("true")
    made = fairlead.workspace() / "home" / "payload"
    made.write_bytes(payload)
    made.chmod(0o644)
    return made


def run(command: list[str], data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, input=data, capture_output=True, timeout=100)


# ---------------------------------------------------------------------------------------- OpenSSH

CIPHERS = [
    "chacha20-poly1305@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
]
EXCHANGES = [
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "ecdh-sha2-nistp256",
    "diffie-hellman-group16-sha512",
]


def available(kind: str, names: list[str]) -> list[str]:
    """Which of them this machine's `ssh` knows."""
    known = subprocess.run(["ssh", "-Q", kind], capture_output=True, text=True).stdout.split()
    return [name for name in names if name in known]


class TestOpenSsh:
    def test_a_stock_client_ends_up_with_aes_gcm(self, fairlead: Fairlead) -> None:
        """It puts ChaCha20 first, which is half as fast wherever there are AES instructions."""
        done = fairlead.ssh("true", "-v")
        chosen = re.findall(rb"kex: (?:server->client|client->server) cipher: (\S+)", done.stderr)
        assert chosen
        assert set(chosen) <= {b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com"}

    @pytest.mark.parametrize("cipher", CIPHERS)
    def test_each_cipher_carries_bytes_both_ways(
        self, fairlead: Fairlead, payload: bytes, cipher: str
    ) -> None:
        done = fairlead.ssh("cat", "-c", cipher, data=payload[:MIB])
        assert done.stdout == payload[:MIB], done.stderr

    def test_a_client_s_own_order_counts_among_those_it_offers(self, fairlead: Fairlead) -> None:
        ciphers = "Ciphers=chacha20-poly1305@openssh.com,aes256-ctr"
        done = fairlead.ssh("echo in", "-v", "-o", ciphers)
        assert done.stdout == b"in\n"
        assert b"cipher: chacha20-poly1305@openssh.com" in done.stderr

    @pytest.mark.parametrize("exchange", EXCHANGES)
    def test_each_key_exchange(self, fairlead: Fairlead, exchange: str) -> None:
        if not available("kex", [exchange]):
            pytest.skip(f"this OpenSSH does not know {exchange}")
        assert fairlead.ssh("echo in", "-o", f"KexAlgorithms={exchange}").stdout == b"in\n"

    @pytest.mark.parametrize("mac", ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"])
    def test_each_mac(self, fairlead: Fairlead, mac: str) -> None:
        done = fairlead.ssh("echo in", "-c", "aes128-ctr", "-o", f"MACs={mac}")
        assert done.stdout == b"in\n"

    def test_compression(self, fairlead: Fairlead, payload: bytes) -> None:
        data = payload[:MIB] + b"the same again " * 100_000
        done = fairlead.ssh("cat", "-C", "-v", data=data)
        assert done.stdout == data
        assert b"compression: zlib@openssh.com" in done.stderr

    @pytest.mark.parametrize(
        "weak",
        [
            ("-c", "3des-cbc"),
            ("-c", "aes128-ctr", "-o", "MACs=hmac-md5"),
            ("-o", "KexAlgorithms=diffie-hellman-group1-sha1"),
            ("-o", "KexAlgorithms=diffie-hellman-group14-sha1"),
            ("-o", "KexAlgorithms=diffie-hellman-group-exchange-sha256"),
            ("-c", "aes128-ctr", "-o", "MACs=hmac-sha2-256"),
            ("-o", "HostKeyAlgorithms=ssh-rsa"),
        ],
        ids=lambda words: words[-1],
    )
    def test_what_is_broken_is_not_offered(self, fairlead: Fairlead, weak: tuple[str, ...]) -> None:
        unknown = ("-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no")
        done = fairlead.ssh("true", *weak, "-o", "LogLevel=INFO", *unknown)
        assert done.returncode == 255
        assert re.search(rb"no matching|Bad SSH2|unsupported", done.stderr, re.IGNORECASE), done.stderr

    def test_a_rekey_in_the_middle(self, fairlead: Fairlead, payload: bytes) -> None:
        done = fairlead.ssh("cat", "-o", "RekeyLimit=1M", "-v", data=payload)
        assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(payload).digest()
        assert done.stderr.count(b"SSH2_MSG_NEWKEYS sent") > 3


def kexinit_of(link: socket.socket) -> SSHPacket:
    """Read the server's first packet, which comes unasked (RFC 4253 §7.1)."""
    with link.makefile("rb") as stream:
        assert stream.readline().startswith(BANNER)
        length = int.from_bytes(stream.read(4), "big")
        packet = stream.read(length)
    return SSHPacket(packet[1 : -packet[0]])


class OldRsa(asyncssh.SSHClient):
    """Signs with SHA-1, as OpenSSH did before 8.8."""

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._keys = [key]

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        conn._choose_signature_alg = self._choose  # type: ignore[method-assign]

    def _choose(self, keypair: Any) -> bool:
        keypair.set_sig_algorithm(b"ssh-rsa")
        return True

    def public_key_auth_requested(self) -> Any:
        return asyncssh.load_keypairs([self._keys.pop()])[0] if self._keys else None


async def test_an_rsa_key_logs_in_by_sha_2_and_not_by_sha_1(fairlead: Fairlead, tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=3072)
    key.write_private_key(tmp_path / "rsa")
    key.write_public_key(tmp_path / "rsa.pub")
    fairlead.cli("user", "add", "rsa", "--key", f"{tmp_path}/rsa.pub")
    options: dict[str, Any] = {"username": "rsa+dev", "known_hosts": None, "config": None, "agent_path": None}
    for algorithm in ("rsa-sha2-256", "rsa-sha2-512"):
        modern = {"client_keys": [key], "signature_algs": [algorithm]}
        async with asyncssh.connect("127.0.0.1", fairlead.port, **modern, **options) as conn:
            assert (await conn.run("echo in")).stdout == "in\n"
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.create_connection(lambda: OldRsa(key), "127.0.0.1", fairlead.port, **options)


def test_clients_that_want_different_signatures_of_one_host_key_do_not_meet(fairlead: Fairlead) -> None:
    """The RSA host key signs by two algorithms, for many clients at once."""
    known = ("-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no")

    def login(number: int) -> int:
        wanted = f"HostKeyAlgorithms=rsa-sha2-{(256, 512)[number % 2]}"
        return fairlead.ssh("true", "-o", wanted, *known).returncode

    assert at_once([lambda number=number: login(number) for number in range(16)]) == [0] * 16


def test_a_client_that_lets_the_server_speak_first_is_served(fairlead: Fairlead) -> None:
    """Only OpenSSH is known to send its key exchange unasked, and only it is waited for."""
    with socket.create_connection(("127.0.0.1", fairlead.port), timeout=30) as link:
        link.sendall(b"SSH-2.0-Patient_1.0\r\n")
        assert kexinit_of(link).get_byte() == 20


def test_a_post_quantum_key_exchange_is_offered_first(fairlead: Fairlead) -> None:
    with socket.create_connection(("127.0.0.1", fairlead.port), timeout=30) as link:
        link.sendall(b"SSH-2.0-Patient_1.0\r\n")
        packet = kexinit_of(link)
    packet.get_byte()
    packet.get_bytes(16)
    assert packet.get_namelist()[0] == b"mlkem768x25519-sha256"


# --------------------------------------------------------------------------------------- Dropbear


@pytest.fixture
def dbclient(fairlead: Fairlead, tmp_path: Path) -> Callable[..., list[str]]:
    key = tmp_path / "dropbear"
    subprocess.run(
        ["dropbearconvert", "openssh", "dropbear", fairlead.key, key], check=True, capture_output=True
    )

    def command(*words: str) -> list[str]:
        address = ["-p", str(fairlead.port), "-l", "alice+dev", "127.0.0.1"]
        options = [word for word in words if word.startswith("-")]
        return ["dbclient", "-y", "-y", "-i", str(key), *options, *address, *words[len(options) :]]

    return command


@needs("dbclient", "dropbearconvert")
class TestDropbear:
    def test_status_and_both_outputs(self, dbclient: Callable[..., list[str]]) -> None:
        done = run(dbclient("echo out; echo err >&2; exit 7"))
        assert (done.returncode, done.stdout) == (7, b"out\n")
        assert b"err\n" in done.stderr

    def test_bytes_both_ways(self, dbclient: Callable[..., list[str]], payload: bytes, digest: str) -> None:
        assert hashlib.sha256(run(dbclient("cat"), payload).stdout).hexdigest() == digest

    def test_a_terminal(self, dbclient: Callable[..., list[str]]) -> None:
        with Terminal(dbclient("-t", "tty; stty size"), columns=87, rows=21) as terminal:
            terminal.expect("/dev/")
            terminal.expect("21 87")
            assert terminal.wait() == 0

    def test_a_forward(self, dbclient: Callable[..., list[str]], payload: bytes) -> None:
        with Peer(echo) as server:
            port = free_port()
            client = subprocess.Popen(
                dbclient("-N", f"-L{port}:127.0.0.1:{server.port}"), stderr=subprocess.DEVNULL
            )
            try:
                assert_echoes(port, payload[:MIB])
            finally:
                client.terminate()
                client.wait(20)

    def test_a_keepalive(self, dbclient: Callable[..., list[str]]) -> None:
        assert run(dbclient("-K1", "sleep 3; echo kept")).stdout == b"kept\n"


# ------------------------------------------------------------------------------------------ PuTTY


@pytest.fixture
def putty(fairlead: Fairlead, tmp_path: Path) -> Callable[..., list[str]]:
    key = tmp_path / "key.ppk"
    subprocess.run(["puttygen", fairlead.key, "-O", "private", "-o", key], check=True, capture_output=True)
    host_key = (fairlead.home / "host_keys" / "ssh_host_ed25519_key.pub").read_text()
    shown = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=host_key, capture_output=True, text=True)
    fingerprint = shown.stdout.split()[1]

    def command(program: str, *words: str) -> list[str]:
        login = ["-batch", "-hostkey", fingerprint, "-i", str(key), "-P", str(fairlead.port)]
        return [program, *login, *words]

    return command


HERE = "alice+dev@127.0.0.1"


@needs("plink", "psftp", "pscp", "puttygen")
class TestPutty:
    def test_status_and_both_outputs(self, putty: Callable[..., list[str]]) -> None:
        done = run(putty("plink", HERE, "echo out; echo err >&2; exit 7"))
        assert (done.returncode, done.stdout) == (7, b"out\n")
        assert b"err\n" in done.stderr

    def test_bytes_both_ways(self, putty: Callable[..., list[str]], payload: bytes, digest: str) -> None:
        done = run(putty("plink", HERE, "cat"), payload)
        assert hashlib.sha256(done.stdout).hexdigest() == digest

    def test_a_terminal(self, putty: Callable[..., list[str]]) -> None:
        with Terminal(putty("plink", "-t", HERE, "tty; stty size"), columns=87, rows=21) as terminal:
            terminal.expect("/dev/")
            terminal.expect("21 87")
            assert terminal.wait() == 0

    def test_psftp_both_ways(
        self, putty: Callable[..., list[str]], tmp_path: Path, fairlead: Fairlead, file: Path, payload: bytes
    ) -> None:
        batch = tmp_path / "batch"
        back = tmp_path / "back"
        batch.write_text(f"get {file} {back}\nput {back} by-psftp\n")
        done = run(putty("psftp", HERE, "-b", str(batch)))
        assert done.returncode == 0, done.stderr
        assert back.read_bytes() == payload
        assert (fairlead.workspace() / "home" / "by-psftp").read_bytes() == payload

    @pytest.mark.parametrize("protocol", ["-sftp", "-scp"])
    def test_pscp(
        self, putty: Callable[..., list[str]], tmp_path: Path, file: Path, payload: bytes, protocol: str
    ) -> None:
        back = tmp_path / "back"
        done = run(putty("pscp", protocol, f"{HERE}:{file}", str(back)))
        assert done.returncode == 0, done.stderr
        assert back.read_bytes() == payload

    def test_a_forward(self, putty: Callable[..., list[str]], payload: bytes) -> None:
        with Peer(echo) as server:
            port = free_port()
            command = putty("plink", "-N", "-L", f"{port}:127.0.0.1:{server.port}", HERE)
            client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                assert_echoes(port, payload[:MIB])
            finally:
                client.terminate()
                client.wait(20)


# --------------------------------------------------------------------------------------- Paramiko


@pytest.fixture
def paramiko_client(fairlead: Fairlead) -> Iterator[paramiko.SSHClient]:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        "127.0.0.1",
        fairlead.port,
        "alice+dev",
        key_filename=str(fairlead.key),
        look_for_keys=False,
        allow_agent=False,
    )
    with client:
        yield client


class TestParamiko:
    def test_status_and_both_outputs(self, paramiko_client: paramiko.SSHClient) -> None:
        stdin, stdout, stderr = paramiko_client.exec_command("echo out; echo err >&2; exit 7")
        with stdin, stdout, stderr:
            assert (stdout.read(), stderr.read()) == (b"out\n", b"err\n")
            assert stdout.channel.recv_exit_status() == 7

    def test_bytes_both_ways(
        self, paramiko_client: paramiko.SSHClient, payload: bytes, digest: str, file: Path
    ) -> None:
        stdin, stdout, _ = paramiko_client.exec_command(COUNT_AND_HASH)
        stdin.write(payload)
        stdin.channel.shutdown_write()
        assert stdout.read().split()[0].decode() == digest
        _, stdout, _ = paramiko_client.exec_command(f"cat {file}")
        assert hashlib.sha256(stdout.read()).hexdigest() == digest

    def test_a_terminal_and_its_size(self, paramiko_client: paramiko.SSHClient) -> None:
        with paramiko_client.invoke_shell(term="vt100", width=91, height=33) as channel:
            channel.settimeout(60)
            channel.sendall(b"stty size; echo $TERM; exit 4\n")
            shown = b"".join(iter(lambda: channel.recv(4096), b""))
            assert b"33 91" in shown
            assert b"vt100" in shown
            assert channel.recv_exit_status() == 4

    def test_sftp(
        self, paramiko_client: paramiko.SSHClient, payload: bytes, file: Path, tmp_path: Path
    ) -> None:
        with paramiko_client.open_sftp() as sftp:
            sftp.get(str(file), str(tmp_path / "back"))
            assert (tmp_path / "back").read_bytes() == payload
            sftp.put(str(tmp_path / "back"), "by-paramiko")
            assert sftp.stat("by-paramiko").st_size == SIZE
            assert "payload" in sftp.listdir()
            with pytest.raises(FileNotFoundError):
                sftp.stat("nothing-here")

    def test_a_forward(self, paramiko_client: paramiko.SSHClient, payload: bytes) -> None:
        transport = paramiko_client.get_transport()
        assert transport
        with Peer(echo) as server:
            target = ("127.0.0.1", server.port)
            with transport.open_channel("direct-tcpip", target, ("127.0.0.1", 1)) as channel:
                channel.settimeout(60)
                channel.sendall(payload[: 256 * 1024])
                channel.shutdown_write()
                back = b"".join(iter(lambda: channel.recv(65_536), b""))
            assert back == payload[: 256 * 1024]

    def test_a_reverse_forward(self, paramiko_client: paramiko.SSHClient) -> None:
        transport = paramiko_client.get_transport()
        assert transport
        port = transport.request_port_forward("127.0.0.1", 0)
        with connect(port) as link:
            channel = transport.accept(60)
            assert channel
            channel.sendall(b"hello")
            channel.close()
            assert b"".join(received(link)) == b"hello"
        transport.cancel_port_forward("127.0.0.1", port)

    def test_a_rekey_and_a_keepalive(
        self, paramiko_client: paramiko.SSHClient, digest: str, file: Path
    ) -> None:
        transport = paramiko_client.get_transport()
        assert transport
        transport.set_keepalive(1)
        for _ in range(3):
            transport.renegotiate_keys()
            _, stdout, _ = paramiko_client.exec_command(f"sha256sum {file}; sleep 0.5")
            assert stdout.read().split()[0].decode() == digest


# --------------------------------------------------------------------------------------- asyncssh


@pytest.fixture
async def connection(fairlead: Fairlead) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh.connect(
        "127.0.0.1",
        fairlead.port,
        username="alice+dev",
        client_keys=[str(fairlead.key)],
        known_hosts=None,
        config=None,
        rekey_bytes=MIB,
    ) as conn:
        yield conn


class TestAsyncssh:
    async def test_status_and_both_outputs(self, connection: asyncssh.SSHClientConnection) -> None:
        done = await connection.run("echo out; echo err >&2; exit 7")
        assert (done.stdout, done.stderr, done.exit_status) == ("out\n", "err\n", 7)

    async def test_bytes_both_ways_across_rekeys(
        self, connection: asyncssh.SSHClientConnection, payload: bytes
    ) -> None:
        done = await connection.run("cat", input=payload, encoding=None)
        assert done.stdout == payload

    async def test_signals_reach_the_program_and_are_reported(
        self, connection: asyncssh.SSHClientConnection
    ) -> None:
        async with connection.create_process("echo up; exec sleep 1000") as process:
            assert await process.stdout.readline() == "up\n"
            process.send_signal("TERM")
            done = await process.wait()
        assert done.exit_signal
        assert done.exit_signal[0] == "TERM"

    async def test_sftp_in_parallel(self, connection: asyncssh.SSHClientConnection, file: Path) -> None:
        async with connection.start_sftp_client() as sftp:

            async def size(number: int) -> int:
                async with sftp.open(f"parallel{number}", "wb") as remote:
                    await remote.write(b"x" * 100_000)
                return (await sftp.stat(f"parallel{number}")).size or 0

            assert await asyncio.gather(*(size(number) for number in range(20))) == [100_000] * 20


def assert_echoes(port: int, data: bytes) -> None:
    """Send through a forward and read the same back, piece by piece, and then its end."""
    with connect(port) as link:
        for start in range(0, len(data), 32_768):
            piece = data[start : start + 32_768]
            link.sendall(piece)
            got = b""
            while len(got) < len(piece):
                got += link.recv(len(piece) - len(got))
            assert got == piece
        link.shutdown(socket.SHUT_WR)
        assert b"".join(received(link)) == b""
