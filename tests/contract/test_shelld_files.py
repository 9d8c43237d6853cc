"""The built-in app `files` of a real shelld: started as an app, on the interpreter of shelld."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from tests.contract.shelldproc import Shelld, shelld


@pytest.fixture
async def served() -> AsyncIterator[Shelld]:
    async with shelld() as one:
        yield one


def files(start: str = "@files", **more: Any) -> pb.AppSpec:
    more.setdefault("listen", pb.AppListen(socket=b""))
    return pb.AppSpec(slug="files", start=start.encode(), **more)


async def ensure(served: Shelld, app: pb.AppSpec) -> pb.AppState:
    call = served.stub.EnsureApp(pb.EnsureAppRequest(spec=app))
    return [state async for state in call][-1]


async def asked(served: Shelld, path: str) -> str:
    """Ask the app over a dialled connection; return its whole answer."""
    call = served.stub.Dial()
    await call.write(pb.ConnectionInput(dial=pb.Target(app="files")))
    assert (await call.read()).WhichOneof("frame") == "connected"
    await call.write(
        pb.ConnectionInput(data=f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    )
    answer = b""
    while (frame := await call.read()).WhichOneof("frame") == "data":
        answer += frame.data
    call.cancel()
    return answer.decode()


async def test_the_home_is_shown_by_a_program_of_its_own_account(served: Shelld) -> None:
    (served.home / "grüße.txt").write_text("content")
    state = await ensure(served, files())
    assert state.phase == pb.AppState.READY
    program = Path(f"/proc/{state.pid}")
    assert program.stat().st_uid == served.home.stat().st_uid
    assert Path(state.socket.decode()).parent.stat().st_mode & 0o077 == 0
    assert "gr%C3%BC%C3%9Fe.txt" in await asked(served, "/")
    assert (await asked(served, "/gr%C3%BC%C3%9Fe.txt")).endswith("\r\n\r\ncontent")


async def test_only_its_folder_is_shown(served: Shelld) -> None:
    (served.home / "inner").mkdir()
    (served.home / "outer.txt").write_text("secret")
    (served.home / "inner" / "link").symlink_to("../outer.txt")
    assert (await ensure(served, files(workdir=b"~/inner"))).phase == pb.AppState.READY
    for path in ("/link", "/%2e%2e/outer.txt", "/../outer.txt"):
        answer = await asked(served, path)
        assert "secret" not in answer
        assert answer.startswith(("HTTP/1.1 403", "HTTP/1.1 400"))


async def test_an_unknown_built_in_app_and_one_on_a_port_are_refused_in_words(served: Shelld) -> None:
    for app, reason in (
        (files("@shell"), "there is no built-in app @shell"),
        (files(listen=pb.AppListen(port=0)), "a built-in app listens on a socket"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=reason) as refused:
            await ensure(served, app)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
