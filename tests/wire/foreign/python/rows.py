"""Arguments, reports and near ends of forwards for the programs in Python. Standard library only."""

import hashlib
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

COMMAND = "cat; echo err >&2; exit 7"
SIZE_TWICE = "stty size; echo $TERM; exit 4\n"
TARGET = "a-target"
PATIENCE_S = 30


class LackingError(Exception):
    """What a library does not offer; the message says what."""


@dataclass(frozen=True)
class Arguments:
    """What the test hands to a program."""

    port: int
    user: str
    key: str
    directory: str
    echo_port: int

    def piece(self) -> bytes:
        """Return what goes through a forward: 64 KiB."""
        return (Path(self.directory) / "payload").read_bytes()[:65_536]

    def file(self, name: str) -> str:
        return f"{self.directory}/{name}"


def arguments() -> Arguments:
    port, user, key, directory, echo_port = sys.argv[1:]
    return Arguments(int(port), user, key, directory, int(echo_port))


def tell(row: str, seen: dict[str, Any]) -> None:
    """Report one row to the test."""
    print(json.dumps({"row": row, **seen}), flush=True)


def told(row: str, exc: Exception) -> None:
    """Report a row that did not come about."""
    tell(row, {"lacks": str(exc)} if isinstance(exc, LackingError) else {"error": repr(exc)})


class Client(Protocol):
    """A connection of one library, with a method for each row."""

    def run(self, command: str, data: bytes = b"") -> dict[str, Any]: ...
    def pty(self) -> dict[str, Any]: ...
    def symlink(self) -> dict[str, Any]: ...
    def transfer(self) -> dict[str, Any]: ...
    def local_forward(self) -> dict[str, Any]: ...
    def remote_forward(self) -> dict[str, Any]: ...
    def rekey(self) -> dict[str, Any]: ...
    def keepalive(self) -> dict[str, Any]: ...


def run_all(client: Client) -> None:
    """Run every row on a client that is logged in, and report each."""
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "login": dict,
        "exec": lambda: client.run(COMMAND, b"out\n"),
        "pty": client.pty,
        "symlink": client.symlink,
        "transfer": client.transfer,
        "local_forward": client.local_forward,
        "remote_forward": client.remote_forward,
        "rekey": client.rekey,
        "keepalive": client.keepalive,
    }
    for row, run in made.items():
        try:
            tell(row, run())
        except Exception as exc:
            told(row, exc)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def free_port() -> int:
    """Return a port on which nothing listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def through(port: int, data: bytes) -> bytes:
    """Send through a port of this machine, end that direction, and return what came back."""
    with connect(port) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(65_536), b""))
