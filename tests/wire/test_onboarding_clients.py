"""Clients that cannot show where to approve learn so at once, and in words."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.wire.browser import decide, find_shown
from tests.wire.harness import needs
from tests.wire.newcomer import Attempt, House, Newcomer, fingerprint, make_key, open_house
from tests.wire.peers import until
from tests.wire.raw import RawClient

FAILED = "fairlead.auth.failed"
SENTENCE = "approve this login in a browser to come in (not possible with BatchMode)"
BOUND_S = 10
"""The promise is one second from the proved key on; clients on a shared machine are given room to start."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house"), None) as opened:
        yield opened


def _told_once(house: House, person: Newcomer, *reasons: str) -> None:
    (failed,) = house.ears.wait(person.name, FAILED)
    assert failed["reasons"] == list(reasons)
    assert failed["fingerprints"] == [fingerprint(person.keys[0])]


@pytest.mark.parametrize(
    ("name", "program", "options"),
    [
        ("batch", "ssh", ("-o", "BatchMode=yes")),
        ("nokbd", "ssh", ("-o", "KbdInteractiveAuthentication=no")),
        ("onlykey", "ssh", ("-o", "PreferredAuthentications=publickey")),
        ("sftpb", "sftp", ("-b", "/dev/null")),
    ],
)
def test_openssh_that_may_not_ask(
    house: House, tmp_path: Path, name: str, program: str, options: Sequence[str]
) -> None:
    person = Newcomer(house, name, tmp_path)
    begun = time.monotonic()
    done = subprocess.run(
        person.command(program=program, options=options),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert time.monotonic() - begun < BOUND_S
    said = done.stderr.decode()
    assert done.returncode == 255, said
    assert f"the user {name} is not known here yet" in said
    assert SENTENCE in said
    assert "Permission denied (keyboard-interactive)" in said
    _told_once(house, person, "approval_not_shown")


@needs("scp")
def test_scp_that_may_not_ask(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "copier", tmp_path)
    command = ["scp", "-B", "-F", str(person.config), str(person.config), "fl:there"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode != 0
    assert SENTENCE in done.stderr.decode()


def test_paramiko_without_a_handler(house: House, tmp_path: Path) -> None:
    """What is left to try is its answer, and why is in its banner."""
    person = Newcomer(house, "paramiko", tmp_path)
    key = paramiko.Ed25519Key.from_private_key_file(str(person.keys[0]))
    with paramiko.Transport(("127.0.0.1", house.fairlead.port)) as transport:
        transport.start_client(timeout=60)
        begun = time.monotonic()
        assert transport.auth_publickey("paramiko+dev", key) == ["keyboard-interactive"]
        assert time.monotonic() - begun < BOUND_S
        assert SENTENCE in (transport.get_banner() or b"").decode()
        with pytest.raises(paramiko.SSHException):
            transport.open_session(timeout=60)
    _told_once(house, person, "approval_not_shown")


def test_paramikos_client_prints_and_waits(house: House, tmp_path: Path) -> None:
    """It asks for the service once more before the second method, as it does before a second key."""
    person = Newcomer(house, "ansible", tmp_path)
    script = (
        "import paramiko, sys; client = paramiko.SSHClient()\n"
        "client.set_missing_host_key_policy(paramiko.AutoAddPolicy())\n"
        "client.connect('127.0.0.1', int(sys.argv[1]), 'ansible+dev', key_filename=sys.argv[2],\n"
        "               allow_agent=False, look_for_keys=False, timeout=60)\n"
        "print(client.exec_command('echo in')[1].read().decode(), end='')\n"
    )
    command = [sys.executable, "-u", "-c", script, str(house.fairlead.port), str(person.keys[0])]
    with Attempt(command) as attempt:
        shown = until(lambda: find_shown(attempt.out.decode()), "a code is shown")
        decide(shown)
        assert attempt.wait() == 0, attempt.err
        assert attempt.out.endswith(b"in\n")


def test_paramiko_with_a_wrong_key_before_the_right_one(house: House, tmp_path: Path) -> None:
    """Known users too: each key is asked for with the service before it."""
    person = Newcomer(house, "manykeys", tmp_path)
    house.fairlead.cli("user", "add", "manykeys", "--key", f"{person.keys[0]}.pub")
    with paramiko.Transport(("127.0.0.1", house.fairlead.port)) as transport:
        transport.start_client(timeout=60)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey(
                "manykeys+dev", paramiko.Ed25519Key.from_private_key_file(str(make_key(tmp_path / "wrong")))
            )
        assert (
            transport.auth_publickey(
                "manykeys+dev", paramiko.Ed25519Key.from_private_key_file(str(person.keys[0]))
            )
            == []
        )


async def test_asyncssh_without_a_handler(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "asyncssh", tmp_path)
    heard: list[str] = []

    class Client(asyncssh.SSHClient):
        def auth_banner_received(self, msg: str, lang: str) -> None:
            heard.append(msg)

        def kbdint_auth_requested(self) -> None:
            return None

    begun = time.monotonic()
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            house.fairlead.port,
            username="asyncssh",
            client_keys=[str(person.keys[0])],
            client_factory=Client,
            known_hosts=None,
            config=None,
            agent_path=None,
        )
    assert time.monotonic() - begun < BOUND_S
    assert SENTENCE in "".join(heard)
    _told_once(house, person, "approval_not_shown")


def test_a_client_without_any_key(house: House) -> None:
    """Not even a key: told what it takes, by a client that would like to be asked something."""
    with RawClient(house.fairlead.port) as client:
        client.keyboard("keyless")
        assert client.hear() == ("failure", ["publickey"], False)
        assert "log in with an SSH key (ssh-keygen -t ed25519 makes one)" in client.banners
    (failed,) = house.ears.wait("keyless", FAILED)
    assert failed["reasons"] == ["onboarding.key_not_proved"]


def test_within_a_second_of_the_proved_key(house: House, tmp_path: Path) -> None:
    """The refusal itself, without a client's own start: the better of a few, since machines are shared."""
    person = Newcomer(house, "quick", tmp_path)
    key = paramiko.Ed25519Key.from_private_key_file(str(person.keys[0]))
    took: list[float] = []
    for _ in range(5):
        with RawClient(house.fairlead.port) as client:
            begun = time.monotonic()
            client.prove("quick", key)
            assert client.hear() == ("failure", ["keyboard-interactive"], True)
            took.append(time.monotonic() - begun)
            until(lambda: SENTENCE in client.banners, "the banner has come")
    assert min(took) < 1
    begun_for = [line for line in house.fairlead.log.splitlines() if "onboarding begun" in line]
    assert all('"user": "ansible"' in line for line in begun_for)  # nothing was spent on the others
