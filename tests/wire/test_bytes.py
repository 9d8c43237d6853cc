"""What goes in comes out: every way in which bytes travel, digest for digest, across key exchanges."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead, free_port, needs
from tests.wire.master import Master
from tests.wire.peers import (
    GIB,
    MIB,
    Peer,
    at_once,
    connect,
    digest,
    digest_of_echo,
    echo,
    file_digest,
    noise,
    socks_connect,
)

CLIENT_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Load:
    """A file of noise, and how often the keys change while it travels."""

    file: Path
    size: int
    sha256: str
    rekey: str

    @property
    def option(self) -> tuple[str, str]:
        return "-o", f"RekeyLimit={self.rekey}"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((8 * MIB, "1M"), id="8M"),
        pytest.param((2 * GIB, "64M"), id="2G", marks=pytest.mark.slow),
    ],
)
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    size, rekey = request.param
    file = tmp_path_factory.mktemp("load") / "noise"
    with file.open("wb") as stream:
        stream.writelines(noise(size))
    yield Load(file, size, file_digest(file), rekey)
    file.unlink()


@pytest.fixture
def home(fairlead: Fairlead) -> Iterator[Path]:
    """A directory in the workspace, seen from outside; emptied afterwards."""
    inside = fairlead.ssh("mktemp -d $HOME/t.XXXXXX").stdout.decode().strip()
    yield Path(inside)
    shutil.rmtree(inside)


@pytest.fixture
def master(fairlead: Fairlead, load: Load) -> Iterator[Master]:
    with Master(fairlead, *load.option) as connection:
        yield connection


def run(arguments: list[str], **options: object) -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(arguments, capture_output=True, timeout=CLIENT_TIMEOUT_S, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr.decode()
    return done


def piped(arguments: list[str], source: Path | None = None) -> str:
    """Run a client with a file as stdin; digest of its stdout, which is never held whole."""
    with open(source or os.devnull, "rb") as stdin:
        process = subprocess.Popen(arguments, stdin=stdin, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout as stdout:
            found = digest(iter(lambda: stdout.read(MIB), b""))
        assert process.wait(60) == 0
    return found


@pytest.mark.parametrize("rekey", [False, True], ids=["one key", "many keys"])
class TestExec:
    def test_a_program_s_output_arrives_whole(self, fairlead: Fairlead, load: Load, rekey: bool) -> None:
        options = load.option if rekey else ()
        assert piped([*fairlead.command("ssh", *options), "fl", f"cat {load.file}"]) == load.sha256

    def test_its_input_arrives_whole(self, fairlead: Fairlead, load: Load, rekey: bool) -> None:
        options = load.option if rekey else ()
        with load.file.open("rb") as stdin:
            done = run([*fairlead.command("ssh", *options), "fl", "sha256sum"], stdin=stdin)
        assert done.stdout.split()[0].decode() == load.sha256

    def test_both_ways_at_once(self, fairlead: Fairlead, load: Load, rekey: bool) -> None:
        options = load.option if rekey else ()
        assert piped([*fairlead.command("ssh", *options), "fl", "cat"], load.file) == load.sha256


def test_stderr_arrives_whole_and_apart_from_stdout(fairlead: Fairlead, load: Load) -> None:
    script = f"cat {load.file} >&2 & cat {load.file}; wait"
    with subprocess.Popen(
        [*fairlead.command("ssh", *load.option), "fl", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        streams = [process.stdout, process.stderr]
        digests = at_once([lambda s=s: digest(iter(lambda: s.read(MIB), b"")) for s in streams])
    assert digests == [load.sha256, load.sha256]


class TestFiles:
    def test_sftp_get_and_put(self, fairlead: Fairlead, load: Load, home: Path, tmp_path: Path) -> None:
        batch = f"put {load.file} {home}/up\nget {home}/up {tmp_path}/down\n"
        run([*fairlead.command("sftp", *load.option, "-b", "-"), "fl"], input=batch.encode())
        assert [file_digest(home / "up"), file_digest(tmp_path / "down")] == [load.sha256] * 2

    @pytest.mark.parametrize("protocol", ["-s", "-O"], ids=["by sftp", "by scp"])
    def test_scp(self, fairlead: Fairlead, load: Load, home: Path, tmp_path: Path, protocol: str) -> None:
        scp = fairlead.command("scp", *load.option, protocol)
        run([*scp, str(load.file), f"fl:{home}/up"])
        run([*scp, f"fl:{home}/up", f"{tmp_path}/down"])
        assert [file_digest(home / "up"), file_digest(tmp_path / "down")] == [load.sha256] * 2

    @needs("rsync")
    def test_rsync(self, fairlead: Fairlead, load: Load, home: Path, tmp_path: Path) -> None:
        shell = " ".join(fairlead.command("ssh", *load.option))
        run(["rsync", "-e", shell, str(load.file), f"fl:{home}/up"])
        run(["rsync", "-e", shell, f"fl:{home}/up", f"{tmp_path}/down"])
        assert [file_digest(home / "up"), file_digest(tmp_path / "down")] == [load.sha256] * 2

    def test_git_clone_and_push(self, fairlead: Fairlead, load: Load, home: Path, tmp_path: Path) -> None:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_SSH_COMMAND": " ".join(fairlead.command("ssh", *load.option)),
            **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

        def git(*words: str) -> str:
            plain = ("-c", "core.compression=0", "-c", "core.bigFileThreshold=1m")
            return run(["git", *plain, *words], env=env, cwd=tmp_path).stdout.decode()

        run([*fairlead.command("ssh"), "fl", f"git init -q --bare {home}/repo"])
        git("init", "-q", "one")
        shutil.copyfile(load.file, tmp_path / "one" / "noise")
        git("-C", "one", "add", "noise")
        git("-C", "one", "commit", "-q", "-m", "noise")
        git("-C", "one", "push", "-q", f"fl:{home}/repo", "HEAD:refs/heads/main")
        git("clone", "-q", "-b", "main", f"fl:{home}/repo", "two")
        assert file_digest(tmp_path / "two" / "noise") == load.sha256


class TestForwards:
    """Both directions at once: noise goes there, the echo comes back, half-closed by either end."""

    def test_local_to_tcp(self, master: Master, load: Load) -> None:
        port = free_port()
        with Peer(echo) as peer:
            master.forward("-L", f"{port}:{peer.target}")
            with connect(port) as link:
                assert digest_of_echo(link, load.size) == load.sha256
            assert peer.result() == load.sha256

    def test_local_from_a_unix_socket_to_a_unix_socket(self, master: Master, load: Load) -> None:
        near, far = master.directory / "near", master.directory / "far"
        with Peer(echo, far) as peer:
            master.forward("-L", f"{near}:{peer.target}")
            with connect(near) as link:
                assert digest_of_echo(link, load.size) == load.sha256

    def test_dynamic_by_socks(self, master: Master, load: Load) -> None:
        port = free_port()
        with Peer(echo) as peer:
            master.forward("-D", str(port))
            with socks_connect(port, "localhost", peer.port) as link:
                assert digest_of_echo(link, load.size) == load.sha256

    def test_remote_on_a_port_that_is_asked_for(self, master: Master, load: Load) -> None:
        port = free_port()
        with Peer(echo) as peer:
            master.forward("-R", f"127.0.0.1:{port}:{peer.target}")
            with connect(port) as link:
                assert digest_of_echo(link, load.size) == load.sha256

    def test_remote_on_a_port_that_is_allocated(self, master: Master, load: Load) -> None:
        with Peer(echo) as peer:
            port = int(master.forward("-R", f"127.0.0.1:0:{peer.target}"))
            with connect(port) as link:
                assert digest_of_echo(link, load.size) == load.sha256

    def test_remote_from_a_unix_socket_to_a_unix_socket(self, master: Master, load: Load) -> None:
        inside, outside = master.directory / "inside", master.directory / "outside"
        with Peer(echo, outside) as peer:
            master.forward("-R", f"{inside}:{peer.target}")
            with connect(inside) as link:
                assert digest_of_echo(link, load.size) == load.sha256

    def test_standard_input_and_output(self, fairlead: Fairlead, load: Load) -> None:
        with Peer(echo) as peer:
            found = piped([*fairlead.command("ssh", *load.option, "-W", peer.target), "fl"], load.file)
        assert found == load.sha256


def test_twenty_channels_of_one_connection_keep_their_bytes_apart(master: Master, load: Load) -> None:
    size = load.size // 20

    def one(seed: int) -> bool:
        data = b"".join(noise(size, seed))
        return bool(
            hashlib.sha256(master.ssh("cat", data=data).stdout).digest() == hashlib.sha256(data).digest()
        )

    assert at_once([lambda seed=seed: one(seed) for seed in range(20)]) == [True] * 20
