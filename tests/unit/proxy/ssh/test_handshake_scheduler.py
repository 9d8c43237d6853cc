import asyncio
from functools import partial

import pytest
import structlog

from proxy.ssh.handshake_scheduler import HandshakeScheduler, metered


async def settled(scheduler: HandshakeScheduler) -> None:
    async with asyncio.timeout(10):
        while len(scheduler):
            await asyncio.sleep(0.001)


async def test_alone_nobody_waits() -> None:
    scheduler, done = HandshakeScheduler(0.5), list[str]()
    assert not scheduler.run("a", lambda: done.append("a"))
    assert done == ["a"]


async def test_sources_go_round_and_each_in_its_own_order() -> None:
    scheduler, done = HandshakeScheduler(0.5), list[str]()
    scheduler.run("x", lambda: None)
    for piece in ("a1", "a2", "a3", "b1", "b2", "c1"):
        assert scheduler.run(piece[0], partial(done.append, piece))
    assert done == []
    await settled(scheduler)
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_everybody_else_comes_between_two_pieces() -> None:
    scheduler, order = HandshakeScheduler(0.5), list[str]()

    async def work_in_a_task() -> None:
        order.append("task")

    def piece() -> None:
        order.append("piece")
        tasks.append(asyncio.ensure_future(work_in_a_task()))

    tasks: list[asyncio.Future[None]] = []
    for _ in range(3):
        scheduler.run("a", piece)
    await settled(scheduler)
    await asyncio.gather(*tasks)
    assert order == ["piece", "task"] * 3


async def test_a_piece_that_fails_holds_nobody_up() -> None:
    scheduler, done = HandshakeScheduler(0.5), list[str]()

    def fail() -> None:
        raise RuntimeError

    with structlog.testing.capture_logs() as logs:
        scheduler.run("a", fail)
        scheduler.run("b", fail)
        scheduler.run("c", partial(done.append, "c"))
        await settled(scheduler)
    assert done == ["c"]
    assert [entry["event"] for entry in logs] == ["handshake failed by a bug"] * 2


async def test_what_waits_can_be_forgotten() -> None:
    scheduler, done = HandshakeScheduler(0.5), list[str]()
    scheduler.run("a", lambda: None)
    scheduler.run("a", partial(done.append, "a"))
    scheduler.close()
    await asyncio.sleep(0.05)
    assert done == []


@pytest.mark.parametrize("share", [0.25, 0.5, 1])
@pytest.mark.parametrize("took_s", [0.001, 0.1, 7])
async def test_the_share_of_strangers_holds_whatever_the_size_of_a_piece(
    share: float, took_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, rests = [0.0], list[float]()

    def piece() -> None:
        now[0] += took_s

    scheduler = HandshakeScheduler(share, lambda: now[0])
    monkeypatch.setattr(
        asyncio.get_running_loop(), "call_later", lambda delay, *_: rests.append(delay), raising=True
    )
    scheduler.run("a", piece)
    for _ in range(10):
        await asyncio.sleep(0)
    assert rests == [pytest.approx(took_s * (1 - share) / share)]


async def test_what_a_piece_does_in_tasks_is_charged_and_nothing_between_its_steps() -> None:
    charged, resumed = list[float](), asyncio.Event()

    async def work() -> None:
        await resumed.wait()
        raise KeyError

    task = asyncio.ensure_future(metered(work(), charged.append))
    await asyncio.sleep(0)
    assert len(charged) == 1
    resumed.set()
    with pytest.raises(KeyError):
        await task
    assert len(charged) == 2


async def test_a_metered_task_can_be_cancelled() -> None:
    seen = list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.ensure_future(metered(work(), lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
