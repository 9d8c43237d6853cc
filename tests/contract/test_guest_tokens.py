"""Tokens of connections to a shared app: a real shelld is asked in the owner's name, never in the guest's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.access.gateway import Gateway
from proxy.blueprints.catalog import DirectoryCatalog
from proxy.blueprints.sharing import OWNER_ONLY, Guest, Share
from proxy.errors.programs import Refused
from proxy.model import Endpoint, Principal, TcpTarget, TlsMaterial, User, Visit, WebSession
from proxy.settings.blueprints import BlueprintSettings
from proxy.settings.trust import TrustSettings
from proxy.settings.upstream import UpstreamSettings
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore
from proxy.upstream.client import Links
from proxy.upstream.frames import Output
from proxy.workspaces.backend import Features, Report, WorkspaceRequest
from proxy.workspaces.provisioner import Workspaces
from tests.contract.trusted import Workspace, serving, workspace
from tests.fakes.visits import PEER, visit_of

ALICE, BOB = User("alice", id="1"), User("bob", id="2")
SHARED = Share(guests=(Guest("bob", "2"),))


class Minted:
    """The credentials of a proxy, noting for whom each token was made."""

    def __init__(self, keeper: TrustManager) -> None:
        self._keeper = keeper
        self.tokens: list[tuple[str, str, str]] = []

    def material(self) -> TlsMaterial:
        return self._keeper.material()

    def token(self, workspace: str, user: str, account: str) -> str:
        self.tokens.append((workspace, user, account))
        return self._keeper.token(workspace, user, account)


class OneWorkspace:
    """A backend with one workspace that runs; its endpoint names the user of the request, as any does."""

    features = Features(account="worker")
    look_again_s = 60.0

    def __init__(self, there: Workspace) -> None:
        self._there = there

    async def find(self, name: str) -> None:
        return None

    async def holder(self, name: str) -> None:
        return None

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        return replace(self._there.endpoint, user=request.user.name)


class NoRecordings:
    async def forward(self, *_: object) -> None:
        return None


class Record:
    id = "c1-1"
    traffic = cast(Any, None)


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> TrustManager:
    made = TrustManager(FileTrustStore(tmp_path_factory.mktemp("trust") / "trust.json"), TrustSettings())
    asyncio.run(made.refresh())
    return made


@pytest.fixture(scope="module")
def ws1(tmp_path_factory: pytest.TempPathFactory, keeper: TrustManager) -> Iterator[Workspace]:
    with workspace(tmp_path_factory.mktemp("ws1"), keeper) as made:
        yield made


@pytest.fixture
def minted(keeper: TrustManager) -> Minted:
    return Minted(keeper)


@pytest.fixture
async def gateway(tmp_path: Path, ws1: Workspace, minted: Minted) -> AsyncIterator[Gateway]:
    (tmp_path / "dev.yaml").write_text("name: dev\n")
    workspaces = Workspaces(DirectoryCatalog(tmp_path), cast(Any, OneWorkspace(ws1)), BlueprintSettings())
    links = Links(UpstreamSettings(), "p1", minted)
    yield Gateway(workspaces, links, cast(Any, NoRecordings()), cast(Any, None))
    await links.close()


def visit(user: User) -> Visit:
    return Visit(Principal(PEER, user, WebSession("session")), ALICE, visit_of("alice+dev").address)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await writer.drain()


@pytest.mark.parametrize("actor", [ALICE, BOB], ids=["owner", "guest"])
async def test_a_guest_reaches_the_app_by_a_token_of_the_owner(
    gateway: Gateway, minted: Minted, actor: User
) -> None:
    async with serving(greet) as port:
        target = TcpTarget("127.0.0.1", port)
        async with gateway.open_app(visit(actor), target, SHARED, Record()) as (connection, _):
            frame = await connection.read()
            assert bytes(frame.data if isinstance(frame, Output) else frame) == b"hello"
    assert {user for _, user, _ in minted.tokens} == {"alice"}
    assert {account for _, _, account in minted.tokens} == {""}


async def test_who_is_not_admitted_causes_no_token_at_all(gateway: Gateway, minted: Minted) -> None:
    for user, share in (
        (BOB, OWNER_ONLY),
        (replace(BOB, id="3"), SHARED),
        (replace(BOB, locked=True), SHARED),
    ):
        with pytest.raises(Refused):
            async with gateway.open_app(visit(user), TcpTarget("127.0.0.1", 1), share, Record()):
                pytest.fail("it was opened")
    assert minted.tokens == []
