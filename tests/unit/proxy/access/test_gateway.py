"""Programs and forwards: policy, workspace, link, in this order; a second try where nothing happened yet."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.access.gateway import Gateway
from proxy.access.policy import GROUPS_ENDED
from proxy.blueprints.catalog import DirectoryCatalog
from proxy.blueprints.sharing import OWNER_ONLY
from proxy.errors.programs import Refused
from proxy.errors.upstream import Draining, Unreachable
from proxy.model import (
    ALLOWED,
    Endpoint,
    Exec,
    KeyProof,
    Principal,
    ProgramSpec,
    Progress,
    Reserved,
    TcpTarget,
    User,
    Visit,
)
from proxy.settings.blueprints import BlueprintSettings
from proxy.workspaces.backend import Features, Report, WorkspaceRequest
from proxy.workspaces.provisioner import Workspaces
from tests.fakes.visits import KEY, PEER, visit_of

ALICE = User("alice", id="1")
OWN = visit_of("alice+dev", ALICE)
BOBS = Visit(Principal(PEER, User("bob", id="2"), KeyProof(KEY)), ALICE, OWN.address)
"""bob in a workspace of alice."""
TARGET = TcpTarget("localhost", 8_080)
MAKE = ProgramSpec(Exec("make"))


class Stream:
    """A program or a connection; notes whether it is open."""

    is_open = False

    async def __aenter__(self) -> "Stream":
        self.is_open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.is_open = False


class There:
    """A workspace, its backend and the links to it; `faults` are what the next requests meet."""

    def __init__(self) -> None:
        self.features = Features(account="worker")
        self.look_again_s = 60.0
        self.ensured = 0
        self.held = 0
        self.calls: list[tuple[Any, ...]] = []
        self.unreachable = 0
        self.draining = 0
        self.stream = Stream()

    async def find(self, name: str) -> None:
        return None

    async def holder(self, name: str) -> None:
        return None

    def check_access(self, *_: object) -> None:
        """Allow everything, as the local backend does."""

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        self.ensured += 1
        return Endpoint(request.name, "unix:///nowhere", "1")

    async def obtain(self, endpoint: Endpoint) -> "There":
        if self.unreachable:
            self.unreachable -= 1
            raise Unreachable("gone")
        return self

    @asynccontextmanager
    async def hold(self, link: "There") -> AsyncIterator["There"]:
        self.held += 1
        try:
            yield link
        finally:
            self.held -= 1

    def _open(self, *call: Any) -> Stream:
        self.calls.append(call)
        if self.draining:
            self.draining -= 1
            raise Draining("it is being stopped")
        return self.stream

    async def run(self, spec: ProgramSpec, visit: Visit, program_id: str) -> Stream:
        return self._open(spec, program_id)

    async def dial(self, target: TcpTarget, account: str, reserved: Reserved, *, quiet: bool) -> Stream:
        assert not quiet
        return self._open(target, account, reserved)


class NoRecordings:
    async def program(self, *_: object) -> None:
        return None

    async def forward(self, *_: object) -> None:
        return None


class Record:
    id = "c1-1"
    traffic = cast(Any, None)


@pytest.fixture
def there() -> There:
    return There()


@pytest.fixture
def make_gateway(tmp_path: Path, there: There) -> Callable[..., Gateway]:
    (tmp_path / "dev.yaml").write_text("accept_env: [EDITOR]\n")
    workspaces = Workspaces(DirectoryCatalog(tmp_path), cast(Any, there), BlueprintSettings())

    def make(drain_s: float = 0) -> Gateway:
        return Gateway(
            workspaces, cast(Any, there), cast(Any, NoRecordings()), cast(Any, None), drain_s=drain_s
        )

    return make


async def test_a_program_holds_its_link_until_it_is_left(
    make_gateway: Callable[..., Gateway], there: There
) -> None:
    async with make_gateway().program(OWN, lambda: MAKE, "c1-1", print) as running:
        assert running.recorder is None
        assert (there.held, there.stream.is_open) == (1, True)
        assert there.calls == [(MAKE, "c1-1")]
    assert (there.held, there.stream.is_open) == (0, False)


async def test_what_the_policy_refuses_starts_no_workspace(
    make_gateway: Callable[..., Gateway], there: There
) -> None:
    gateway = make_gateway()
    openings = (
        gateway.program(BOBS, lambda: MAKE, "c1-1", print),
        gateway.dial(BOBS, TARGET, Record()),
        gateway.open_app(BOBS, TARGET, OWNER_ONLY, Record()),
        gateway.listen(BOBS, TARGET, "l1"),
        gateway.accept(BOBS, cast(Any, there), "a1"),
    )
    for opening in openings:
        with pytest.raises(Refused, match="this workspace belongs to another user"):
            async with opening:
                pytest.fail("it was opened")
    with pytest.raises(Refused, match="this workspace belongs to another user"):
        await gateway.control(BOBS, "workspace-stop", print)
    assert (there.ensured, there.calls) == (0, [])


async def test_a_forward_carries_the_proxy_s_own_addresses(
    make_gateway: Callable[..., Gateway], there: There
) -> None:
    gateway, reserved = make_gateway(), Reserved(frozenset({2_222}))
    gateway.reserve(reserved)
    async with gateway.dial(OWN, TARGET, Record()) as (connection, _):
        assert connection is there.stream
    assert there.calls == [(TARGET, OWN.account, reserved)]


async def test_a_workspace_that_is_gone_is_looked_up_once_more_and_not_twice(
    make_gateway: Callable[..., Gateway], there: There
) -> None:
    there.unreachable = 1
    async with make_gateway().program(OWN, lambda: MAKE, "c1-1", print):
        assert there.ensured == 2
    there.unreachable = 2
    with pytest.raises(Unreachable):
        async with make_gateway().program(OWN, lambda: MAKE, "c1-2", print):
            pytest.fail("it ran")
    assert there.held == 0


async def test_a_workspace_that_is_being_stopped_is_waited_for(
    make_gateway: Callable[..., Gateway], there: There
) -> None:
    there.draining = 1
    reported: list[Progress] = []
    async with make_gateway(600).program(OWN, lambda: MAKE, "c1-1", reported.append):
        assert (len(there.calls), there.held) == (2, 1)
    assert "waiting for the workspace to have stopped" in [one.text for one in reported]


async def test_a_workspace_that_stays_draining_refuses_at_the_deadline(
    make_gateway: Callable[..., Gateway], there: There
) -> None:
    there.draining = 1
    with pytest.raises(Draining):
        async with make_gateway(0).dial(OWN, TARGET, Record()):
            pytest.fail("it was opened")
    assert there.held == 0


async def test_a_place_is_known_without_starting_it(
    make_gateway: Callable[..., Gateway], there: There
) -> None:
    place = await make_gateway().place(OWN)
    assert (place.blueprint, "EDITOR" in place.accept_env, there.ensured) == ("dev", True, 0)


async def test_groups_that_open_a_workspace_no_more_end_a_connection(
    make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = make_gateway()
    (tmp_path / "gpu.yaml").write_text("access: {groups: [staff]}\n")
    staff = visit_of("alice+gpu", User("alice", id="1", groups=("staff",), provider="github"))
    guest = visit_of("alice+gpu", User("alice", id="1", provider="github"))
    assert await gateway.may_remain(staff, staff) == ALLOWED
    assert await gateway.may_remain(guest, guest) == ALLOWED, "the old groups did not allow it either"
    assert await gateway.may_remain(staff, guest) == GROUPS_ENDED
