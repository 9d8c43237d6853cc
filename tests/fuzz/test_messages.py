"""A client that is logged in and sends any message with any field odd costs nobody more than with `sshd`.

The neighbour's connection lives on, and so does the client's own wherever `sshd` survives the same messages
in the same order; no line of the log tells of a bug.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from asyncssh.packet import SSHPacket, String, UInt32
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from bench.sshd import find_sshd
from tests.fuzz.odd_messages import Odd, messages
from tests.wire.conftest import BUGS, fairlead, warm
from tests.wire.direct import Place, fairlead_place, sshd_place
from tests.wire.flooder import Flooder
from tests.wire.harness import Fairlead
from tests.wire.messages import CHANNEL_DATA, CHANNEL_OPEN, CHANNEL_REQUEST
from tests.wire.oddities import channel_of, next_heard

__all__ = ["fairlead", "warm"]

SETTINGS = {"FAIRLEAD_CONNECTION__KEEPALIVE_INTERVAL_S": "3600"}
"""No client of this test answers keepalives."""

PATIENCE_S = 100
STEPS = 12
"""Messages, or things that a client does properly, of one example."""
EXAMPLES, DEEP_EXAMPLES = 200, 10_000
_CONFIRMED, _REFUSED = 91, 92
_NEIGHBOUR = 5
_WINDOW = 2**31 - 1

pytestmark = pytest.mark.usefixtures("warm")


class Client(Flooder):
    """A connection whose channels are opened in a row, and which keeps all that it hears."""

    opened: list[int]
    """Numbers that the server gave."""

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        del pktid
        self.hears.put_nowait((pkttype, packet))
        return True

    async def open(self) -> bool:
        """Open a session; return whether the connection lives."""
        sender = 100 + len(self.opened)
        if self._transport is None:
            return False
        asked = String("session") + UInt32(sender) + UInt32(_WINDOW) + UInt32(32_768)
        self.send_packet(CHANNEL_OPEN, asked)
        while (heard := await next_heard(self, self.hears)) is not None:
            kind, packet = heard
            if kind in (_CONFIRMED, _REFUSED) and packet.get_uint32() == sender:
                if kind == _CONFIRMED:
                    self.opened.append(packet.get_uint32())
                return True
        return False

    async def begin_cat(self) -> int:
        """Run `cat` in a session of its own, and return the server's number of that."""
        asked = String("session") + UInt32(_NEIGHBOUR) + UInt32(_WINDOW) + UInt32(32_768)
        self.send_packet(CHANNEL_OPEN, asked)

        def number(packet: SSHPacket) -> int | None:
            return packet.get_uint32() if packet.get_uint32() == _NEIGHBOUR else None

        found = await self.hear(_CONFIRMED, number)
        assert found is not None
        self.send_packet(CHANNEL_REQUEST, UInt32(found), String("exec") + b"\1" + String("cat"))
        return int(found)

    async def echoes(self, number: int) -> bool:
        """Return whether `cat` in a channel answers."""
        self.send_packet(CHANNEL_DATA, UInt32(number), String("echo"))
        return bool(await self.hear(CHANNEL_DATA, lambda packet: channel_of(packet) == _NEIGHBOUR or None))


async def log_in(place: Place) -> Client:
    """Return a client that is logged in."""
    connection = await place.login(kex_algs=["curve25519-sha256"], login_timeout=PATIENCE_S)
    client = Client.of(connection)
    assert isinstance(client, Client)
    client.opened = []
    return client


@dataclass(frozen=True)
class Open:
    """A session that is opened properly."""


@dataclass(frozen=True)
class Cat:
    """A program that is started properly, in one of the sessions."""

    channel: int


Step = Open | Cat | Odd


async def take(client: Client, step: Step) -> bool:
    """Send what a step says; return whether the connection lives."""
    while not client.hears.empty():
        client.hears.get_nowait()
    if isinstance(step, Open):
        return await client.open()
    if isinstance(step, Cat):
        number = client.opened[step.channel % len(client.opened)] if client.opened else 0
        asked = String("exec") + b"\1" + String("cat")
        client.send_together([(CHANNEL_REQUEST, UInt32(number) + asked)])
    else:
        client.send_together(step.packets(client.opened))
    return await client.is_heard()


@dataclass
class World:
    """The servers, and a neighbour who stays logged in all the time."""

    fairlead: Fairlead
    ours: Place
    theirs: Place | None
    runner: asyncio.Runner
    neighbour: Client
    channel: int
    connections: int = 0
    steps: int = 0
    ended: int = 0
    """Connections that ended at both."""
    read: dict[Path, int] = field(default_factory=dict)
    """Bytes of each log that were looked through."""

    async def sshd_survives(self, steps: list[Step]) -> bool:
        """Do the same on `sshd`; where there is none it survives nothing."""
        if self.theirs is None:
            return False
        client = await log_in(self.theirs)
        try:
            for step in steps:
                async with asyncio.timeout(PATIENCE_S):
                    if not await take(client, step):
                        return False
            return True
        finally:
            client.abort()

    def new_bugs(self) -> list[str]:
        """Return the lines that were logged since the last time and tell of a bug."""
        found = []
        for log in self.fairlead.directory.rglob("*.log"):
            with log.open("rb") as stream:
                stream.seek(self.read.get(log, 0))
                new = stream.read()
            self.read[log] = self.read.get(log, 0) + len(new)
            lines = new.decode(errors="replace").splitlines()
            found += [line[:2_000] for line in lines if any(word in line for word in BUGS)]
        return found


class Messages(RuleBasedStateMachine):
    """One connection, and another one where both servers have ended it."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.is_alive = True
        self.client: Client | None = None

    @initialize(sessions=st.integers(0, 2), program=st.booleans())
    def log_in(self, sessions: int, program: bool) -> None:
        self.is_alive, self.steps = True, []
        self.client = self.world.runner.run(log_in(self.world.ours))
        self.world.connections += 1
        for _ in range(sessions):
            self.take(Open())
        if program and sessions:
            self.take(Cat(0))

    @precondition(lambda self: not self.is_alive)
    @rule()
    def log_in_again(self) -> None:
        self.log_in(sessions=1, program=False)

    @precondition(lambda self: self.is_alive)
    @rule()
    def open_a_session(self) -> None:
        self.take(Open())

    @precondition(lambda self: self.is_alive)
    @rule(channel=st.integers(0, 3))
    def start_a_program(self, channel: int) -> None:
        self.take(Cat(channel))

    @precondition(lambda self: self.is_alive)
    @rule(odd=messages())
    def send_a_message(self, odd: Odd) -> None:
        self.take(odd)

    @precondition(lambda self: self.is_alive)
    @rule(odd=messages())
    def send_another_message(self, odd: Odd) -> None:
        self.take(odd)

    def take(self, step: Step) -> None:
        assert self.client is not None
        self.steps.append(step)
        self.world.steps += 1
        self.is_alive = self.world.runner.run(_within(take(self.client, step)))
        if not self.is_alive:
            survives = self.world.runner.run(self.world.sshd_survives(self.steps))
            assert not survives, f"sshd survives what ended the connection: {self.steps}"
            self.world.ended += 1

    def teardown(self) -> None:
        if self.client is not None:
            self.client.abort()
        echoes = self.world.neighbour.echoes(self.world.channel)
        assert self.world.runner.run(_within(echoes)), f"the neighbour is gone after {self.steps}"
        assert self.world.new_bugs() == [], self.steps


async def _within(call: "asyncio.Future[bool] | object") -> bool:
    async with asyncio.timeout(PATIENCE_S):
        return bool(await call)  # type: ignore[misc]


@pytest.fixture
def world(fairlead: Fairlead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    ours = fairlead_place(fairlead)
    with asyncio.Runner() as runner:
        neighbour = runner.run(log_in(ours))
        channel = runner.run(neighbour.begin_cat())
        try:
            if find_sshd() is None:
                yield World(fairlead, ours, None, runner, neighbour, channel)
            else:
                with sshd_place(tmp_path_factory.mktemp("direct"), fairlead.key) as theirs:
                    yield World(fairlead, ours, theirs, runner, neighbour, channel)
        finally:
            neighbour.abort()


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def _try(world: World, examples: int) -> None:
    machine = type("Examples", (Messages,), {"world": world})
    run_machine(machine, settings=_settings(examples))
    print(f"{world.connections} connections, {world.steps} steps, {world.ended} ended by both servers")
    assert world.steps > examples


@pytest.mark.timeout(1_800)
def test_any_message_with_any_field_odd(world: World) -> None:
    _try(world, EXAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(6 * 3_600)
def test_any_message_with_any_field_odd_for_long(world: World) -> None:
    _try(world, min(settings().max_examples, DEEP_EXAMPLES))
