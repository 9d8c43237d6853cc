"""A codec for frames with bulk data: one copy where protobuf makes three.

The bytes equal those of the generated classes (tested). All other frames use the generated classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from proxy.upstream.frames import Output

Buffer = bytes | bytearray | memoryview
_M = TypeVar("_M", bound=Message)

_LENGTH_DELIMITED = 2  # protobuf wire type


def encode_bytes_field(field: int, pieces: Sequence[Buffer], size: int) -> bytes:
    """Encode a message whose only field is the bytes field `field` (1 to 15): `pieces`, `size` bytes in all.

    Source: protobuf encoding, length-delimited records.
    """
    prefix = bytearray((field << 3 | _LENGTH_DELIMITED,))
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return b"".join((prefix, *pieces))


def decode_bytes_field(raw: bytes) -> tuple[int, memoryview] | None:
    """Decode the output of `encode_bytes_field` into field number and payload, uncopied.

    None for anything else.
    """
    if len(raw) < 3 or raw[0] & 0x87 != _LENGTH_DELIMITED:
        return None
    size = shift = 0
    for position in range(1, min(len(raw), 6)):
        byte = raw[position]
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            start = position + 1
            return (raw[0] >> 3, memoryview(raw)[start:]) if size == len(raw) - start else None
        shift += 7
    return None


def encode(frame: Message | bytes) -> bytes:
    """Serialise a frame, unless it is encoded already."""
    return frame if isinstance(frame, bytes) else frame.SerializeToString()


def decoder(kind: type[_M], wrappers: Mapping[int, Callable[[memoryview], Output]]) -> Callable[[bytes], Any]:
    """Return a decoder that wraps bulk fields by their number and leaves the rest to `kind`."""

    def decode(raw: bytes) -> Any:
        if (found := decode_bytes_field(raw)) is not None and (wrap := wrappers.get(found[0])) is not None:
            return wrap(found[1])
        return kind.FromString(raw)

    return decode
