"""`docker compose up --wait` on a real dockerd, and then somebody whom nobody knows logs in."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.images import docker
from tests.wire.browser import Shown, decide
from tests.wire.harness import free_port
from tests.wire.newcomer import make_key
from tests.wire.terminal import Terminal

pytestmark = [pytest.mark.docker, pytest.mark.compose, pytest.mark.timeout(1_800)]


@dataclass
class System:
    """One project of docker-compose.yml, beside whatever else this dockerd runs."""

    directory: Path
    environ: dict[str, str]
    project: str = field(default_factory=lambda: f"fairlead-test-{os.getpid()}")
    ssh_port: int = field(default_factory=free_port)
    page_port: int = field(default_factory=free_port)

    def compose(self, *words: str, check: bool = True) -> str:
        settings = {
            "BASE": docker.base(),
            "TAG": "test",
            "SSH_PORT": str(self.ssh_port),
            "PAGE_PORT": str(self.page_port),
            "COMPOSE_PROJECT_NAME": self.project,
        }
        file = str(docker.ROOT / "docker-compose.yml")
        return docker.docker(
            "compose", "-f", file, *words, timeout_s=1_500, check=check, **self.environ, **settings
        )

    def left(self) -> list[str]:
        """Name what this dockerd has of the project."""
        mine = f"label=com.docker.compose.project={self.project}"
        kinds = (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q"))
        return [name for kind in kinds for name in docker.docker(*kind, "--filter", mine).split()]

    def command(self, program: str = "ssh", *words: str) -> list[str]:
        config = self.directory / "ssh_config"
        config.write_text(
            f"Host fl\n HostName 127.0.0.1\n Port {self.ssh_port}\n User somebody\n"
            f" IdentityFile {self.directory}/id\n IdentitiesOnly yes\n IdentityAgent none\n"
            f" UserKnownHostsFile {self.directory}/known_hosts\n StrictHostKeyChecking accept-new\n"
        )
        return [program, "-F", str(config), *words]

    def known(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command as somebody who is known by now, and may be shown nothing."""
        words = self.command("ssh", "-o", "BatchMode=yes", "fl", command)
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def system(compose_config: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    made = System(tmp_path_factory.mktemp("compose"), compose_config)
    make_key(made.directory / "id")
    try:
        made.compose("up", "--build", "--detach", "--wait")
        yield made
    finally:
        made.compose("down", "-v")
    assert made.left() == []


def test_somebody_new_approves_in_a_browser_and_is_in_a_shell(system: System) -> None:
    with Terminal(system.command("ssh", "fl"), columns=80, rows=60, env={"LC_ALL": "C.UTF-8"}) as terminal:
        code = terminal.expect(r"open +(http\S+)(?s:.*?)enter the code +(\S+)(?s:.*?)nothing to type.*\n")
        assert code.group(1) == f"http://login.localhost:{system.page_port}/device"
        decide(Shown(code.group(1), code.group(2)))
        terminal.expect(r"[#$%>] ?$")
        terminal.send("echo in=$((6 * 7)); pwd; exit 3\r")
        terminal.expect(r"in=42(?s:.*)/home")
        assert terminal.wait() == 3


def test_the_key_is_enough_from_then_on(system: System) -> None:
    done = system.known("id -u; pwd; printf kept > proof")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "10001"
    assert done.stderr == ""


def test_sftp(system: System, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(bytes(range(256)) * 4_096)
    batch = f"put {sent} there\nget there {tmp_path}/back\nls -l there\n"
    done = subprocess.run(
        system.command("sftp", "-b", "-", "fl"), input=batch, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == sent.read_bytes()


def test_who_is_known_outlives_every_container(system: System) -> None:
    system.compose("down")
    system.compose("up", "--detach", "--wait")
    done = system.known("cat proof")
    assert (done.returncode, done.stdout) == (0, "kept"), done.stderr


def test_everything_is_healthy_by_a_check_of_its_own(system: System) -> None:
    states = system.compose("ps", "--format", "{{.Service}} {{.Health}}").splitlines()
    assert sorted(states) == ["nats healthy", "postgres healthy", "proxy healthy"]


def test_nothing_but_ssh_and_the_page_is_published_and_those_on_loopback(system: System) -> None:
    ports = system.compose("ps", "--format", "{{.Ports}}").split()
    published = {port.split("->")[0] for port in ports if "->" in port}
    assert published == {f"127.0.0.1:{system.ssh_port}", f"127.0.0.1:{system.page_port}"}


def test_the_stores_ask_for_passwords_that_are_made_here(system: System) -> None:
    def logs_in(password: str) -> bool:
        psql = ("psql", "-Atw", "-h", "127.0.0.1", "-c", "SELECT 42 || 'nd'")
        words = ("exec", "-T", "-e", f"PGPASSWORD={password}", "postgres", *psql)
        return "42nd" in system.compose(*words, check=False)

    made = system.compose("exec", "-T", "postgres", "cat", "/run/credentials/postgres")
    assert len(made) == 48
    assert logs_in(made)
    assert [guess for guess in ("", "fairlead", "postgres") if logs_in(guess)] == []
    talk = r"exec 3<>/dev/tcp/nats/4222; printf 'CONNECT {}\r\nPING\r\n' >&3; timeout 5 cat <&3 || true"
    said = system.compose("exec", "-T", "proxy", "bash", "-c", talk)
    assert "Authorization Violation" in said
    assert "PONG" not in said


def test_a_database_of_before_takes_the_new_password(system: System) -> None:
    """One that was made with another password, such as the fixed one of an older release."""
    change = "ALTER ROLE fairlead PASSWORD 'fairlead'"
    system.compose("exec", "-T", "postgres", "psql", "-q", "-h", "/tmp", "-c", change)
    system.compose("restart", "postgres")
    system.compose("up", "--detach", "--wait")
    assert system.known("true").returncode == 0


def test_the_proxy_has_no_rights_and_no_build_tools(system: System) -> None:
    done = system.known(
        "id -u; grep CapEff /proc/1/status; command -v gcc pip make || echo none; touch /etc/x"
    )
    lines = done.stdout.split("\n")
    assert lines[0] == "10001"
    assert lines[1].split()[1] == "0000000000000000"
    assert lines[2] == "none"
    assert "Read-only file system" in done.stderr


def test_down_is_quick_and_leaves_nothing(system: System) -> None:
    system.compose("down", "-v")
    assert system.left() == []
    system.compose("up", "--detach", "--wait")
    assert system.known("true").returncode == 255  # nobody is known to a new one
