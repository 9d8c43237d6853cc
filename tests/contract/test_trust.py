"""Port 2822: only a proxy of ours, for the right workspace, user and account, on every call; rotations."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from proxy.model import Exec, ExitStatus, Principal, ProgramSpec
from proxy.settings.trust import TrustSettings
from proxy.trust.keeper import Keeper
from proxy.trust.store import FileStore
from proxy.upstream.client import Links
from proxy.upstream.frames import Output
from proxy.upstream.streams import Program
from tests.contract.trusted import Workspace, proxy, workspace


@pytest.fixture
async def keeper(tmp_path: Path) -> Keeper:
    made = Keeper(FileStore(tmp_path / "trust.json"), TrustSettings())
    await made.refresh()
    return made


@pytest.fixture
def ws1(tmp_path: Path, keeper: Keeper) -> Iterator[Workspace]:
    with workspace(tmp_path / "ws1", keeper) as made:
        yield made


@pytest.fixture
async def links(keeper: Keeper) -> AsyncIterator[Links]:
    async with proxy(keeper) as made:
        yield made


async def said(program: Program) -> bytes:
    """Read a program to its end."""
    out = b""
    while not isinstance(frame := await program.read(), ExitStatus):
        if isinstance(frame, Output):
            out += bytes(frame.data)
    return out


async def test_a_program_over_mutual_tls(
    ws1: Workspace, links: Links, principal: Callable[[str], Principal]
) -> None:
    async with links.use(ws1.endpoint) as link:
        async with await link.run(ProgramSpec(Exec("echo hello")), principal("alice"), "p1") as program:
            assert await said(program) == b"hello\n"
        again = links.use(ws1.endpoint)
        async with again as same:
            assert same is link
    await asyncio.sleep(0)
