"""The wire format: frames to and from bytes.

Bulk frames are decoded and encoded by hand: one copy instead of three, and no object per byte string. Every
other frame uses the generated classes. The result on the wire is the same (tested).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import DecodeError, Message

from protos.shelld.v1 import shelld_pb2 as pb
from shelld.aio import LINGER_S
from shelld.apps.spec import READY_WITHIN_S, AppSpec, Restart
from shelld.apps.state import State
from shelld.errors import CallGone, OpenCode, OpenError, ProtocolError, StartCode, StartError
from shelld.forwards.listen import Arrival
from shelld.forwards.relay import Received
from shelld.forwards.reserved import Reserved
from shelld.launch.fds import MAX_FRAME_BYTES
from shelld.octets import bytes_of, shown, text_of
from shelld.programs.command import ProgramSpec
from shelld.programs.program import BreakRequest, Ended, Eof, Input, SignalRequest, StdoutClose
from shelld.programs.pty import PtySpec, WindowSize

Context = grpc.aio.ServicerContext[Any, Any]

_Request = TypeVar("_Request", bound=Message)
_HEADROOM_BYTES = 64 * 1024
_READ_AHEAD_BYTES = 256 * 1024

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES + _HEADROOM_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES + _HEADROOM_BYTES),
    # What is received of a stream before it is asked for. gRPC's own estimate grows with the load of the
    # machine, to more than 16 MiB for each stream.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", _READ_AHEAD_BYTES),
    # A proxy whose machine died sends nothing: detect it, or its programs are never hung up.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The proxy pings too, and may do so on a quiet channel.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)


class Malformed:
    """A frame that cannot be decoded as its type."""


# ----------------------------------------------------------------------------------- hot frames


def _prefix(field: int, size: int) -> bytes:
    """Return tag and length of a length-delimited field: protobuf's encoding, wire type 2."""
    prefix = bytearray([field << 3 | 2])
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix)


def bulk(field: int, data: bytes) -> bytes:
    """Encode a message whose only field is the bytes field `field` (1 to 15)."""
    return _prefix(field, len(data)) + data


def unbulk(field: int, raw: bytes) -> memoryview | None:
    """Return the payload of a frame that `bulk` encoded, without a copy; None for any other."""
    if len(raw) < 3 or raw[0] != field << 3 | 2:
        return None
    size = shift = 0
    for position in range(1, min(len(raw), 6)):
        byte = raw[position]
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return memoryview(raw)[position + 1 :] if size == len(raw) - position - 1 else None
        shift += 7
    return None


_STDIN_FIELD = pb.RunInput.STDIN_FIELD_NUMBER
_STDOUT_FIELD = pb.RunOutput.STDOUT_FIELD_NUMBER
_STDERR_FIELD = pb.RunOutput.STDERR_FIELD_NUMBER
_DATA_IN_FIELD = pb.ConnectionInput.DATA_FIELD_NUMBER
_BULK_FIELDS: dict[type[Message], int] = {pb.RunInput: _STDIN_FIELD, pb.ConnectionInput: _DATA_IN_FIELD}
_DATA_OUT_FIELD = pb.ConnectionOutput.DATA_FIELD_NUMBER


def decoder(kind: type[Message]) -> Callable[[bytes], Any]:
    """Return the deserializer of a request type: a payload, a message, or Malformed."""
    field = _BULK_FIELDS.get(kind)

    def decode(raw: bytes) -> Any:
        if field is not None and (payload := unbulk(field, raw)) is not None:
            return payload
        try:
            return kind.FromString(raw)
        except DecodeError:
            return Malformed()

    return decode


def well_formed(request: _Request | Malformed) -> _Request:
    """Return the request of a unary call.

    Raises: ProtocolError for one that could not be decoded.
    """
    if isinstance(request, Malformed):
        raise ProtocolError("the request is malformed")
    return request


def encode(reply: Message | bytes) -> bytes:
    """Serialize a reply; bytes are already encoded."""
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


# --------------------------------------------------------------------------------------- values


def window(message: pb.WindowSize) -> WindowSize:
    """Decode a size."""
    return WindowSize(message.columns, message.rows, message.width_px, message.height_px)


def exit_frame(ended: Ended) -> bytes:
    """Encode the end of a program; always the last frame of a Run."""
    return pb.RunOutput(exit=_exit(ended)).SerializeToString()


def _exit(ended: Ended) -> pb.Exit:
    if ended.signal:
        return pb.Exit(signal=pb.ExitSignal(name=ended.signal, core_dumped=ended.core_dumped))
    return pb.Exit(status=ended.status)


def start_failed(error: StartError) -> bytes:
    """Encode the reason for a program that did not start."""
    failed = pb.StartFailed(code=pb.StartFailed.Code.Value(error.code.value), reason=shown(error.reason))
    return pb.RunOutput(start_failed=failed).SerializeToString()


def open_failed(error: OpenError) -> pb.OpenFailed:
    """Encode the reason for a missing connection or listener."""
    return pb.OpenFailed(code=pb.OpenFailed.Code.Value(error.code.value), reason=shown(error.reason))


def program_spec(frame: object) -> ProgramSpec:
    """Decode the first frame of Run.

    Raises: StartError INVALID.
    """
    if not isinstance(frame, pb.RunInput) or frame.WhichOneof("frame") != "start":
        raise StartError(StartCode.INVALID, "the first frame must be a start frame")
    start = frame.start
    kind = start.WhichOneof("kind")
    if kind is None:
        raise StartError(StartCode.INVALID, "the start frame names neither shell, command nor subsystem")
    pty, client = None, None
    if start.HasField("pty"):
        pty = PtySpec(start.pty.term, window(start.pty.window), dict(start.pty.modes))
    if start.HasField("client"):
        peer = start.client
        client = (peer.host, peer.port, peer.server_host, peer.server_port)
    return ProgramSpec(
        kind=kind,
        text="" if kind == "shell" else text_of(getattr(start, kind)),
        env={name: text_of(value) for name, value in start.env.items()},
        pty=pty,
        account=start.account,
        ssh_agent=start.ssh_agent,
        original_command=text_of(start.original_command),
        user_rc=start.user_rc,
        client=client,
        program_id=start.program_id,
    )


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a Dial: an app, a Unix path, or if both are empty a host and port."""

    path: str
    host: str
    port: int
    account: str
    reserved: Reserved
    app: str = ""
    quiet: bool = False


def reserved(message: pb.Reserved) -> Reserved:
    """Decode the proxy's own addresses."""
    return Reserved(frozenset(message.ports), tuple(message.directories))


def target(frame: object) -> Target:
    """Decode the first frame of Dial.

    Raises: OpenError INVALID.
    """
    if not isinstance(frame, pb.ConnectionInput) or frame.WhichOneof("frame") != "dial":
        raise OpenError(OpenCode.INVALID, "the first frame must be a dial frame")
    dial = frame.dial
    own, quiet = reserved(dial.reserved), dial.quiet
    kind = dial.WhichOneof("target")
    if kind == "tcp":
        return Target("", dial.tcp.host, dial.tcp.port, dial.account, own, quiet=quiet)
    if kind == "unix_path" and dial.unix_path:
        return Target(text_of(dial.unix_path), "", 0, dial.account, own, quiet=quiet)
    if kind == "app" and dial.app:
        return Target("", "", 0, dial.account, own, dial.app, quiet)
    raise OpenError(OpenCode.INVALID, "the dial frame names no target")


def connection_id(frame: object) -> str:
    """Decode the first frame of Accept.

    Raises: OpenError INVALID.
    """
    if isinstance(frame, pb.ConnectionInput) and frame.WhichOneof("frame") == "accept":
        return frame.accept
    raise OpenError(OpenCode.INVALID, "the first frame must be an accept frame")


def connection_input(frame: object) -> Received:
    """Decode a frame of Dial or Accept that is not its first.

    Raises: ProtocolError.
    """
    if isinstance(frame, memoryview):
        return _bounded(frame)
    if isinstance(frame, pb.ConnectionInput):
        match frame.WhichOneof("frame"):
            case "data":
                return _bounded(memoryview(frame.data))
            case "eof":
                return Eof()
    raise ProtocolError("frame malformed, or out of place")


def _bounded(data: memoryview) -> memoryview:
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolError("a frame above max_frame_bytes")
    return data


def accepted(arrival: Arrival) -> pb.ListenOutput:
    """Encode the announcement of a connection."""
    announced = pb.Accepted(
        connection_id=arrival.connection_id, peer_host=arrival.host, peer_port=arrival.port
    )
    return pb.ListenOutput(accepted=announced)


def run_input(frame: object) -> Input:
    """Decode a frame of Run that is not its first.

    Raises: ProtocolError.
    """
    if isinstance(frame, memoryview):
        return _bounded(frame)
    if not isinstance(frame, pb.RunInput):
        raise ProtocolError("frame malformed")
    match frame.WhichOneof("frame"):
        case "stdin":
            return _bounded(memoryview(frame.stdin))
        case "stdin_eof":
            return Eof()
        case "window":
            return window(frame.window)
        case "signal":
            return SignalRequest(frame.signal)
        case "break_ms":
            return BreakRequest()
        case "stdout_close":
            return StdoutClose()
        case "start":
            raise ProtocolError("second start frame")
    raise ProtocolError("frame without a known field")


_RESTARTS = {pb.AppSpec.ALWAYS: Restart.ALWAYS, pb.AppSpec.NO: Restart.NO}


def app_spec(message: pb.AppSpec) -> AppSpec:
    """Decode the description of an app."""
    has_port = message.listen.WhichOneof("listen") == "port"
    return AppSpec(
        slug=message.slug,
        start=text_of(message.start),
        env={name: text_of(value) for name, value in message.env.items()},
        account=message.account,
        workdir=text_of(message.workdir),
        port=message.listen.port if has_port else None,
        socket="" if has_port else text_of(message.listen.socket),
        restart=_RESTARTS.get(message.restart, Restart.ON_FAILURE),
        ready_path=text_of(message.ready.path),
        within_s=message.ready.within_ms / 1000 or READY_WITHIN_S,
        digest=message.digest,
    )


def app_state(state: State) -> pb.AppState:
    """Encode the state of an app."""
    message = pb.AppState(
        slug=state.slug,
        phase=pb.AppState.Phase.Value(state.phase.value),
        reason=shown(state.reason),
        restarts=state.restarts,
        since_ms=max(0, int(state.since_s * 1000)),
        port=state.port,
        socket=bytes_of(state.socket),
        pid=state.pid,
        log_lines=[shown(line) for line in state.lines],
        digest=state.digest,
        stopped=state.stopped,
    )
    if state.ended is not None:
        message.exit.CopyFrom(_exit(state.ended))
    return message


# ---------------------------------------------------------------------------------------- calls


async def read(context: Context) -> Any:
    """Return the next decoded frame, None after the client's last."""
    frame = await context.read()
    return None if frame is grpc.aio.EOF else frame


async def linger(context: Context) -> None:
    """Drop the client's frames until it has received the end, LINGER_S at most.

    A call that ends while its client writes fails that write, and gRPC then drops the frames that the client
    has not read yet, and the status. gRPC allows one read of a call at a time: where another one was
    abandoned, there is nothing to drop.
    """
    with contextlib.suppress(TimeoutError, grpc.aio.InternalError, grpc.aio.UsageError):
        async with asyncio.timeout(LINGER_S):
            while await read(context) is not None:
                pass


class Frames:
    """The writer of one call, one frame at a time for all its users: gRPC allows no two."""

    def __init__(self, context: Context) -> None:
        """Take the context of the call."""
        self._context = context
        self._turn = asyncio.Lock()

    async def send(self, frame: Message | bytes) -> None:
        """Send one frame; returns when the transport accepted it, which is the back-pressure.

        Raises: CallGone when the call ended meanwhile, just before its cancellation arrives.
        """
        async with self._turn:
            try:
                await self._context.write(frame)
            except (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError) as error:
                raise CallGone("the client went away") from error


@dataclass(slots=True)
class RunFrames:
    """A program's output as frames; `touch` is called for every payload."""

    frames: Frames
    touch: Callable[[], None]
    _ended: bool = False

    async def stdout(self, data: bytes) -> None:
        """Send stdout."""
        self.touch()
        await self.frames.send(bulk(_STDOUT_FIELD, data))

    async def stderr(self, data: bytes) -> None:
        """Send stderr."""
        self.touch()
        await self.frames.send(bulk(_STDERR_FIELD, data))

    async def exit(self, ended: Ended) -> None:
        """Send the end."""
        self._ended = True
        await self.frames.send(exit_frame(ended))

    async def notice(self, text: str) -> None:
        """Send a sentence for the user, unless the end is being sent."""
        if not self._ended:
            with contextlib.suppress(CallGone):
                await self.frames.send(pb.RunOutput(notice=text))

    async def stdin_consumed(self, count: int) -> None:
        """Send the number of stdin bytes that may follow."""
        await self.frames.send(pb.RunOutput(stdin_consumed=count))

    async def stdout_eof(self) -> None:
        """Send the end of stdout and stderr."""
        await self.frames.send(pb.RunOutput(stdout_eof=pb.Eof()))


@dataclass(frozen=True, slots=True)
class ConnectionFrames:
    """A connection's bytes as frames; `carried` is called with their number."""

    frames: Frames
    carried: Callable[[int], None]

    async def data(self, data: bytes) -> None:
        """Send bytes of the peer."""
        self.carried(len(data))
        await self.frames.send(bulk(_DATA_OUT_FIELD, data))

    async def eof(self) -> None:
        """Send the peer's end."""
        await self.frames.send(pb.ConnectionOutput(eof=pb.Eof()))

    async def reset(self, reason: str) -> None:
        """Send that the peer broke the connection."""
        await self.frames.send(pb.ConnectionOutput(reset=pb.Reset(reason=reason)))
