"""Who the server is, how long it waits for a login, and how it notices that a client has gone."""

import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest
from asyncssh.packet import String

from tests.wire.harness import BANNER, Fairlead
from tests.wire.peers import until
from tests.wire.terminal import Terminal

pytestmark = pytest.mark.usefixtures("warm")

SETTINGS = {
    # short, and yet longer than a busy machine takes for what must succeed
    "FAIRLEAD_CONNECTION__KEEPALIVE_INTERVAL_S": "0.7",
    "FAIRLEAD_CONNECTION__KEEPALIVE_COUNT_MAX": "4",
    "FAIRLEAD_LOGIN__KEY_EXCHANGE_TIMEOUT_S": "3",
    "FAIRLEAD_LOGIN__TIMEOUT_S": "4",
}
KINDS = ("ed25519", "ecdsa", "rsa")


def host_keys(fairlead: Fairlead) -> dict[str, bytes]:
    return {kind: (fairlead.home / "host_keys" / f"ssh_host_{kind}_key").read_bytes() for kind in KINDS}


# -------------------------------------------------------------------------------------- host keys


def test_three_kinds_are_made_once_and_are_private(fairlead: Fairlead) -> None:
    before = host_keys(fairlead)
    for kind in KINDS:
        file = fairlead.home / "host_keys" / f"ssh_host_{kind}_key"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert fairlead.ssh("true").returncode == 0
    fairlead.stop()
    fairlead.start()
    assert host_keys(fairlead) == before
    strict = fairlead.ssh("echo same", "-o", "StrictHostKeyChecking=yes")
    assert strict.stdout == b"same\n"


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"])
def test_a_client_may_ask_for_the_kind_that_it_knows(
    fairlead: Fairlead, algorithm: str, tmp_path: Path
) -> None:
    known = f"UserKnownHostsFile={tmp_path}/known"
    done = fairlead.ssh("echo in", "-o", f"HostKeyAlgorithms={algorithm}", "-o", known)
    assert done.stdout == b"in\n", done.stderr


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "rsa-sha2-256", "rsa-sha2-512"])
def test_all_host_keys_are_announced_and_proved(fairlead: Fairlead, tmp_path: Path, algorithm: str) -> None:
    """`hostkeys-00@openssh.com`: a client that knows one of them learns the others, and they can change."""
    known = tmp_path / "known"
    options = ("-o", f"UserKnownHostsFile={known}", "-o", "UpdateHostKeys=yes", "-o", "HashKnownHosts=no")
    first = (*options, "-o", f"HostKeyAlgorithms={algorithm}")
    assert fairlead.ssh("true", *first).returncode == 0
    assert len(known.read_text().splitlines()) == 1
    done = fairlead.ssh(
        "sleep 0.3",
        *options,
        "-o",
        f"HostKeyAlgorithms={algorithm},ssh-ed25519,rsa-sha2-512,ecdsa-sha2-nistp256",
    )
    assert done.returncode == 0
    learned = {tuple(line.split()[1:3]) for line in known.read_text().splitlines()}
    ours = {
        tuple((fairlead.home / "host_keys" / f"ssh_host_{kind}_key.pub").read_text().split()[:2])
        for kind in KINDS
    }
    assert learned == ours


# -------------------------------------------------------------------------------------- keepalives


def test_a_silent_client_is_asked_and_kept(fairlead: Fairlead) -> None:
    """So that no address translator on the way forgets the connection."""
    done = fairlead.ssh("sleep 3.5; echo kept", "-vvv")
    assert done.stdout == b"kept\n"
    assert done.stderr.count(b"keepalive@openssh.com") >= 3


def test_a_client_that_stops_answering_is_let_go_with_all_it_ran(fairlead: Fairlead) -> None:
    with Terminal(
        [*fairlead.command("ssh", "-tt"), "fl", "echo $$ > pid; echo up; exec sleep 1000"]
    ) as terminal:
        terminal.expect("up")
        terminal.process.send_signal(signal.SIGSTOP)
        pid = (fairlead.workspace() / "home" / "pid").read_text().strip()
        until(lambda: fairlead.ssh(f"kill -0 {pid}").returncode != 0, "its program has ended")


# -------------------------------------------------------------------------------- login deadlines


def until_closed(link: socket.socket) -> bytes:
    """Read to the end that the server makes; fails when it makes none."""
    link.settimeout(30)
    data = b""
    while True:
        try:
            piece = link.recv(65_536)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece


def test_whoever_says_nothing_is_disconnected(fairlead: Fairlead) -> None:
    with (
        socket.create_connection(("127.0.0.1", fairlead.port)) as mute,
        socket.create_connection(("127.0.0.1", fairlead.port)) as half_way,
    ):
        half_way.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        assert until_closed(mute).startswith(BANNER)
        assert until_closed(half_way).startswith(BANNER)
    assert fairlead.ssh("echo others").stdout == b"others\n"


def test_whoever_drips_bytes_is_disconnected_too(fairlead: Fairlead) -> None:
    """A deadline, not a pause between bytes."""
    with socket.create_connection(("127.0.0.1", fairlead.port)) as link:
        link.settimeout(0.2)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                link.sendall(b"S")
                if link.recv(4096) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("the server waits for ever")


def test_whoever_exchanges_keys_and_does_not_log_in_is_disconnected(fairlead: Fairlead) -> None:
    with (
        socket.create_connection(("127.0.0.1", fairlead.port)) as link,
        paramiko.Transport(link) as transport,
    ):
        transport.start_client(timeout=30)
        until(lambda: not transport.is_active(), "the server ends it")
    assert fairlead.ssh("echo others").stdout == b"others\n"


def test_a_login_that_succeeded_has_no_deadline(fairlead: Fairlead) -> None:
    assert fairlead.ssh("sleep 4.5; echo done").stdout == b"done\n"


# --------------------------------------------------------------------------------- who may come in


@pytest.fixture(scope="module")
def mallory(fairlead: Fairlead) -> Iterator[Path]:
    """Somebody else with an account and a key of her own."""
    key = fairlead.directory / "mallory"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    fairlead.cli("user", "add", "mallory", "--key", f"{key}.pub")
    return key


def refusal(fairlead: Fairlead, user: str, key: Path) -> tuple[int, str, list[str]]:
    """Status, last words and offered methods of an attempt; the name is left out of the words."""
    command = [
        *("ssh", "-F", "none", "-vv", "-p", str(fairlead.port), "-l", user, "-i", str(key)),
        *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"),
        *("-o", f"UserKnownHostsFile={fairlead.directory}/known_hosts", "127.0.0.1", "true"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    methods = re.findall(r"Authentications that can continue: (\S+)", done.stderr)
    return done.returncode, done.stderr.strip().splitlines()[-1].replace(user, "USER"), methods


def test_a_wrong_key_and_a_wrong_name_are_told_the_same(fairlead: Fairlead, mallory: Path) -> None:
    known = refusal(fairlead, "alice+dev", mallory)
    unknown = refusal(fairlead, "nobody-here+dev", mallory)
    assert known == unknown
    assert known == (255, "USER@127.0.0.1: Permission denied (publickey).", ["publickey", "publickey"])


class Impostor(asyncssh.SSHClient):
    """Offers one key, and signs with another in a request of its own."""

    def __init__(
        self, offered: asyncssh.SSHKey, signer: asyncssh.SSHKey, user: str, *, own_blob: bool
    ) -> None:
        self._offer: list[asyncssh.SSHKey] = [offered]
        self._signer = asyncssh.load_keypairs([signer])[0]
        self._user = user
        self._own_blob = own_blob
        self.signed = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        send: Any = conn.send_userauth_request

        async def swapped(method: bytes, *args: bytes, key: Any = None, trivial: bool = True) -> None:
            if method == b"publickey" and key is not None:
                self.signed = True
                conn._username = self._user
                if self._own_blob:
                    args = (*args[:2], String(self._signer.public_data))
                key = self._signer
            await send(method, *args, key=key, trivial=trivial)

        conn.send_userauth_request = swapped  # type: ignore[method-assign]

    def public_key_auth_requested(self) -> Any:
        return asyncssh.load_keypairs([self._offer.pop()])[0] if self._offer else None


async def enter(fairlead: Fairlead, impostor: Impostor, user: str) -> asyncssh.SSHClientConnection:
    conn, _ = await asyncssh.create_connection(
        lambda: impostor,
        "127.0.0.1",
        fairlead.port,
        username=user,
        known_hosts=None,
        config=None,
        agent_path=None,
        preferred_auth="publickey",
    )
    return conn


@pytest.mark.parametrize("own_blob", [True, False], ids=["her own key", "under the name of his"])
async def test_a_key_that_was_offered_opens_nothing_for_another_that_signs(
    fairlead: Fairlead, mallory: Path, own_blob: bool
) -> None:
    """Alice's public key is no secret: who offers it and signs with another has proved nothing of hers."""
    alice, key = asyncssh.read_private_key(fairlead.key), asyncssh.read_private_key(mallory)
    impostor = Impostor(alice, key, "alice+dev", own_blob=own_blob)
    with pytest.raises(asyncssh.PermissionDenied):
        await enter(fairlead, impostor, "alice+dev")
    assert impostor.signed


async def test_who_offers_as_one_user_and_signs_as_another_is_nobody(
    fairlead: Fairlead, mallory: Path
) -> None:
    """A connection has one name; what was said of the first counts for no other."""
    alice, key = asyncssh.read_private_key(fairlead.key), asyncssh.read_private_key(mallory)
    impostor = Impostor(alice, key, "mallory+dev", own_blob=True)
    with pytest.raises(asyncssh.Error):
        await enter(fairlead, impostor, "alice+dev")
    assert impostor.signed


def test_new_names_do_not_keep_a_connection_that_never_logs_in(fairlead: Fairlead) -> None:
    with (
        socket.create_connection(("127.0.0.1", fairlead.port)) as link,
        paramiko.Transport(link) as transport,
    ):
        transport.start_client(timeout=30)
        with pytest.raises(paramiko.BadAuthenticationType):
            transport.auth_none("somebody")
        for number in range(60):
            if not transport.is_active():
                return
            request = paramiko.Message()
            request.add_byte(bytes([50]))  # SSH_MSG_USERAUTH_REQUEST, RFC 4252 §5
            for text in (f"somebody{number}", "ssh-connection", "none"):
                request.add_string(text)
            transport._send_message(request)  # type: ignore[attr-defined]
            time.sleep(0.5)
    pytest.fail("thirty seconds of new names, with four to log in")
