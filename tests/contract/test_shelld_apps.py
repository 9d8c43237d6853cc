"""Apps of a real shelld: their start, readiness, restarts, logs, listeners and end."""

import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from tests.contract.shelldproc import Shelld, shelld

State = pb.AppState
SERVER = f"{sys.executable} -u -m http.server --bind 127.0.0.1 $PORT"


def spec(start: str, slug: str = "lab", **more: Any) -> pb.AppSpec:
    more.setdefault("listen", pb.AppListen(port=0))
    more.setdefault("ready", pb.AppReady(within_ms=30_000))
    return pb.AppSpec(slug=slug, start=start.encode(), **more)


async def ensure(served: Shelld, app: pb.AppSpec, *, automatic: bool = False) -> list[pb.AppState]:
    call = served.stub.EnsureApp(pb.EnsureAppRequest(spec=app, automatic=automatic))
    return [state async for state in call]


async def dialled(served: Shelld, slug: str, request: bytes = b"GET / HTTP/1.0\r\n\r\n") -> tuple[Any, bytes]:
    call = served.stub.Dial()
    await call.write(pb.ConnectionInput(dial=pb.Target(app=slug)))
    first = await call.read()
    answer = b""
    if first.WhichOneof("frame") == "connected":
        await call.write(pb.ConnectionInput(data=request))
        await call.write(pb.ConnectionInput(eof=pb.Eof()))
        while (frame := await call.read()).WhichOneof("frame") == "data":
            answer += frame.data
    call.cancel()
    return first, answer


@pytest.fixture
async def served() -> AsyncIterator[Shelld]:
    async with shelld() as made:
        yield made


async def test_an_app_starts_is_ready_and_is_dialled_by_its_name(served: Shelld) -> None:
    states = await ensure(served, spec(SERVER, ready=pb.AppReady(path=b"/", within_ms=30_000)))
    assert states[0].phase == State.STARTING
    assert states[-1].phase == State.READY
    assert states[-1].port > 0
    first, answer = await dialled(served, "lab")
    assert first.connected.local_address
    assert answer.startswith(b"HTTP/1.0 200")


async def test_a_stopped_app_has_no_process_and_is_started_by_a_command_only(served: Shelld) -> None:
    ready = (await ensure(served, spec(SERVER)))[-1]
    assert os.path.exists(f"/proc/{ready.pid}")
    stopped = await served.stub.StopApp(pb.StopAppRequest(slug="lab", by="alice"))
    assert (stopped.phase, stopped.reason, stopped.stopped) == (
        State.STOPPED,
        "it was stopped by alice",
        True,
    )
    assert not os.path.exists(f"/proc/{ready.pid}")
    assert [one.phase for one in await ensure(served, spec(SERVER), automatic=True)] == [State.STOPPED]
    assert (await ensure(served, spec(SERVER)))[-1].phase == State.READY
