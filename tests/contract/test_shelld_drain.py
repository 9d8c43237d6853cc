"""Announcements, drains, and what counts as doing nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from tests.contract.shelldproc import (
    Connection,
    Running,
    Shelld,
    pty,
    run,
    shelld,
    start,
    tcp,
    wait_for,
)
from tests.contract.trusted import pump, serving


@pytest.fixture
async def served() -> AsyncIterator[Shelld]:
    async with shelld() as made:
        yield made


async def notice(running: Running) -> str:
    """Read to the next announcement."""
    while (frame := await running.next()) is not None:
        if frame.WhichOneof("frame") == "notice":
            return frame.notice
    raise AssertionError(running.ran.kinds)


async def end(running: Running) -> None:
    running.call.cancel()


async def test_handshake_tells_of_both(served: Shelld) -> None:
    reply = await served.stub.Handshake(pb.HandshakeRequest(version=pb.Version(major=1, minor=1)))
    assert (reply.version.major, reply.version.minor) == (1, 5)
    assert {"announce", "drain"} <= set(reply.features)


# ------------------------------------------------------------------------------------- announcements


async def test_everybody_with_a_program_is_told(served: Shelld) -> None:
    programs = [await start(served), await start(served, "sleep 100"), await start(served, pty=pty())]
    reply = await served.stub.Announce(pb.AnnounceRequest(text="soon"))
    assert reply.programs == 3
    for running in programs:
        assert await notice(running) == "soon"
        await end(running)


async def test_the_same_is_said_once_however_many_say_it(served: Shelld) -> None:
    running = await start(served, "sleep 100")
    replies = [await served.stub.Announce(pb.AnnounceRequest(text=f"by {n}", id="w1")) for n in range(3)]
    assert [reply.programs for reply in replies] == [1, 0, 0]
    assert await notice(running) == "by 0"
    await served.stub.Announce(pb.AnnounceRequest(text="another", id="w2"))
    assert await notice(running) == "another"
    await end(running)


async def test_nothing_follows_an_exit(served: Shelld) -> None:
    """An announcement at the very end must not come behind the last frame."""

    async def announcing() -> None:
        while True:
            await served.stub.Announce(pb.AnnounceRequest(text="again"))

    task = asyncio.create_task(announcing())
    for _ in range(20):
        assert (await run(served, "true")).frames[-1].WhichOneof("frame") == "exit"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_somebody_who_does_not_listen_holds_nobody_up(served: Shelld) -> None:
    deaf = await start(served, "yes")  # nobody reads, so its stream is full
    await wait_for_full(served)
    other = await start(served, "sleep 100")
    for number in range(50):
        await served.stub.Announce(pb.AnnounceRequest(text=str(number)))
        assert await notice(other) == str(number)
    await end(deaf)
    await end(other)


async def wait_for_full(served: Shelld) -> None:
    """Return when a program that writes without end makes no progress any more."""
    idle_ms = 0
    while idle_ms < 200:
        await asyncio.sleep(0.05)
        idle_ms = (await served.stub.Status(pb.StatusRequest())).idle_ms
        if (await served.stub.Status(pb.StatusRequest())).programs == 0:
            raise AssertionError("the program ended")


# ------------------------------------------------------------------------------------------- drain


async def test_a_drain_refuses_every_kind_of_work_and_says_so(served: Shelld) -> None:
    running = await start(served)
    reply = await served.stub.Drain(pb.DrainRequest(reason="goodbye", for_ms=60_000))
    assert reply.draining
    assert await notice(running) == "goodbye"
    for call, first in [
        (served.stub.Run(), pb.RunInput(start=pb.Start(exec=b"true"))),
        (served.stub.Dial(), pb.ConnectionInput(dial=tcp("127.0.0.1", 1))),
        (served.stub.Accept(), pb.ConnectionInput(accept="x")),
    ]:
        await call.write(first)
        with pytest.raises(grpc.aio.AioRpcError, match="draining") as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    listening = served.stub.Listen(pb.ListenRequest(tcp=pb.TcpAddress(host="localhost"), listener_id="l"))
    with pytest.raises(grpc.aio.AioRpcError, match="draining"):
        await listening.read()
    # What runs goes on, and whoever looks is told.
    await running.type("echo still $((6*7))\n")
    await running.until("still 42")
    assert (await served.stub.Status(pb.StatusRequest())).draining
    await end(running)


async def test_a_drain_that_somebody_prevents_changes_nothing(served: Shelld) -> None:
    running = await start(served)
    reply = await served.stub.Drain(pb.DrainRequest(if_idle_ms=60_000, reason="goodbye", for_ms=60_000))
    assert not reply.draining
    assert reply.idle_ms < 60_000
    assert not (await served.stub.Status(pb.StatusRequest())).draining
    await running.type("echo on; exit\n")
    ran = await running.end()
    assert ran.out == "on\n"
    assert "notice" not in ran.kinds


async def test_work_is_taken_again_when_nobody_ended_it(served: Shelld) -> None:
    await served.stub.Drain(pb.DrainRequest(for_ms=300))
    while (await served.stub.Status(pb.StatusRequest())).draining:
        await asyncio.sleep(0.02)
    assert (await run(served, "echo back")).out == "back\n"


async def test_two_proxies_that_drain_say_it_once_and_for_the_longer_time(served: Shelld) -> None:
    running = await start(served)
    for reason in ("first", "second"):
        assert (await served.stub.Drain(pb.DrainRequest(reason=reason, for_ms=60_000))).draining
    assert await notice(running) == "first"
    await running.type("exit\n")
    assert "second" not in str((await running.end()).frames)


# ------------------------------------------------------------------------------------- doing nothing


async def idle_ms(served: Shelld) -> int:
    return (await served.stub.Status(pb.StatusRequest())).idle_ms


async def test_heartbeats_of_a_window_that_nobody_looks_at_are_no_activity(served: Shelld) -> None:
    """An editor's server and window exchange a few bytes every few seconds, for ever."""
    async with serving(pump) as port:
        links = [await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port)) for _ in range(3)]
        shell = await start(served, "exec cat")
        before = await idle_ms(served)
        beats = 0
        while (idle := await idle_ms(served)) < 1500:
            assert beats < 600, f"never idle, {before} then {idle}"
            beats += 1
            if beats <= 25:  # 325 bytes each way: more than 15 s of heartbeats bring
                for link in links:
                    await link.send(b"\0" * 13)
                    await link.next()
            await asyncio.sleep(0.03)
        await links[0].send(b"x" * 2000)
        assert await idle_ms(served) < 1500, "a file was saved"
        for link in links:
            link.call.cancel()
        await end(shell)


async def test_one_keystroke_in_a_shell_is_activity(served: Shelld) -> None:
    running = await start(served, pty=pty())
    while await idle_ms(served) < 300:
        await asyncio.sleep(0.05)
    await running.type("x")
    await running.until("x")
    assert await idle_ms(served) < 300
    await end(running)


# --------------------------------------------------------------------------------- ends by itself


async def test_idleness_is_announced_and_noted(short_dir: Path) -> None:
    note = short_dir / "stopped.json"
    async with shelld(idle_stop_s=1.0, stop_note=str(note)) as served:
        running = await start(served, "exec sleep 1000")
        assert "did nothing for 1 second" in await notice(running)
        await running.end()
        await wait_for(lambda: served.process.poll() is not None, what="the end")
    noted = json.loads(note.read_text())
    assert noted["by"] == "idle"
    assert "did nothing" in noted["reason"]


async def test_term_is_announced_unless_a_proxy_has_said_why() -> None:
    for reason in ("", "because"):
        async with shelld() as served:
            running = await start(served, "exec sleep 1000")
            if reason:
                await served.stub.Drain(pb.DrainRequest(reason=reason, for_ms=60_000))
            served.process.terminate()
            assert await notice(running) == (reason or "this workspace is being stopped")
            rest = await running.end()
            assert rest.kinds.count("notice") == 1
            await wait_for(lambda: served.process.poll() is not None, what="the end")
