import asyncio
from functools import partial

import structlog

from proxy.ssh.turns import Turns


async def settled(turns: Turns) -> None:
    async with asyncio.timeout(10):
        while len(turns):
            await asyncio.sleep(0.001)


async def test_alone_nobody_waits() -> None:
    turns, done = Turns(0.5), list[str]()
    assert not turns.take("a", lambda: done.append("a"))
    assert done == ["a"]


async def test_sources_go_round_and_each_in_its_own_order() -> None:
    turns, done = Turns(0.5), list[str]()
    turns.take("x", lambda: None)
    for piece in ("a1", "a2", "a3", "b1", "b2", "c1"):
        assert turns.take(piece[0], partial(done.append, piece))
    assert done == []
    await settled(turns)
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_everybody_else_comes_between_two_pieces() -> None:
    turns, order = Turns(0.5), list[str]()

    async def work_in_a_task() -> None:
        order.append("task")

    def piece() -> None:
        order.append("piece")
        tasks.append(asyncio.ensure_future(work_in_a_task()))

    tasks: list[asyncio.Future[None]] = []
    for _ in range(3):
        turns.take("a", piece)
    await settled(turns)
    await asyncio.gather(*tasks)
    assert order == ["piece", "task"] * 3


async def test_a_piece_that_fails_holds_nobody_up() -> None:
    turns, done = Turns(0.5), list[str]()

    def fail() -> None:
        raise RuntimeError

    with structlog.testing.capture_logs() as logs:
        turns.take("a", fail)
        turns.take("b", fail)
        turns.take("c", partial(done.append, "c"))
        await settled(turns)
    assert done == ["c"]
    assert [entry["event"] for entry in logs] == ["handshake failed by a bug"] * 2


async def test_what_waits_can_be_forgotten() -> None:
    turns, done = Turns(0.5), list[str]()
    turns.take("a", lambda: None)
    turns.take("a", partial(done.append, "a"))
    turns.close()
    await asyncio.sleep(0.05)
    assert done == []
