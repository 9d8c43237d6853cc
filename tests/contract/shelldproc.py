"""A real shelld process, and what a proxy would say to it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from protos.shelld.v1 import shelld_pb2 as pb
from protos.shelld.v1.shelld_pb2_grpc import ShelldStub

ROOT = Path(__file__).parents[2]
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 2 * 1024 * 1024),
    ("grpc.max_send_message_length", 2 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
]
PATIENCE_S = 30.0


def shelld_argv(listen: str, config: Path, *more: str, module: Sequence[str] = ("shelld",)) -> list[str]:
    return [sys.executable, "-P", "-m", *module, "--listen", listen, "--config", str(config), *more]


def write_config(directory: Path, **settings: Any) -> Path:
    home = directory / "home"
    home.mkdir(exist_ok=True)
    settings = {
        "workspace": "ws1",
        "runtime_dir": str(directory / "run"),
        "grace_s": 0.6,
        **settings,
        "account": {"home": str(home), **settings.get("account", {})},
    }
    path = directory / "config.json"
    path.write_text(json.dumps(settings))
    return path


@dataclass
class Shelld:
    """A shelld process of a test, ended with it."""

    directory: Path
    process: subprocess.Popen[bytes]
    stub: Any = None

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def spawn_shelld(argv: list[str], directory: Path, **environ: str) -> subprocess.Popen[bytes]:
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "LEAKED_SECRET": "of shelld's own environment", **environ},
        )


async def wait_for(true: Callable[[], Any], *, what: str = "it") -> Any:
    """Poll until `true()` is; nothing is asserted about how long that takes, within reason."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not (value := true()):
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not happen"
        await asyncio.sleep(0.01)
    return value


@contextmanager
def started(*, module: Sequence[str] = ("shelld",), **settings: Any) -> Iterator[Shelld]:
    """Start shelld on a Unix socket and wait until that is there; end it with the context.

    `module` is the one to run and its first arguments; `{}` there is the directory of the test.
    """
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        socket = directory / "s"
        words = [word.format(directory) for word in module]
        argv = shelld_argv(f"unix://{socket}", write_config(directory, **settings), module=words)
        process = spawn_shelld(argv, directory)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not socket.exists():
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "the socket did not appear"
                time.sleep(0.01)
            yield Shelld(directory, process)
        finally:
            stop(process)
        log = (directory / "log").read_text()
        assert "traceback" not in log.lower(), log


@asynccontextmanager
async def connected(served: Shelld) -> AsyncIterator[Shelld]:
    """Connect to a started shelld in this test's event loop."""
    address = f"unix:{served.directory / 's'}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield replace(served, stub=ShelldStub(channel))


@asynccontextmanager
async def shelld(**settings: Any) -> AsyncIterator[Shelld]:
    """Start a shelld of its own settings and connect to it."""
    with started(**settings) as served:
        async with connected(served) as made:
            yield made


def stop(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()


@dataclass
class Ran:
    """What one program said and how it ended."""

    frames: list[pb.RunOutput] = field(default_factory=list)

    def _bytes(self, kind: str) -> bytes:
        return b"".join(getattr(frame, kind) for frame in self.frames if frame.WhichOneof("frame") == kind)

    @property
    def out(self) -> str:
        return self._bytes("stdout").decode()

    @property
    def stdout(self) -> bytes:
        return self._bytes("stdout")

    @property
    def err(self) -> str:
        return self._bytes("stderr").decode()

    @property
    def notices(self) -> list[str]:
        return [frame.notice for frame in self.frames if frame.WhichOneof("frame") == "notice"]

    @property
    def status(self) -> int:
        assert self.frames[-1].WhichOneof("frame") == "exit", self.frames
        assert self.frames[-1].exit.WhichOneof("end") == "status", self.frames[-1]
        return self.frames[-1].exit.status

    @property
    def signal(self) -> str:
        assert self.frames[-1].exit.WhichOneof("end") == "signal", self.frames
        return self.frames[-1].exit.signal.name

    @property
    def failed(self) -> str:
        assert len(self.frames) == 1, self.frames
        return pb.StartFailed.Code.Name(self.frames[0].start_failed.code)

    @property
    def kinds(self) -> list[str]:
        found = [frame.WhichOneof("frame") or "" for frame in self.frames]
        return [kind for kind in found if kind != "stdin_consumed"]


class Running:
    """One Run call, step by step."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.ran = Ran()
        self._writing = asyncio.Lock()
        self._over = False

    async def send(self, **frame: Any) -> None:
        async with self._writing:
            if not self._over:
                await self.call.write(pb.RunInput(**frame))

    async def type(self, text: str) -> None:
        await self.send(stdin=text.encode())

    async def next(self) -> pb.RunOutput | None:
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.call.read()
        if frame is grpc.aio.EOF:
            return None
        self.ran.frames.append(frame)
        if frame.WhichOneof("frame") in {"exit", "start_failed"}:
            async with self._writing:
                self._over = True
                await self.call.done_writing()
        return frame

    async def until(self, text: str) -> str:
        """Read until stdout holds `text`."""
        while text not in self.ran.out:
            assert await self.next() is not None, self.ran.frames
        return self.ran.out

    async def end(self) -> Ran:
        while await self.next() is not None:
            pass
        return self.ran


async def start(served: Shelld, command: str | None = None, **start: Any) -> Running:
    """Start a program: a command, or a shell without one."""
    running = Running(served.stub.Run())
    if command is not None:
        start["exec"] = command
    elif "subsystem" not in start:
        start["shell"] = pb.Shell()
    await running.send(start=pb.Start(**_as_bytes(start)))
    first = await running.next()
    assert first is not None
    return running


def _as_bytes(fields: Any) -> Any:
    """Return fields of a Start with text in place of bytes encoded."""
    texts = {"exec", "subsystem", "original_command"} & fields.keys()
    encoded = {name: os.fsencode(fields[name]) for name in texts}
    env = {name: os.fsencode(value) for name, value in fields.get("env", {}).items()}
    return {**fields, **encoded, "env": env}


async def feed(running: Running, stdin: bytes) -> None:
    for position in range(0, len(stdin), 1024 * 1024):
        await running.send(stdin=stdin[position : position + 1024 * 1024])
    await running.send(stdin_eof=pb.Eof())


async def run(served: Shelld, command: str | None = None, stdin: bytes = b"", **rest: Any) -> Ran:
    """Run a program to its end."""
    running = await start(served, command, **rest)
    if running.ran.kinds == ["started"]:
        feeding = asyncio.create_task(feed(running, stdin))
        ran = await running.end()
        await feeding
        return ran
    return await running.end()


def pty(columns: int = 80, rows: int = 24, term: str = "xterm", **modes: int) -> pb.Pty:
    """A terminal; `modes` are o1=3 for opcode 1."""
    window = pb.WindowSize(columns=columns, rows=rows, width_px=columns * 8, height_px=rows * 16)
    return pb.Pty(term=term, window=window, modes={int(name[1:]): value for name, value in modes.items()})


class Connection:
    """One Dial or Accept call."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.received = b""
        self.local = ""
        self._has_ended = False
        """Whether this side has said that nothing more comes."""

    @classmethod
    async def open(cls, call: Any, **first: Any) -> "Connection":
        made = cls(call)
        await call.write(pb.ConnectionInput(**first))
        frame = await made.next()
        assert frame is not None
        assert frame.WhichOneof("frame") == "connected", frame
        made.local = frame.connected.local_address
        return made

    async def next(self) -> pb.ConnectionOutput | None:
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.call.read()
        if frame is grpc.aio.EOF:
            return None
        self.received += frame.data
        return frame

    async def send(self, data: bytes) -> None:
        await self.call.write(pb.ConnectionInput(data=data))

    async def eof(self) -> None:
        await self.call.write(pb.ConnectionInput(eof=pb.Eof()))
        self._has_ended = True

    async def end(self) -> list[str]:
        """Read to the end of the call; return the kinds of frames that were no data."""
        kinds = []
        while (frame := await self.next()) is not None:
            # A proxy ends the call when both sides have ended; shelld waits a second for one that does not.
            if frame.WhichOneof("frame") == "reset" or (frame.HasField("eof") and self._has_ended):
                await self.call.done_writing()
            if frame.WhichOneof("frame") != "data":
                kinds.append(frame.WhichOneof("frame") or "")
        return kinds


async def refused(call: Any, **first: Any) -> tuple[str, str]:
    """Open a connection that must fail; return the code and the sentence."""
    await call.write(pb.ConnectionInput(**first))
    frame = await call.read()
    assert frame.WhichOneof("frame") == "failed", frame
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    return pb.OpenFailed.Code.Name(frame.failed.code), frame.failed.reason


def tcp(host: str, port: int) -> pb.Target:
    return pb.Target(tcp=pb.TcpAddress(host=host, port=port))


def first_frame(method: str) -> Any:
    """What a caller of each method would say first; none of it changes anything."""
    return {
        "Handshake": pb.HandshakeRequest(version=pb.Version(major=1)),
        "Run": pb.RunInput(start=pb.Start(exec=b"true")),
        "Dial": pb.ConnectionInput(dial=tcp("127.0.0.1", 1)),
        "Listen": pb.ListenRequest(),
        "Accept": pb.ConnectionInput(accept="none"),
        "Status": pb.StatusRequest(),
        "Announce": pb.AnnounceRequest(text="hello"),
        "Drain": pb.DrainRequest(if_idle_ms=2**40),
        "EnsureApp": pb.EnsureAppRequest(spec=pb.AppSpec(slug="none")),
        "StopApp": pb.StopAppRequest(slug="none"),
        "ListApps": pb.ListAppsRequest(),
        "AppLog": pb.AppLogRequest(slug="none"),
        "Touch": pb.TouchRequest(),
    }[method]


METHODS = pb.DESCRIPTOR.services_by_name["Shelld"].methods_by_name


_OF_AN_APP = frozenset({"EnsureApp", "StopApp", "AppLog"})
"""Methods whose first frame names an app that is not there: such an answer comes behind every check."""
_NO_SUCH_APP = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT})


async def every_call(stub: Any, metadata: Any) -> set[grpc.StatusCode]:
    """Make each of the service's calls; return how they ended (OK when they went through)."""
    return set((await calls(stub, metadata)).values())


async def calls(stub: Any, metadata: Any) -> dict[str, grpc.StatusCode]:
    """Make each of the service's calls; return how each ended, by its name."""
    ended = {name: await _outcome(stub, method, metadata) for name, method in METHODS.items()}
    through = {name for name in _OF_AN_APP if ended[name] in _NO_SUCH_APP}
    return ended | dict.fromkeys(through, grpc.StatusCode.OK)


async def _outcome(stub: Any, method: Any, metadata: Any) -> grpc.StatusCode:
    call, first = getattr(stub, method.name), first_frame(method.name)
    try:
        if method.client_streaming:
            stream = call(metadata=metadata, timeout=PATIENCE_S)
            await stream.write(first)
            await stream.done_writing()
        elif method.server_streaming:
            stream = call(first, metadata=metadata, timeout=PATIENCE_S)
        else:
            await call(first, metadata=metadata, timeout=PATIENCE_S)
            return grpc.StatusCode.OK
        while await stream.read() is not grpc.aio.EOF:
            pass
        return await stream.code()
    except grpc.aio.AioRpcError as error:
        return error.code()
