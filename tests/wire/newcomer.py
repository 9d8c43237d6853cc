"""Somebody whom nobody has registered: keys of their own, OpenSSH's client, and a way to be let in."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.contract.natsserver import NatsServer
from tests.wire.browser import Shown, find_shown
from tests.wire.harness import Fairlead
from tests.wire.listener import Ears
from tests.wire.peers import until

WIDE_OPEN = {
    "starts_per_source_per_hour": 10_000,
    "starts_per_minute": 10_000,
    "max_pending_per_source": 1_000,
}
"""Limits that a module of tests from one address needs; storms have their own."""

LOUD = ("-o", "LogLevel=INFO")


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path


def public_line(key: Path) -> str:
    return key.with_suffix(".pub").read_text().strip()


def fingerprint(key: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


@dataclass
class House:
    """A proxy that tells a real nats-server, and somebody who listens."""

    fairlead: Fairlead
    ears: Ears


@contextmanager
def open_house(
    directory: Path, front_door: Mapping[str, Any] | None, extra_env: Mapping[str, str] | None = None
) -> Iterator[House]:
    """Start a nats-server and a proxy; without `front_door`, with the development provider of `make run`."""
    server = NatsServer(directory / "nats")
    fairlead = Fairlead(directory / "fairlead")
    fairlead.extra_env = {
        "FAIRLEAD_EVENTS__URLS": server.url,
        "FAIRLEAD_LOG__LEVEL": "debug",
        "FAIRLEAD_FRONT_DOOR__DEV_ON_LOOPBACK": "true",
        "FAIRLEAD_FRONT_DOOR__ONBOARDING": json.dumps(WIDE_OPEN),
        **{
            f"FAIRLEAD_FRONT_DOOR__{key.upper()}": json.dumps(value)
            for key, value in (front_door or {}).items()
        },
        **(extra_env or {}),
    }
    try:
        server.start()
        with Ears(server.port) as ears:
            blueprints = fairlead.home / "blueprints"
            blueprints.mkdir(parents=True)
            (blueprints / "dev.yaml").write_text("name: dev\n")
            fairlead.start()
            yield House(fairlead, ears)
    finally:
        fairlead.close()
        server.kill()


class Newcomer:
    """One person; `keys` are tried in order, and there is no ssh-agent."""

    def __init__(self, house: House, name: str, directory: Path, keys: Sequence[Path] = ()) -> None:
        self.house = house
        self.name = name
        self.directory = directory / name
        self.directory.mkdir(exist_ok=True)
        self.keys = tuple(keys) or (make_key(self.directory / "id"),)

    @property
    def config(self) -> Path:
        """A configuration of nothing but what every login of this person needs."""
        path = self.directory / "ssh_config"
        identities = "".join(f" IdentityFile {key}\n" for key in self.keys)
        path.write_text(
            f"Host fl\n HostName 127.0.0.1\n Port {self.house.fairlead.port}\n User {self.name}+dev\n"
            f"{identities} IdentitiesOnly yes\n IdentityAgent none\n"
            f" UserKnownHostsFile {self.directory}/known_hosts\n"
            " StrictHostKeyChecking accept-new\n"
        )
        return path

    def command(self, *words: str, program: str = "ssh", options: Sequence[str] = ()) -> list[str]:
        return [program, "-F", str(self.config), *options, "fl", *words]

    def log_in(self, *words: str, options: Sequence[str] = (), program: str = "ssh") -> "Attempt":
        """Begin a login; nothing is ever typed."""
        return Attempt(self.command(*(words or ("echo in",)), options=options, program=program))

    def silently(self, command: str = "echo in") -> "subprocess.CompletedProcess[bytes]":
        """Log in as somebody who is known, and may show nothing."""
        return subprocess.run(
            self.command(command, options=["-o", "BatchMode=yes"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )


class Attempt:
    """A client at work, without a terminal; what it says is read as it comes."""

    def __init__(self, command: Sequence[str], data: bytes | None = None) -> None:
        self._out: list[bytes] = []
        self._err: list[bytes] = []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        if data is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(data)
            self.process.stdin.close()
        self._threads = [
            threading.Thread(target=_pump, args=(stream, kept), daemon=True)
            for stream, kept in ((self.process.stdout, self._out), (self.process.stderr, self._err))
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        for thread in self._threads:
            thread.join(60)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    @property
    def out(self) -> bytes:
        return b"".join(self._out)

    @property
    def err(self) -> str:
        return b"".join(self._err).decode(errors="replace").replace("\r", "")

    def shown(self) -> Shown:
        """Wait for address and code."""

        def look() -> Shown | None:
            found = find_shown(self.err)
            assert found or self.process.poll() is None, f"ended before a code was shown:\n{self.err}"
            return found

        shown = until(look, "a code is shown")
        assert isinstance(shown, Shown)
        return shown

    def wait(self, timeout_s: float = 60) -> int:
        """Wait for the end; gives the status. Everything was read then."""
        status = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(timeout_s)
        return status

    def refused(self) -> str:
        """Wait for an end without a shell; give what the person read."""
        status = self.wait()
        assert (status, self.out) == (255, b""), f"{status} {self.out!r}\n{self.err}"
        return self.err

    def entered(self) -> str:
        """Wait for an end of `echo in`; give what the person read before."""
        status = self.wait()
        assert (status, self.out) == (0, b"in\n"), f"{status} {self.out!r}\n{self.err}"
        return self.err


def _pump(stream: Any, kept: list[bytes]) -> None:
    while piece := stream.read1(65_536):
        kept.append(piece)


def reference_in(text: str) -> str:
    """Find the reference that a person would quote."""
    found = re.search(r"\(reference ([0-9a-f]+)\)", text)
    assert found, text
    return found.group(1)
