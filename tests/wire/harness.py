"""A running Fairlead on loopback and OpenSSH's own clients pointed at it."""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from proxy import userstring
from proxy.workspaces.local.state import State
from tests.wire import forked

START_DEADLINE_S = 30
STOP_DEADLINE_S = 20

BANNER = b"SSH-2.0-OpenSSH_9.9 Fairlead\r\n"
"""What a proxy with default settings says first."""

_made: dict[str, bytes] = {}
"""Slow to make, so that each home gets a copy: the empty database and the RSA host key."""


def _write(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)


def free_port() -> int:
    """Find a port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Fairlead:
    """One proxy process with its own state directory, and what a client needs to reach it."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | forked.Forked | None" = None
    extra_env: dict[str, str] = field(default_factory=dict)
    module: str = "proxy"
    """What `python -m` runs as the proxy."""

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def log(self) -> str:
        return (self.directory / "proxy.log").read_text()

    def env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "FAIRLEAD_HOME": str(self.home),
            "FAIRLEAD_LISTEN": f"127.0.0.1:{self.port}",
            "FAIRLEAD_LOG__FORMAT": "json",
            "FAIRLEAD_FRONT_DOOR__DEV_ON_LOOPBACK": "false",  # tests of onboarding ask for it
            **self.extra_env,
        }

    def cli(self, *words: str) -> str:
        """Run a command of `fairlead` and give what it prints."""
        done = self.run(*words)
        assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"
        return done.stdout

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of `fairlead`, whatever its exit status is."""
        return forked.fairlead(*words, env=self.env())

    def prepare(self, extra: Mapping[str, str] | None = None) -> None:
        """Make a key, a user `alice`, a `dev` blueprint and a client configuration with host `fl`.

        `extra` maps further names, or `dev`, to their YAML.
        """
        self.home.mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self._make_database()
        self._give_rsa_key()
        self.cli("user", "add", "alice", "--key", f"{self.key}.pub")
        blueprints = self.home / "blueprints"
        blueprints.mkdir(exist_ok=True)
        for name, content in {"dev": "name: dev\n", **(extra or {})}.items():
            (blueprints / f"{name}.yaml").write_text(content)
        self.configure_client()

    def _make_database(self) -> None:
        """Make an empty database; the file that one run of the command made serves for all of a process."""
        file = self.home / "fairlead.db"
        if "FAIRLEAD_IDENTITY__DATABASE_URL" in self.extra_env:
            self.cli("database", "upgrade")
        elif "database" in _made:
            _write(file, _made["database"])
        else:
            self.cli("database", "upgrade")
            _made["database"] = file.read_bytes()

    def _give_rsa_key(self) -> None:
        """Store the RSA host key that all homes share; the proxy makes the others, which clients prefer."""
        if "rsa" not in _made:
            key = asyncssh.generate_private_key("ssh-rsa", key_size=3072)
            _made["rsa"] = key.export_private_key("openssh")
        (self.home / "host_keys").mkdir(mode=0o700)
        _write(self.home / "host_keys" / "ssh_host_rsa_key", _made["rsa"])

    def configure_client(self) -> None:
        """Write the client configuration with host `fl`."""
        self.ssh_config.write_text(
            f"Host fl\n HostName 127.0.0.1\n Port {self.port}\n User alice+dev\n IdentityFile {self.key}\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {self.directory}/known_hosts\n"
            " StrictHostKeyChecking accept-new\n LogLevel ERROR\n"
        )

    def start(self) -> None:
        """Start the proxy and wait until it listens."""
        log = self.directory / "proxy.log"
        if self.module == "proxy" and forked.is_wanted():
            self.process = forked.Forked(("serve",), self.env(), log, log)
        else:
            with log.open("ab") as out:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", self.module, "serve"],
                    env=self.env(),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the proxy ended at once:\n{self.log}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the proxy does not listen:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the proxy; workspaces go on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(STOP_DEADLINE_S)

    def close(self) -> None:
        """End the proxy and every workspace that it started."""
        self.stop()
        names = [record.parent.name for record in (self.home / "workspaces").glob("*/workspace.json")]
        if names:
            self.run("workspace", "stop", *names)
        shutil.rmtree(State(self.home).runtime, ignore_errors=True)

    # -------------------------------------------------------------------------- the workspaces

    def workspace(self, user_string: str = "alice+dev") -> Path:
        """Say where the state of a workspace is, there or not."""
        value = userstring.parse(user_string)
        return self.home / "workspaces" / userstring.workspace_name(value, value.blueprint or "dev")

    @contextmanager
    def start_held(self, user_string: str = "alice+dev") -> Iterator[None]:
        """Keep a workspace from starting while inside, as another proxy that stops it would."""
        directory = self.workspace(user_string)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # ---------------------------------------------------------------------------- the clients

    def command(self, program: str, *options: str) -> list[str]:
        """Begin a command line of one of OpenSSH's clients."""
        return [program, "-F", str(self.ssh_config), *options]

    def ssh(
        self,
        command: str,
        *options: str,
        data: bytes = b"",
        timeout_s: float = 60,
        host: str = "fl",
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run one command through ssh, feed it `data`, and wait for its end."""
        return subprocess.run(
            [*self.command("ssh", *options), host, command],
            input=data,
            capture_output=True,
            timeout=timeout_s,
            env=env,
        )


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip, saying what is missing, on a machine without these optional programs."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/lib/openssh"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    return pytest.mark.skipif(bool(missing), reason=f"optional, not found here: {', '.join(missing)}")


async def run_async(
    arguments: Sequence[str], data: bytes = b"", timeout_s: float = 60
) -> tuple[int, bytes, bytes]:
    """Run a client without blocking the loop; gives status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(data)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out, err
