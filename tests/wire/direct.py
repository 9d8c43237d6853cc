"""Fairlead and a real `sshd` side by side, for tests in which `sshd` is the measure."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from bench.sshd import HOW_TO_INSTALL, find_sshd, sshd_target
from tests.wire.clients import USER
from tests.wire.harness import Fairlead


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client logs in, and with what."""

    port: int
    user: str
    key: Path
    is_ours: bool

    def login(self, **options: object) -> "asyncssh.misc._ACMWrapper[asyncssh.SSHClientConnection]":
        """Log in with asyncssh; for `async with`."""
        return asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=self.user,
            client_keys=[str(self.key)],
            known_hosts=None,
            config=None,
            agent_path=None,
            **options,
        )


def fairlead_place(server: Fairlead, user: str = USER) -> Place:
    """Return where a client of this proxy logs in."""
    return Place(server.port, user, server.key, is_ours=True)


@contextmanager
def sshd_place(directory: Path, key: Path) -> Iterator[Place]:
    """Run a direct `sshd` while inside; skip the test where there is none."""
    if find_sshd() is None:
        pytest.skip(f"optional: {HOW_TO_INSTALL}")
    with sshd_target("sshd", directory / "sshd", key) as target:
        yield Place(target.port, target.login, key, is_ours=False)
