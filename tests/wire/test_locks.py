"""Locking somebody, or taking a key away, ends live connections: on every replica, within seconds."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.natsserver import NatsServer
from tests.wire.harness import Fairlead, needs

pytestmark = needs("ssh", "ssh-keygen")

DEADLINE_S = 60
REPLICA = "FAIRLEAD_PROXY_ID"


def replica_of(first: Fairlead, directory: Path, **settings: str) -> Fairlead:
    """Make a second proxy on the first one's state, with a client configuration of its own."""
    directory.mkdir()
    second = Fairlead(directory, extra_env={**first.extra_env, "FAIRLEAD_HOME": str(first.home), **settings})
    text = first.ssh_config.read_text().replace(f"Port {first.port}", f"Port {second.port}")
    second.ssh_config.write_text(text)
    return second


@pytest.fixture
def replicas(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Fairlead]]:
    """Two proxies on one database; the settings of a test come as its parameter."""
    settings: dict[str, str] = dict(getattr(request, "param", {}))
    with ExitStack() as stack:
        if settings.pop("nats", None):
            nats = NatsServer(tmp_path / "nats")
            nats.start()
            stack.callback(nats.kill)
            settings["FAIRLEAD_EVENTS__URLS"] = nats.url
        first = Fairlead(tmp_path / "first", extra_env={**settings, REPLICA: "first"})
        first.prepare()
        stack.callback(first.close)
        second = replica_of(first, tmp_path / "second", **{REPLICA: "second"})
        stack.callback(second.stop)
        first.start()
        second.start()
        yield [first, second]


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
