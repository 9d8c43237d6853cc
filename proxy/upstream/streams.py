"""Streams of a link: Run, Dial, Accept and Listen, each with one owner and typed frames."""

import asyncio
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from protos.shelld.v1 import shelld_pb2 as pb
from proxy import model
from proxy.errors import FairleadError
from proxy.errors.programs import AppNotStarted
from proxy.errors.upstream import Draining, Unreachable, UpstreamError, UpstreamLost
from proxy.upstream import app_frames, frames
from proxy.upstream.frame_codec import Buffer, encode_bytes_field
from proxy.upstream.frames import Output

_Out = TypeVar("_Out")

_EOF = pb.Eof()
_SILENT = "the workspace does not answer"
_STOPPING = "the workspace is being stopped"
_BROKEN = "the link to the workspace broke"


def upstream_error(exc: aio.AioRpcError) -> UpstreamError:
    """Convert a status of the link; a program's own end is never a status."""
    text = f"{exc.code().name.lower()}: {exc.details()}"
    if exc.code() is grpc.StatusCode.UNAVAILABLE and (exc.details() or "").startswith("draining"):
        return Draining(text, user_message=_STOPPING)
    if exc.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return Unreachable(text, user_message=_SILENT)
    return UpstreamLost(text, user_message=_BROKEN)


class _Stream(Generic[_Out]):
    """A stream with serialised writes and converted errors.

    It is cancelled on exit unless it ended by itself.
    """

    def __init__(self, call: "aio.StreamStreamCall[Any, Any]") -> None:
        self._call = call
        # gRPC takes one write at a time; windows and signals come from other tasks than stdin.
        self._writing = asyncio.Lock()
        self._answered = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Cancel the stream; shelld ends its program or connection. A call after the end does nothing."""
        self._call.cancel()

    async def _send(self, frame: Message | bytes) -> None:
        try:
            async with self._writing:
                await self._call.write(frame)
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc
        except (asyncio.InvalidStateError, aio.UsageError) as exc:
            raise UpstreamLost("the stream has ended", user_message=_BROKEN) from exc

    async def _receive(self) -> _Out | Output | None:
        """Return the next frame; None when shelld ended the stream in order."""
        try:
            frame: Any = await self._call.read()
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc
        if frame is aio.EOF:
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                details = await self._call.details()
                raise self._error(aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details))
            return None
        return frame  # type: ignore[no-any-return]

    async def _first(self, timeout_s: float) -> _Out:
        try:
            async with asyncio.timeout(timeout_s):
                frame = await self._receive()
        except TimeoutError:
            raise Unreachable("no first frame in time", user_message=_SILENT) from None
        if frame is None or isinstance(frame, Output):
            raise UpstreamLost("shelld did not answer the first frame", user_message=_BROKEN)
        self._answered = True
        return frame

    def _error(self, exc: aio.AioRpcError) -> UpstreamError:
        """Return UpstreamLost if the workspace has answered before, else Unreachable."""
        error = upstream_error(exc)
        return UpstreamLost(str(error), user_message=_BROKEN) if self._answered else error


class Program(_Stream[pb.RunOutput]):
    """One running shell, command or subsystem."""

    def __init__(self, call: "aio.StreamStreamCall[Any, Any]", features: Set[str] = frozenset()) -> None:
        """Create it; `features` are those of the handshake."""
        super().__init__(call)
        self.pid = 0
        self._features = features
        self._credit = 0
        self._limited = False
        self._credited = asyncio.Event()

    async def start(self, first: pb.RunInput, timeout_s: float) -> None:
        """Send the first frame and wait for the program's process.

        Raises: ProgramNotStarted, Unreachable, UpstreamLost.
        """
        await self._send(first)
        reply = await self._first(timeout_s)
        match reply.WhichOneof("frame"):
            case "started":
                self.pid = reply.started.pid
                self._credit = reply.started.stdin_window
                self._limited = self._credit > 0
            case "start_failed":
                raise frames.not_started(reply.start_failed)
            case other:
                raise UpstreamLost(f"shelld began a program with {other}")

    async def room(self, limit_bytes: int) -> int:
        """Wait until the program can take more stdin; return the number of bytes, 1 to `limit_bytes`.

        Stdin of a program that does not read waits here, so that the stream stays free for windows and
        signals.
        """
        if not self._limited:
            return limit_bytes
        while self._credit == 0:
            self._credited.clear()
            await self._credited.wait()
        return min(self._credit, limit_bytes)

    async def write(self, pieces: Sequence[Buffer], size: int) -> None:
        """Send `size` bytes of stdin, at most as many as `room` returned.

        Returns when the link took them, not when the program read them. Raises: UpstreamLost, Unreachable.
        """
        if self._limited:
            self._credit -= size
        await self._send(encode_bytes_field(pb.RunInput.STDIN_FIELD_NUMBER, pieces, size))

    async def write_eof(self) -> None:
        """Close the program's stdin."""
        await self._send(pb.RunInput(stdin_eof=_EOF))

    async def resize(self, size: model.WindowSize) -> None:
        """Change the PTY's size."""
        await self._send(pb.RunInput(window=frames.window_size(size)))

    async def signal(self, name: str) -> None:
        """Send a signal by its RFC 4254 §6.10 name."""
        await self._send(pb.RunInput(signal=name))

    async def send_break(self, length_ms: int) -> None:
        """Send a break (RFC 4335); 0 means the default length."""
        await self._send(pb.RunInput(break_ms=length_ms))

    async def close_stdout(self) -> None:
        """Let the program's next write to stdout fail, as on a pipe without a reader.

        Nothing is done where shelld lacks the feature "stdout-close".
        """
        if "stdout-close" in self._features:
            await self._send(pb.RunInput(stdout_close=_EOF))

    async def read(self) -> Output | frames.StdoutEof | frames.Notice | model.Exit:
        """Wait for the next output or notice; an Exit is the last.

        Raises: UpstreamLost, Unreachable when the link breaks before that.
        """
        while True:
            message = await self._receive()
            if isinstance(message, Output):
                return message
            if message is None:
                raise UpstreamLost("the stream ended without an exit", user_message=_BROKEN)
            match frames.output(message):
                case frames.StdinConsumed(count):
                    self._credit += count
                    self._credited.set()
                case None:
                    continue
                case frame:
                    return frame


class Connection(_Stream[pb.ConnectionOutput]):
    """One connection in the workspace, dialled or accepted."""

    async def open(self, first: pb.ConnectionInput, timeout_s: float) -> None:
        """Send the first frame and wait until the connection is open.

        Raises: OpenFailed with the workspace's reason, Unreachable, UpstreamLost.
        """
        await self._send(first)
        reply = await self._first(timeout_s)
        match reply.WhichOneof("frame"):
            case "connected":
                return
            case "failed":
                raise frames.open_failed(reply.failed)
            case other:
                raise UpstreamLost(f"shelld began a connection with {other}")

    async def room(self, limit_bytes: int) -> int:
        """Return `limit_bytes`: gRPC's own windows suffice, since nothing but bytes goes this way."""
        return limit_bytes

    async def write(self, pieces: Sequence[Buffer], size: int) -> None:
        """Send `size` bytes; returns when the link took them. Raises: UpstreamLost, Unreachable."""
        await self._send(encode_bytes_field(pb.ConnectionInput.DATA_FIELD_NUMBER, pieces, size))

    async def write_eof(self) -> None:
        """End this direction; the other goes on."""
        await self._send(pb.ConnectionInput(eof=_EOF))

    async def abandon(self) -> None:
        """Let shelld close the connection once everything is delivered; call it after `write_eof`."""
        with suppress(aio.AioRpcError, asyncio.InvalidStateError, aio.UsageError, aio.InternalError):
            async with self._writing:
                await self._call.done_writing()

    async def delivered(self) -> None:
        """Wait until shelld has delivered the last byte of our direction.

        Call it after `read` returned the end.

        Raises: UpstreamLost when the peer or the link broke the connection before that.
        """
        while (message := await self._receive()) is not None:
            if not isinstance(message, Output) and message.WhichOneof("frame") == "reset":
                raise UpstreamLost(message.reset.reason or "connection reset by peer")

    async def read(self) -> memoryview:
        """Wait for bytes; empty at the end of this direction.

        Raises: UpstreamLost when the peer or the link broke the connection.
        """
        while True:
            message = await self._receive()
            if isinstance(message, Output):
                return message.data
            match message.WhichOneof("frame") if message else "eof":
                case "data" if message:
                    return memoryview(message.data)
                case "eof":
                    return memoryview(b"")
                case "reset" if message:
                    raise UpstreamLost(message.reset.reason or "connection reset by peer")
                case "connected" | "failed" as frame:
                    raise UpstreamLost(f"shelld sent {frame} twice")


class Listener:
    """One listening socket in the workspace; it ends when closed or when the link breaks."""

    def __init__(self, call: "aio.UnaryStreamCall[pb.ListenRequest, pb.ListenOutput]") -> None:
        self._call = call
        self.address = ""
        self.port = 0

    async def open(self, timeout_s: float) -> None:
        """Wait until the socket is bound. Raises: OpenFailed, Unreachable, UpstreamLost."""
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._read()
        except TimeoutError:
            raise Unreachable("no first frame in time", user_message=_SILENT) from None
        match reply.WhichOneof("frame") if reply else None:
            case "bound" if reply:
                self.address, self.port = reply.bound.address, reply.bound.port
            case "failed" if reply:
                raise frames.open_failed(reply.failed)
            case other:
                raise UpstreamLost(f"shelld began a listener with {other}")

    async def accepted(self) -> AsyncIterator[frames.Accepted]:
        """Yield each connection that waits to be claimed; ends with the listener.

        Raises: UpstreamLost, Unreachable when the link breaks.
        """
        while (message := await self._read()) is not None:
            if message.WhichOneof("frame") == "accepted":
                waiting = message.accepted
                yield frames.Accepted(waiting.connection_id, waiting.peer_host, waiting.peer_port)

    def close(self) -> None:
        """Unbind. Connections that were claimed go on."""
        self._call.cancel()

    async def _read(self) -> pb.ListenOutput | None:
        try:
            frame: Any = await self._call.read()
        except aio.AioRpcError as exc:
            raise upstream_error(exc) from exc
        return None if frame is aio.EOF else frame


class AppStates:
    """The states of an app that is being started, up to one that lasts."""

    def __init__(self, call: "aio.UnaryStreamCall[pb.EnsureAppRequest, pb.AppState]") -> None:
        self._call = call
        self._messages = aiter(call)
        self._first: model.AppState | None = None

    async def open(self, timeout_s: float) -> None:
        """Wait for the first state. Raises: AppNotStarted, Unreachable, UpstreamLost."""
        try:
            async with asyncio.timeout(timeout_s):
                self._first = await self._read()
        except TimeoutError:
            raise Unreachable("no first state in time", user_message=_SILENT) from None

    async def __aiter__(self) -> AsyncIterator[model.AppState]:
        """Yield each state. Raises: UpstreamLost, Unreachable when the link breaks."""
        state = self._first
        while state is not None:
            yield state
            state = await self._read()

    def close(self) -> None:
        """Hear no more of the app, which goes on."""
        self._call.cancel()

    async def _read(self) -> model.AppState | None:
        try:
            return app_frames.state(await anext(self._messages))
        except StopAsyncIteration:
            return None
        except aio.AioRpcError as exc:
            raise app_error(exc) from exc


def app_error(exc: aio.AioRpcError) -> FairleadError:
    """Convert a status of a call about an app."""
    if exc.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        return AppNotStarted(exc.details() or "the workspace does not take this app")
    return upstream_error(exc)
