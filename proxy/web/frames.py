"""WebSocket frames as they pass: the end and the kind of each. Nothing is changed or kept.

Source: RFC 6455 §5.2. Extensions that change the payload only (compression) make no difference here.
"""

import struct

CLOSE_OPCODE = 8
MAX_REASON_BYTES = 123
"""RFC 6455 §5.5: a control frame has at most 125 bytes, two of them the code."""

GOING_AWAY, POLICY_VIOLATION = 1001, 1008


class FrameScanner:
    """Follow the frames of one direction; a header that arrives in pieces is put together."""

    __slots__ = ("_header", "_left", "data_bytes", "data_frames", "is_closing", "over_bytes")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self.data_frames = 0
        """Text, binary and continuation frames begun so far."""
        self.over_bytes = 0
        self.data_bytes = 0
        """Payload of those, but for frames of at most `over_bytes`."""
        self.is_closing = False
        """A Close frame has begun."""

    @property
    def is_at_boundary(self) -> bool:
        """Return whether a frame of ours fits in here: none is under way, and none may follow a Close."""
        return not self._left and not self._header and not self.is_closing

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Follow bytes that pass."""
        at, size = 0, len(data)
        while True:
            skipped = min(self._left, size - at)
            self._left -= skipped
            at += skipped
            if at == size:
                return
            at = self._read_header(data, at)

    def _read_header(self, data: bytes | bytearray | memoryview, at: int) -> int:
        """Take the bytes of a header from `at` on; return the position behind it."""
        taken = bytes(data[at : at + 14 - len(self._header)])
        head = self._header + taken
        need = _header_size(head)
        if len(head) < need:  # 14 bytes are the longest header, so `data` ends here
            self._header = head
            return len(data)
        before, self._header = len(self._header), b""
        opcode = head[0] & 0x0F
        self._left = _payload_size(head)
        if opcode < CLOSE_OPCODE:
            self.data_frames += 1
            if self._left > self.over_bytes:
                self.data_bytes += self._left
        elif opcode == CLOSE_OPCODE:
            self.is_closing = True
        return at + need - before


def _header_size(head: bytes) -> int:
    """Return the length of a header that begins so; at least one byte more than `head` while unknown."""
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    extended = 8 if length == 127 else 2 if length == 126 else 0
    return 2 + extended + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytes) -> int:
    length = head[1] & 0x7F
    if length == 126:
        return int(struct.unpack_from("!H", head, 2)[0])
    return int(struct.unpack_from("!Q", head, 2)[0]) if length == 127 else length


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """Write a Close frame; a client's are masked (RFC 6455 §5.3), a server's are not.

    A mask of zeros is a mask: the random one protects caches from scripts, and this frame has no script's
    bytes. `reason` is cut to what a control frame can hold.
    """
    text = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    payload = struct.pack("!H", code) + text
    mask = b"\0\0\0\0" if masked else b""
    return bytes((0x80 | CLOSE_OPCODE, len(payload) | (0x80 if masked else 0))) + mask + payload
