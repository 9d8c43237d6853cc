"""What is measured: a server to log in to, and how to read what it costs."""

import ctypes
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run

import psutil

from bench.processes import Memory, end, memory_of, wait_until

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None)


class BenchError(Exception):
    """A measurement that cannot be made; the sentence is for the person who asked for it."""


@dataclass(frozen=True)
class Target:
    """One server, up and warm."""

    label: str
    login: str
    """The user string."""
    port: int
    identity: Path
    known_hosts: Path
    scratch: str
    """Directory for files of the benchmark as the far side names it; ends in `/`, or empty for its home."""
    cpu: Callable[[], dict[str, float]]
    """Seconds used so far, by kind of process."""
    servers: Callable[[], list[psutil.Process]]
    """The processes that a connection makes bigger."""
    quiet: Callable[[], bool]
    """True when no connection is left whose cost is not yet in `cpu`."""
    product: str = ""
    """Name and version, as announced."""

    def options(self) -> list[str]:
        """Give the client options that select this target and shut out the user's own configuration."""
        words = {
            "IdentityFile": self.identity,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "none",
            "StrictHostKeyChecking": "accept-new",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            # Clients since 9.5 send keystrokes in beats of 20 ms to a server that knows their ping.
            "IgnoreUnknown": "ObscureKeystrokeTiming",
            "ObscureKeystrokeTiming": "no",
            "User": self.login,
            "Port": self.port,
        }
        return ["-F", "none", *(part for key, value in words.items() for part in ("-o", f"{key}={value}"))]

    def ssh(self, command: str | None = None, *options: str) -> list[str]:
        """Build the argument list of an `ssh` that runs `command`, or none."""
        return ["ssh", *self.options(), *options, "127.0.0.1", *([] if command is None else [command])]

    def run(self, command: str, timeout_s: float = 60) -> str:
        """Run a command at the far side and return its output.

        Raises: BenchError with what the client said.
        """
        done = run(
            self.ssh(command), stdin=DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise BenchError(f"{self.label}: {command!r} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def settled_cpu(self) -> dict[str, float]:
        """Read `cpu` when the last connection is accounted for."""
        wait_until(self.quiet, 5)
        return self.cpu()

    def memory(self) -> Memory:
        return memory_of(self.servers())


def free_port() -> int:
    """Name a port of loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def announced(port: int, timeout_s: float = 1.0) -> str:
    """Return the version line of whoever listens, or an empty string when nobody does."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as peer:
        return peer.recv(255).split(b"\r\n")[0].decode("ascii", "replace")
    return ""


@contextmanager
def serving(
    argv: list[str], port: int, log: Path, env: dict[str, str] | None = None, *, adopts: bool = False
) -> Iterator[Popen[bytes]]:
    """Start a server, wait until it announces itself, and end it at the end.

    With `adopts`, descendants whose parent is gone become children of the server, so that what they cost
    is in its books when it waits for them.

    Raises: BenchError with the end of its log when it does not come up within a minute.
    """
    with log.open("ab") as sink:
        become = _adopt if adopts else None
        # Between fork and exec it makes one system call and takes no lock.
        process = Popen(argv, stdin=DEVNULL, stdout=sink, stderr=sink, env=env, preexec_fn=become)  # noqa: PLW1509
    try:
        up = wait_until(
            lambda: process.poll() is not None or announced(port).startswith("SSH-"), 60, every_s=0.1
        )
        if not up or process.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BenchError(f"{Path(argv[0]).name} did not start:\n{tail}")
        yield process
    finally:
        end(process)


def _adopt() -> None:
    """Become a sub-reaper: prctl(2), kept across exec."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def make_key(path: Path) -> Path:
    """Make an Ed25519 key pair without a passphrase."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, stdin=DEVNULL, stdout=PIPE)
    return path
