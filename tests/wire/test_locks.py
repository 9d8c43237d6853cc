"""Locking somebody, or taking a key away, ends live connections: on every replica, within seconds."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead, needs
from tests.wire.replicas import two_proxies

pytestmark = needs("ssh", "ssh-keygen")

DEADLINE_S = 60


@pytest.fixture
def replicas(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Fairlead]]:
    """Two proxies on one database; the settings of a test come as its parameter."""
    settings: dict[str, str] = dict(getattr(request, "param", {}))
    nats = bool(settings.pop("nats", None))
    with two_proxies(tmp_path, settings, nats=nats) as both:
        yield [both.first, both.second]


@asynccontextmanager
async def session(server: Fairlead, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Hold a session that would go on for ever; it has said something when this returns."""
    process = await asyncio.create_subprocess_exec(
        *server.command("ssh", *options),
        "fl",
        "echo in; exec sleep 1000",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            assert await process.stdout.readline() == b"in\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> str:
    """Wait for the end of a session and give what ssh said."""
    async with asyncio.timeout(DEADLINE_S):
        _, err = await process.communicate()
    assert process.returncode == 255
    return err.decode()


async def run(server: Fairlead, *words: str) -> str:
    return await asyncio.to_thread(server.cli, *words)


@pytest.mark.parametrize(
    "replicas",
    [
        {},
        # Nobody looks by himself for an hour: what ends the sessions is the event.
        {"nats": "yes", "FAIRLEAD_IDENTITY__RECHECK_S": "3600"},
    ],
    ids=["by looking", "by NATS"],
    indirect=True,
)
async def test_locking_ends_every_connection_everywhere(replicas: list[Fairlead]) -> None:
    first, second = replicas
    async with session(first) as here, session(second) as there:
        await run(first, "user", "lock", "alice")
        for process in (here, there):
            assert "this user is locked" in await ended(process)
    refused = await asyncio.to_thread(second.ssh, "true")
    assert refused.returncode == 255
    assert b"this user is locked" in refused.stderr
    await run(first, "user", "unlock", "alice")
    for server in replicas:
        again = await asyncio.to_thread(server.ssh, "echo back")
        assert again.stdout == b"back\n", again.stderr


async def test_a_removed_key_ends_what_it_opened_and_nothing_else(replicas: list[Fairlead]) -> None:
    first, second = replicas
    spare = first.directory / "spare"
    await asyncio.to_thread(_keygen, spare)
    await run(first, "key", "add", "alice", f"{spare}.pub")
    rows = (await run(first, "key", "list", "alice")).splitlines()
    fingerprint = next(line for line in rows if "spare" in line).split()[0]
    async with session(first) as kept, session(second, "-i", str(spare), "-o", "IdentityFile=none") as doomed:
        await run(first, "key", "remove", "alice", fingerprint)
        assert "the key of this connection was removed" in await ended(doomed)
        assert kept.returncode is None
        await run(first, "user", "remove", "alice")
        assert "this user was removed" in await ended(kept)


def _keygen(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "spare", "-f", file], check=True)
