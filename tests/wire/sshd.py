"""A real `sshd` of this machine, for rules of which it is the measure."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.sshd import find_sshd, privilege_separation_folder
from tests.wire.harness import START_DEADLINE_S, free_port


class Sshd:
    """One `sshd` as the current user, who is also whom it lets in."""

    def __init__(self, directory: Path) -> None:
        """Make keys and a client configuration; `directory` must exist."""
        self.directory = directory
        self.port = free_port()
        self.login = pwd.getpwuid(os.getuid()).pw_name
        self.key = directory / "id_ed25519"
        self.ssh_config = directory / "ssh_config"
        for key in (self.key, directory / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        shutil.copy(f"{self.key}.pub", directory / "authorized_keys")
        self.ssh_config.write_text(
            f"Host fl\n HostName 127.0.0.1\n Port {self.port}\n User {self.login}\n IdentityFile {self.key}\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {directory}/known_hosts\n"
            " StrictHostKeyChecking accept-new\n LogLevel ERROR\n"
        )

    @contextmanager
    def running(self, settings: Sequence[str]) -> Iterator["Sshd"]:
        """Serve with these lines of sshd_config(5) besides what every test needs."""
        program = find_sshd()
        assert program is not None
        config = self.directory / "sshd_config"
        lines = [
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.directory}/host_key",
            f"AuthorizedKeysFile {self.directory}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no",
            "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no",
            *settings,
        ]
        config.write_text("\n".join(lines) + "\n")
        with privilege_separation_folder(), (self.directory / "sshd.log").open("wb") as log:
            command = [program, "-D", "-e", "-f", config, *_lenient(program, config)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                self._wait(process)
                yield self
            finally:
                process.terminate()
                process.wait()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            assert process.poll() is None, (self.directory / "sshd.log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.directory / "sshd.log").read_text())


def _lenient(program: str, config: Path) -> list[str]:
    """Return the option that keeps `sshd` since 9.8 from refusing an address after failures, where known."""
    option = ["-o", "PerSourcePenalties=no"]
    known = subprocess.run([program, "-t", "-f", config, *option], capture_output=True)
    return option if known.returncode == 0 else []
