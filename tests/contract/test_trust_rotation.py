"""Rotations while people work: nothing that runs notices, and what is retired opens nothing any more."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from proxy.model import Exec, ProgramSpec, Shell, TcpTarget, Visit
from proxy.settings.trust import TrustSettings
from proxy.trust.authority import KeyPair
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore
from proxy.upstream.frames import Output
from proxy.upstream.streams import Program
from tests.contract.shelldproc import every_call, wait_for
from tests.contract.trusted import Workspace, proxy, pump, said, serving, workspace

QUICK = TrustSettings(refresh_s=0.1, announce_s=1.5, retire_s=1.5)
TICKING = 'n=0; while :; do n=$((n+1)); echo "$n"; sleep 0.01; done'


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], TrustManager]:
    return lambda: TrustManager(FileTrustStore(tmp_path / "trust.json"), QUICK)


@pytest.fixture
def ws1(tmp_path: Path, make: Callable[[], TrustManager]) -> Iterator[Workspace]:
    first = make()
    asyncio.run(first.refresh())
    with workspace(tmp_path / "ws1", first) as made:
        yield made


class Ticks:
    """Reads a program that counts, and fails when a number is missing."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.count = 0
        self._rest = b""

    async def read(self) -> None:
        while True:
            frame = await self.program.read()
            assert isinstance(frame, Output), frame
            *lines, self._rest = (self._rest + bytes(frame.data)).split(b"\n")
            for line in lines:
                self.count += 1
                assert int(line) == self.count

    async def goes_on(self, reading: "asyncio.Task[None]") -> None:
        """Wait until more has come than now."""
        before = self.count
        await wait_for(lambda: self.count > before + 5 or reading.done(), what="another line")
        assert not reading.done(), reading.exception()


async def reached(expected: tuple[int, int], *keepers: TrustManager) -> None:
    await wait_for(lambda: {phase(keeper) for keeper in keepers} == {expected}, what=f"{expected}")


def phase(keeper: TrustManager) -> tuple[int, int]:
    """How many are trusted, and which one signs."""
    return len(keeper.generations.all), keeper.generations.issuing(datetime.now(UTC)).number


async def test_programs_and_connections_live_through_two_rotations(
    ws1: Workspace, make: Callable[[], TrustManager], visit: Callable[[str], Visit]
) -> None:
    operator, mounting, one, two = (make() for _ in range(4))
    await operator.refresh()
    for keeper in (mounting, one, two):
        await keeper.open()
    alice = visit("alice")
    old = KeyPair(one.material().certificate, one.material().key)
    old_token = (("authorization", f"Bearer {one.token('ws1', 'alice', '')}"),)
    async with (
        serving(pump) as port,
        proxy(one) as links,
        proxy(two) as others,
        links.use(ws1.endpoint) as link,
    ):
        program = await link.run(ProgramSpec(Exec(TICKING)), alice, "p1")
        shell = await link.run(ProgramSpec(Shell()), alice, "p2")
        connection = await link.dial(TcpTarget("127.0.0.1", port), "")
        ticks = Ticks(program)
        reading = asyncio.create_task(ticks.read())
        for generation in (2, 3):
            await operator.rotate()
            for expected in ((2, generation - 1), (2, generation), (1, generation)):
                await reached(expected, one, two, mounting)
                # A moment passes before a workspace hears of it: everybody must get in on both sides of it.
                for _ in range(2):
                    for someone in (links, others):
                        async with someone.use(ws1.endpoint) as newest:
                            fresh = await newest.run(ProgramSpec(Exec("echo in")), alice, "p3")
                            assert await said(fresh) == b"in\n"
                    ws1.mount(mounting)
                await ticks.goes_on(reading)
        await connection.write([b"hello"], 5)
        assert bytes(await connection.read()) == b"hello"
        await shell.write([b"echo $((6*7)); exit\n"], 20)
        assert await said(shell) == b"42\n"
        async with links.use(ws1.endpoint) as newest:
            assert newest is not link, "what is new uses what is newest"
        issuer = x509.load_pem_x509_certificate((ws1.files / "tls.crt").read_bytes()).issuer
        assert "workspaces 3" in issuer.rfc4514_string()

        async with ws1.stub(one.material().roots, old) as stub:
            assert await every_call(stub, old_token) == {grpc.StatusCode.UNAVAILABLE}, (
                "of a retired authority"
            )
        now = KeyPair(one.material().certificate, one.material().key)
        async with ws1.stub(one.material().roots, now) as stub:
            retired_key = await every_call(stub, old_token)
            assert retired_key == {grpc.StatusCode.UNAUTHENTICATED}
        await ticks.goes_on(reading)
        reading.cancel()
        program.cancel()
        connection.cancel()
    for keeper in (mounting, one, two):
        await keeper.close()


async def test_a_secret_that_is_half_written_takes_nothing_away(
    ws1: Workspace, make: Callable[[], TrustManager]
) -> None:
    keeper = make()
    await keeper.refresh()
    pair = KeyPair(keeper.material().certificate, keeper.material().key)
    token = (("authorization", f"Bearer {keeper.token('ws1', 'alice', '')}"),)
    for name, data in [("token.key", b"short"), ("tls.crt", b""), ("client-ca.crt", b"-----BEGIN")]:
        whole = (ws1.files / name).read_bytes()
        (ws1.files / name).write_bytes(data)
        async with ws1.stub(keeper.material().roots, pair) as stub:
            assert await every_call(stub, token) == {grpc.StatusCode.OK}, name
        (ws1.files / name).write_bytes(whole)
    async with ws1.stub(keeper.material().roots, pair) as stub:
        assert await every_call(stub, token) == {grpc.StatusCode.OK}
