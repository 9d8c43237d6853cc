"""Commands, values and paths are bytes from the client to the program: names in Latin-1 work as on `sshd`."""

import asyncio
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest
from asyncssh.packet import String

from bench.sshd import find_sshd
from tests.wire import older
from tests.wire.conftest import assert_no_bugs
from tests.wire.direct import Place, fairlead_place
from tests.wire.harness import Fairlead, free_port, needs
from tests.wire.peers import PATIENCE_S, Peer, connect, echo, until
from tests.wire.sshd import Sshd

NAME = b"caf\xe9"
BEFORE_BYTES = "847ae68"
"""The last commit whose shelld takes UTF-8 only."""
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "internal-sftp")


@dataclass
class Host:
    """Where OpenSSH's clients log in as `fl`."""

    ssh_config: Path
    place: Place

    def run(
        self, *words: str | bytes, data: bytes = b"", env: dict[bytes, bytes] | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a client: a program, its options and its arguments."""
        program, *rest = words
        return subprocess.run(
            [program, "-F", self.ssh_config, *rest],
            input=data,
            capture_output=True,
            timeout=PATIENCE_S,
            env={**os.environb, **(env or {})},
        )

    @property
    def shell(self) -> str:
        """What rsync and git run in place of `ssh`."""
        return f"ssh -F {self.ssh_config}"


@pytest.fixture(scope="module", params=["fairlead", "sshd"])
def host(
    request: pytest.FixtureRequest, fairlead: Fairlead, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """A proxy, and a real `sshd`."""
    if request.param == "fairlead":
        assert fairlead.ssh("true").returncode == 0
        yield Host(fairlead.ssh_config, fairlead_place(fairlead))
        return
    if find_sshd() is None:
        pytest.skip("optional, not found here: sshd")
    sshd = Sshd(tmp_path_factory.mktemp("sshd"))
    sftp = next(path for path in _SFTP_SERVERS if Path(path).exists() or "/" not in path)
    with sshd.running(["AcceptEnv LANG LC_*", f"Subsystem sftp {sftp}"]):
        yield Host(sshd.ssh_config, Place(sshd.port, sshd.login, sshd.key, is_ours=False))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short path, that the workspace's account may write to."""
    with tempfile.TemporaryDirectory(prefix="fl-") as made:
        yield Path(made)


def _file(folder: Path, name: bytes = NAME) -> bytes:
    return os.fsencode(folder) + b"/" + name


class TestPrograms:
    def test_a_command_arrives_byte_for_byte(self, host: Host) -> None:
        every = bytes(byte for byte in range(1, 256) if byte not in b"'\n")
        done = host.run("ssh", "fl", b"printf %s '" + every + b"' | od -An -v -tx1")
        assert bytes.fromhex(done.stdout.decode()) == every, done.stderr

    def test_a_value_of_the_environment_arrives_byte_for_byte(self, host: Host) -> None:
        done = host.run("ssh", "-o", "SendEnv=LC_TEST", "fl", 'printf %s "$LC_TEST"', env={b"LC_TEST": NAME})
        assert (done.stdout, done.returncode) == (NAME, 0)

    def test_a_program_whose_name_is_not_utf8_runs(self, host: Host, folder: Path) -> None:
        Path(os.fsdecode(_file(folder))).write_text("#!/bin/sh\necho ran\n")
        os.chmod(_file(folder), 0o755)
        assert host.run("ssh", "fl", _file(folder)).stdout == b"ran\n"

    def test_a_program_with_a_terminal_takes_such_a_command_too(self, host: Host) -> None:
        done = host.run("ssh", "-tt", "fl", b"printf %s " + NAME + b" | od -An -tx1")
        assert done.stdout.split() == [b"63", b"61", b"66", b"e9"]

    def test_a_subsystem_of_such_a_name_is_refused_and_the_connection_goes_on(self, host: Host) -> None:
        async def ask() -> str:
            async with host.place.login() as connection:
                opening = cast(Any, connection.create_process)(subsystem=NAME)
                with pytest.raises(asyncssh.ChannelOpenError):
                    await opening
                return str((await connection.run("echo alive")).stdout)

        assert asyncio.run(ask()) == "alive\n"


class TestTransfers:
    @pytest.mark.parametrize("protocol", ["-O", "-s"], ids=["by scp", "by sftp"])
    def test_scp_there_and_back(self, host: Host, folder: Path, tmp_path: Path, protocol: str) -> None:
        (tmp_path / "one").write_bytes(b"data")
        there = host.run("scp", protocol, "-q", str(tmp_path / "one"), b"fl:" + _file(folder))
        assert (there.returncode, there.stderr) == (0, b"")
        assert Path(os.fsdecode(_file(folder))).read_bytes() == b"data"
        back = host.run("scp", protocol, "-q", b"fl:" + _file(folder), str(tmp_path / "two"))
        assert (back.returncode, (tmp_path / "two").read_bytes()) == (0, b"data")

    @needs("rsync")
    def test_rsync_there_and_back(self, host: Host, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "one").write_bytes(b"data")
        rsync: tuple[str | bytes, ...] = ("rsync", "-e", host.shell)
        for source, target in (
            (str(tmp_path / "one"), b"fl:" + _file(folder)),
            (b"fl:" + _file(folder), str(tmp_path / "two")),
        ):
            done = subprocess.run([*rsync, source, target], capture_output=True, timeout=PATIENCE_S)
            assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / "two").read_bytes() == b"data"

    @needs("git")
    def test_git_clones_and_pushes_to_a_repository_of_such_a_name(
        self, host: Host, folder: Path, tmp_path: Path
    ) -> None:
        env = {
            **os.environ,
            "HOME": str(tmp_path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_SSH_COMMAND": host.shell,
            **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

        def git(*words: str | bytes) -> bytes:
            done = subprocess.run(
                ["git", *words], env=env, cwd=tmp_path, capture_output=True, timeout=PATIENCE_S
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        git("init", "-q", "--bare", _file(folder))
        git("clone", "-q", b"fl:" + _file(folder), "one")
        Path(os.fsdecode(os.fsencode(tmp_path / "one") + b"/" + NAME)).write_text("hello\n")
        git("-C", "one", "add", ".")
        git("-C", "one", "commit", "-q", "-m", "one")
        git("-C", "one", "push", "-q", "origin", "HEAD:refs/heads/main")
        git("clone", "-q", "-b", "main", b"fl:" + _file(folder), "two")
        assert NAME in os.listdir(os.fsencode(tmp_path / "two"))


@contextmanager
def _running(host: Host, *options: str | bytes) -> Iterator["subprocess.Popen[bytes]"]:
    client = subprocess.Popen(
        ["ssh", "-F", host.ssh_config, "-N", "-o", "ExitOnForwardFailure=yes", *options, "fl"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield client
    finally:
        client.terminate()
        client.communicate(timeout=PATIENCE_S)


def _answers(link: socket.socket, data: bytes = b"hello") -> bytes:
    link.sendall(data)
    link.shutdown(socket.SHUT_WR)
    return b"".join(iter(lambda: link.recv(4096), b""))


class TestUnixSockets:
    def test_a_connection_to_a_path_that_is_not_utf8(self, host: Host, folder: Path) -> None:
        port = free_port()
        with (
            Peer(echo, Path(os.fsdecode(_file(folder)))),
            _running(host, "-L", b"%d:%s" % (port, _file(folder))),
            connect(port) as link,
        ):
            assert _answers(link) == b"hello"

    def test_a_listener_at_a_path_that_is_not_utf8(self, host: Host, folder: Path) -> None:
        path = Path(os.fsdecode(_file(folder)))
        with Peer(echo) as peer, _running(host, "-R", _file(folder) + b":" + peer.target.encode()) as client:
            until(lambda: path.exists() or client.poll() is not None, "the socket is there")
            with connect(path) as link:
                assert _answers(link) == b"hello"

    def test_such_a_listener_is_cancelled_by_its_path(self, host: Host, folder: Path) -> None:
        path = _file(folder)

        async def cancel() -> tuple[int, bool, int, int]:
            async with host.place.login() as connection:
                bound, _ = await connection._make_global_request(
                    b"streamlocal-forward@openssh.com", String(path)
                )
                was_there = os.path.exists(path)
                done, _ = await connection._make_global_request(
                    b"cancel-streamlocal-forward@openssh.com", String(path)
                )
                again, _ = await connection._make_global_request(
                    b"cancel-streamlocal-forward@openssh.com", String(path)
                )
                return bound, was_there, done, again

        success, failure = 81, 82
        assert asyncio.run(cancel()) == (success, True, success, failure)


class TestRecords:
    def test_what_ran_is_shown_without_loss(self, fairlead: Fairlead) -> None:
        command = b"echo shown-" + NAME + "-€".encode()
        host = Host(fairlead.ssh_config, fairlead_place(fairlead))
        assert host.run("ssh", "fl", command).stdout == b"shown-caf\xe9-\xe2\x82\xac\n"
        shown = r"echo shown-caf\xe9-€"
        [session] = until(lambda: _sessions_with(fairlead, shown), "it is on record")
        assert shown in fairlead.cli("session", "show", session)


def _sessions_with(fairlead: Fairlead, command: str) -> list[str]:
    """Return the ids of the sessions in which a command ran, as it is shown."""
    ids = [str(session["id"]) for session in json.loads(fairlead.cli("session", "list", "--all", "--json"))]
    shown = {one: json.loads(fairlead.cli("session", "show", one, "--json")) for one in ids[:3]}
    return [
        one for one, told in shown.items() if command in [program["command"] for program in told["programs"]]
    ]


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A proxy whose workspaces run a shelld that takes UTF-8 only."""
    directory = tmp_path_factory.mktemp("older")
    older.unpack(BEFORE_BYTES, directory)
    server = Fairlead(
        tmp_path_factory.mktemp("skewed"),
        module="tests.wire.older",
        extra_env={older.DIRECTORY: str(directory)},
    )
    server.prepare()
    try:
        server.start()
        assert server.ssh("true").returncode == 0
        yield Host(server.ssh_config, fairlead_place(server))
    finally:
        server.close()
    assert_no_bugs(server)


class TestAnOlderShelld:
    """A workspace that was started before the proxy was upgraded."""

    def test_text_of_utf8_goes_on_as_before(self, skewed: Host) -> None:
        name = "ä€".encode()
        done = skewed.run(
            "ssh", "-o", "SendEnv=LC_TEST", "fl", b"printf %s$LC_TEST " + name, env={b"LC_TEST": name}
        )
        assert done.stdout == name * 2

    def test_another_command_is_answered_with_a_sentence(self, skewed: Host) -> None:
        done = skewed.run("ssh", "fl", b"echo " + NAME)
        assert done.returncode == 255
        assert (
            b"the command is not UTF-8, which the older shelld of this workspace does not take" in done.stderr
        )
        assert b"stopped and started" in done.stderr

    def test_another_value_is_left_out_and_the_program_runs(self, skewed: Host) -> None:
        done = skewed.run("ssh", "-o", "SendEnv=LC_TEST", "fl", "echo [$LC_TEST]", env={b"LC_TEST": NAME})
        assert (done.returncode, done.stdout) == (0, b"[]\n")
        assert b"left out of the environment, since not UTF-8: LC_TEST" in done.stderr

    def test_another_path_is_refused_with_a_sentence(self, skewed: Host, folder: Path) -> None:
        async def dial() -> str:
            async with skewed.place.login() as connection:
                with pytest.raises(asyncssh.ChannelOpenError) as refused:
                    await cast(Any, connection.open_unix_connection)(_file(folder), encoding=None)
                return refused.value.reason

        assert r"/caf\xe9 is not UTF-8, which the older shelld of this workspace" in asyncio.run(dial())

    def test_nothing_of_it_costs_the_connection(self, skewed: Host) -> None:
        async def ask() -> str:
            async with skewed.place.login() as connection:
                bound, _ = await connection._make_global_request(
                    b"streamlocal-forward@openssh.com", String(b"/tmp/" + NAME)
                )
                assert bound == 82  # REQUEST_FAILURE
                return str((await connection.run("echo alive")).stdout)

        assert asyncio.run(ask()) == "alive\n"
