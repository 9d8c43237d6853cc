"""A real shelld on TCP with what a keeper gave it, and proxies that talk to it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from proxy.model import Endpoint, ExitSignal, ExitStatus, WorkspaceName
from proxy.settings.upstream import UpstreamSettings
from proxy.trust.authority import KeyPair, server_name
from proxy.trust.manager import TrustManager
from proxy.upstream.client import Links
from proxy.upstream.frames import Output
from proxy.upstream.streams import Program
from tests.contract.shelldproc import CHANNEL_OPTIONS, Shelld, shelld_argv, spawn_shelld, stop, write_config

NAMESPACE = "homes"
FLAGS = {
    "--tls-cert": "tls.crt",
    "--tls-key": "tls.key",
    "--tls-client-ca": "client-ca.crt",
    "--token-key": "token.key",
}


@dataclass
class Workspace:
    """A workspace on TCP loopback; `files` is its mounted Secret."""

    name: str
    served: Shelld
    port: int
    files: Path

    @property
    def server_name(self) -> str:
        return server_name(self.name, NAMESPACE)

    @property
    def endpoint(self) -> Endpoint:
        address = f"ipv4:127.0.0.1:{self.port}"
        return Endpoint(WorkspaceName(self.name), address, "1", self.server_name, "alice")

    def mounted(self) -> dict[str, bytes]:
        return {
            name: (self.files / name).read_bytes() for name in FLAGS.values() if (self.files / name).exists()
        }

    def mount(self, keeper: TrustManager) -> bool:
        """Update the Secret as a backend does; tell whether anything changed."""
        return mount(self.files, keeper, self.name)

    @asynccontextmanager
    async def stub(self, roots: bytes, pair: KeyPair | None, name: str = "") -> AsyncIterator[Any]:
        """Dial as a stranger would, with whatever it got hold of."""
        credentials = grpc.ssl_channel_credentials(roots, *((pair.key, pair.certificate) if pair else ()))
        options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name or self.server_name)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            yield ShelldStub(channel)


def mount(files: Path, keeper: TrustManager, workspace: str) -> bool:
    """Write each file whole, as kubelet does."""
    present = {name: (files / name).read_bytes() for name in FLAGS.values() if (files / name).exists()}
    wanted = keeper.workspace_files(workspace, server_name(workspace, NAMESPACE), present)
    for name, data in wanted.items():
        (files / (name + ".new")).write_bytes(data)
        (files / (name + ".new")).replace(files / name)
    return wanted != present


@contextmanager
def workspace(
    directory: Path, keeper: TrustManager, name: str = "ws1", **settings: Any
) -> Iterator[Workspace]:
    """Serve one workspace of alice's."""
    directory.mkdir(exist_ok=True)
    files = directory / "trust"
    files.mkdir()
    mount(files, keeper, name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    more = [word for flag, file in FLAGS.items() for word in (flag, str(files / file))]
    config = write_config(directory, workspace=name, user="alice", **settings)
    process = spawn_shelld(shelld_argv(f"tcp://127.0.0.1:{port}", config, *more), directory)
    try:
        deadline = time.monotonic() + 30
        while '"serving"' not in (directory / "log").read_text():
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Workspace(name, Shelld(directory, process), port, files)
    finally:
        stop(process)
    log = (directory / "log").read_text()
    assert "traceback" not in log.lower(), log
    for secret in (files / "token.key").read_text().splitlines():
        assert secret not in log


@asynccontextmanager
async def proxy(keeper: TrustManager | None, **settings: Any) -> AsyncIterator[Links]:
    """A proxy as far as links go."""
    links = Links(UpstreamSettings(**settings), "p1", keeper)
    try:
        yield links
    finally:
        await links.close()


async def said(program: Program) -> bytes:
    """Read a program to its end; give its stdout."""
    out = b""
    while not isinstance(frame := await program.read(), ExitStatus | ExitSignal):
        if isinstance(frame, Output) and not frame.is_stderr:
            out += bytes(frame.data)
    return out


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[int]:
    """Serve TCP on loopback, and leave nothing behind; gives the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
