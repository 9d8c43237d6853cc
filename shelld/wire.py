"""The wire: frames to and from bytes, and the guard that stands before every call.

Frames that carry bulk are taken apart and put together by hand: one copy instead of three, and no
object per byte string. Everything else goes through the generated classes. The result is the same
on the wire (tested).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from protos.shelld.v1 import shelld_pb2 as pb
from shelld.errors import OpenError, ProtocolError, ShelldError, StartError, Unauthenticated
from shelld.fds import MAX_FRAME_BYTES
from shelld.log import Log
from shelld.program import BreakRequest, Ended, Eof, Input, SignalRequest
from shelld.pty import WindowSize
from shelld.token import Caller

_log = Log("shelld.wire")

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context, Caller], Awaitable[Any]]
Authenticate = Callable[[Context], Caller]

SERVICE = pb.DESCRIPTOR.services_by_name["Shelld"]
_HEADROOM_BYTES = 64 * 1024

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES + _HEADROOM_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES + _HEADROOM_BYTES),
    # A proxy whose machine died says nothing: find out, or its programs are never hung up.
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
    """A frame that is no message of its type."""


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
    """Return the payload when `raw` is what `bulk` makes, without a copy; None for anything else."""
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
STDOUT_FIELD = pb.RunOutput.STDOUT_FIELD_NUMBER
STDERR_FIELD = pb.RunOutput.STDERR_FIELD_NUMBER
_DATA_IN_FIELD = pb.ConnectionInput.DATA_FIELD_NUMBER
DATA_OUT_FIELD = pb.ConnectionOutput.DATA_FIELD_NUMBER


def _decoder(kind: type[Message], field: int | None = None) -> Callable[[bytes], Any]:
    def decode(raw: bytes) -> Any:
        if field is not None and (payload := unbulk(field, raw)) is not None:
            return payload
        try:
            return kind.FromString(raw)
        except DecodeError:
            return Malformed()

    return decode


# --------------------------------------------------------------------------------------- values


def window(message: pb.WindowSize) -> WindowSize:
    """Decode a size."""
    return WindowSize(message.columns, message.rows, message.width_px, message.height_px)


def exit_frame(ended: Ended) -> bytes:
    """Encode how a program ended; always the last frame of a Run."""
    if ended.signal:
        gone = pb.ExitSignal(name=ended.signal, core_dumped=ended.core_dumped)
        return pb.RunOutput(exit=pb.Exit(signal=gone)).SerializeToString()
    return pb.RunOutput(exit=pb.Exit(status=ended.status)).SerializeToString()


def start_failed(error: StartError) -> bytes:
    """Encode why no program runs."""
    failed = pb.StartFailed(code=pb.StartFailed.Code.Value(error.code.value), reason=error.reason)
    return pb.RunOutput(start_failed=failed).SerializeToString()


def open_failed(error: OpenError) -> pb.OpenFailed:
    """Encode why there is no connection or listener."""
    return pb.OpenFailed(code=pb.OpenFailed.Code.Value(error.code.value), reason=error.reason)


def run_input(frame: object) -> Input:
    """Decode a frame of Run that is not its first.

    Raises: ProtocolError.
    """
    if isinstance(frame, memoryview):
        if len(frame) > MAX_FRAME_BYTES:
            raise ProtocolError("stdin frame above max_frame_bytes")
        return frame
    if not isinstance(frame, pb.RunInput):
        raise ProtocolError("frame malformed")
    match frame.WhichOneof("frame"):
        case "stdin":
            return run_input(memoryview(frame.stdin))
        case "stdin_eof":
            return Eof()
        case "window":
            return window(frame.window)
        case "signal":
            return SignalRequest(frame.signal)
        case "break_ms":
            return BreakRequest()
        case "start":
            raise ProtocolError("second start frame")
    raise ProtocolError("frame without a known field")


# ---------------------------------------------------------------------------------------- calls


class Unavailable(ShelldError):
    """shelld is stopping and takes no new work."""


class Mismatch(ShelldError):
    """The caller speaks another version, or to another workspace."""


_STATUS = {
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Mismatch: grpc.StatusCode.FAILED_PRECONDITION,
}
_DECODERS = {
    "RunInput": _decoder(pb.RunInput, _STDIN_FIELD),
    "ConnectionInput": _decoder(pb.ConnectionInput, _DATA_IN_FIELD),
}


def handlers(behaviours: Mapping[str, Behaviour], authenticate: Authenticate) -> grpc.GenericRpcHandler:
    """Put every method of the service behind the guard.

    `behaviours` maps method names to coroutines that take the request (None for a request stream),
    the context and the caller. Replies are messages, or bytes already encoded. The list of methods
    comes from the service's descriptor: one without a behaviour is an error here, at start, and one
    without the guard cannot exist.
    """
    table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in SERVICE.methods:
        kind = _KINDS[method.client_streaming, method.server_streaming]
        request = method.input_type.name
        table[method.name] = kind(
            _guarded(
                method.name,
                behaviours.get(method.name) or _missing,
                authenticate,
                streaming=method.client_streaming,
            ),
            request_deserializer=_DECODERS.get(request) or _decoder(getattr(pb, request)),
            response_serializer=_encode,
        )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, table)


_KINDS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


async def _missing(*_: Any) -> None:
    raise Unavailable("not yet")


def _encode(reply: Message | bytes) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _guarded(
    name: str, behaviour: Behaviour, authenticate: Authenticate, *, streaming: bool
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        try:
            caller = authenticate(context)
            if isinstance(request, Malformed):
                raise ProtocolError("request malformed")
            return await behaviour(None if streaming else request, context, caller)
        except ShelldError as error:
            _log.info("call refused", method=name, reason=str(error), peer=context.peer())
            await context.abort(_STATUS.get(type(error), grpc.StatusCode.INTERNAL), str(error))
        except grpc.aio.AbortError:
            raise
        except (grpc.aio.UsageError, grpc.aio.InternalError) as error:
            # The call ended under a write: the client went away a moment before its cancellation came.
            _log.debug("call was gone", method=name, reason=str(error))
            raise asyncio.CancelledError from error
        except Exception as error:  # noqa: BLE001 - the edge of one call: nobody else may be hurt
            _log.bug("call failed", error, method=name)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error of shelld")

    return call


async def read(context: Context) -> Any:
    """Return the next decoded frame, None after the client's last."""
    frame = await context.read()
    return None if frame is grpc.aio.EOF else frame


class Frames:
    """Writes of one call, one at a time whoever asks: gRPC allows no two."""

    def __init__(self, context: Context) -> None:
        """One per call."""
        self._context = context
        self._turn = asyncio.Lock()

    async def send(self, frame: Message | bytes) -> None:
        """Send one frame; returns when the transport took it, which is the back-pressure."""
        async with self._turn:
            await self._context.write(frame)
