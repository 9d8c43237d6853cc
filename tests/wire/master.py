"""One SSH connection of OpenSSH that others share: `ControlMaster`, as IDEs and scripts use it."""

import subprocess
import tempfile
from pathlib import Path

from tests.wire.harness import Fairlead
from tests.wire.peers import until


class Master:
    """A running `ssh -M -N`; every client given its `options` opens channels on that connection.

    `directory` is a short-lived directory with a short path, for sockets.
    """

    def __init__(self, fairlead: Fairlead, *options: str) -> None:
        self._fairlead = fairlead
        self._scratch = tempfile.TemporaryDirectory(prefix="fl-")
        self.directory = Path(self._scratch.name)
        self._log = self.directory / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                fairlead.command("ssh", "-M", "-N", "-S", self._path, *options, "fl"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def _path(self) -> str:
        return str(self.directory / "c")

    @property
    def options(self) -> tuple[str, ...]:
        """For a client that is to use this connection and no other."""
        return "-S", self._path, "-o", "ProxyCommand=false"

    @property
    def said(self) -> str:
        """What the client printed so far."""
        return self._log.read_text()

    def __enter__(self) -> "Master":
        until(self._stands, "the connection stands")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:  # it may be stuck in a write to a client that reads no more
            self.process.kill()
            self.process.wait(20)
        self._scratch.cleanup()

    def _stands(self) -> bool:
        assert self.process.poll() is None, self.said
        return self.control("check").returncode == 0

    def control(self, word: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Ask something of the connection: `check`, `forward`, `cancel`, `exit`."""
        return subprocess.run(
            self._fairlead.command("ssh", *self.options, "-O", word, *options, "fl"),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def forward(self, kind: str, spec: str) -> str:
        """Add a forward (`-L`, `-R`, `-D`); gives the port that `-R 0:…` was allocated."""
        done = self.control("forward", kind, spec)
        assert done.returncode == 0, done.stderr + self.said
        return done.stdout.strip()

    def ssh(self, command: str, *options: str, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run one command on a channel of this connection."""
        return self._fairlead.ssh(command, *self.options, *options, data=data)
