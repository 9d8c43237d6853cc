"""The fast path of CHANNEL_DATA through asyncssh: one copy in each direction instead of eight.

It is used when the connection is at rest: authenticated, keys in place, AES-GCM, no compression. All other
packets, and all packets during a key exchange, go through asyncssh. Both paths share the sequence numbers,
initialisation vectors and rekey counters. The bytes on the wire are the same.

Source: RFC 4253 §6, RFC 4254 §5.2, RFC 5647 (with the OpenSSH names, which drop its negotiation).
"""

import asyncio
import os
import struct
import time

import asyncssh
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.ssh.asyncssh_ext.channels import FastPathChannel
from proxy.ssh.asyncssh_ext.slices import Allowance

_BLOCK_BYTES = 16
_TAG_BYTES = 16
_LENGTH_BYTES = 4
_SMALL_BYTES = 2_048
_PIECE_BYTES = 4_096
_UNIT_BYTES = 64 * 1024
_DATA_HEADER = struct.Struct(">BBII")  # padding length, type, channel, size of data
_EXTENDED_HEADER = struct.Struct(">BBIII")  # the same with the data type before the size


class FastPathConnection(asyncssh.SSHServerConnection):
    """A server connection whose channel data is copied once in each direction."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        self._sealing: tuple[object, AESGCM | None] = (None, None)
        self._opening: tuple[object, AESGCM | None] = (None, None)
        self._views: list[memoryview] = []
        """Input that is not processed; mostly empty or the last read."""
        self._at = 0
        """Position in the first view where processing continues."""

    # ------------------------------------------------------------------------------------- out

    def send_channel_data(
        self, channel: "FastPathChannel", number: int, data: memoryview, datatype: int | None
    ) -> None:
        """Send one packet of channel data; `data` fits the client's window and largest packet."""
        if (seal := self._sealer()) is None:
            words = struct.pack(">I", number) + (b"" if datatype is None else struct.pack(">I", datatype))
            kind = MSG_CHANNEL_DATA if datatype is None else MSG_CHANNEL_EXTENDED_DATA
            self.send_packet(kind, words + struct.pack(">I", len(data)), bytes(data), handler=channel)
            return
        size = len(data)
        fixed = _DATA_HEADER.size if datatype is None else _EXTENDED_HEADER.size
        padding = -(fixed + size) % _BLOCK_BYTES
        if padding < 4:
            padding += _BLOCK_BYTES
        if datatype is None:
            header = _DATA_HEADER.pack(padding, MSG_CHANNEL_DATA, number, size)
        else:
            header = _EXTENDED_HEADER.pack(padding, MSG_CHANNEL_EXTENDED_DATA, number, datatype, size)
        length = fixed + size + padding
        prefix = length.to_bytes(_LENGTH_BYTES, "big")
        cipher = self._send_encryption._cipher  # type: ignore[union-attr]
        sealed = seal.encrypt(cipher._iv, b"".join((header, data, os.urandom(padding))), prefix)
        cipher._update_iv()
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += length
        if self._transport is not None:
            if size < _SMALL_BYTES:
                self._transport.write(prefix + sealed)  # so that a keystroke is one TCP segment
            else:
                self._transport.write(prefix)
                self._transport.write(sealed)

    def _sealer(self) -> AESGCM | None:
        """Return the cipher for outgoing data, or None when the packet must go through asyncssh."""
        encryption = self._send_encryption
        if encryption is not self._sealing[0]:
            self._sealing = (encryption, _gcm_of(encryption))
        if (
            not self._kex_complete
            or not self._auth_complete
            or self._compressor is not None
            or self._rekey_bytes_sent >= self._rekey_bytes
            or (self._rekey_seconds and time.monotonic() >= self._rekey_time)
        ):
            return None
        return self._sealing[1]

    # -------------------------------------------------------------------------------------- in

    def keep(self, data: bytes) -> None:
        """Store input until `advance` processes it."""
        self._reset_keepalive_timer()
        self._views.append(memoryview(data))

    def drop_input(self) -> None:
        """Drop the stored input."""
        self._views.clear()
        self._at = 0

    @property
    def is_handling(self) -> bool:
        """Return whether a task of asyncssh handles a packet; meanwhile no other packet is processed."""
        return self._recv_handler not in (self._recv_version, self._recv_pkthdr, self._recv_packet)

    @property
    def has_input(self) -> bool:
        """Return whether any input is stored, even if it is only the beginning of a packet."""
        return bool(self._views or self._inpbuf)

    def advance(self, allowance: Allowance) -> bool:
        """Process packets in order until none can be processed now or `allowance` is spent.

        Packets of channel data are opened in place. All else is passed to asyncssh, one packet at a time or
        in pieces of 4 KiB, because it copies its buffer for every packet. Return whether there is more.
        """
        try:
            while self._transport is not None:
                if allowance.is_spent:
                    return self.has_input and not self.is_handling
                if not self._take_step(allowance):
                    return False
        except asyncssh.DisconnectError as exc:
            self._send_disconnect(exc.code, exc.reason, exc.lang)
            self._force_close(exc)
        except Exception:  # noqa: BLE001 - as asyncssh: a bug ends this connection and is logged
            self.internal_error()
        return False

    def _take_step(self, allowance: Allowance) -> bool:
        """Process one packet, or a part of one; return False when more bytes are needed."""
        if self._inpbuf and self._step_asyncssh(allowance):
            return True
        if not self._views:
            return False
        if self._may_open():
            self._open_next(allowance)
            return True
        if self.is_handling:
            return False
        missing = 0
        if self._recv_handler == self._recv_packet:
            missing = 4 + self._pktlen + self._recv_macsize - self._recv_blocksize - len(self._inpbuf)
        self._hand_over(max(_PIECE_BYTES, missing))
        return True

    def _step_asyncssh(self, allowance: Allowance) -> bool:
        """Let asyncssh read a header or process a packet from its own buffer.

        Return False when it can do neither.
        """
        handler = self._recv_handler
        went_on = handler()
        if (went_on and handler != self._recv_pkthdr) or self.is_handling:
            allowance.spend(_units(self._pktlen))
        return went_on

    def _open_next(self, allowance: Allowance) -> None:
        """Open the next packet in place, or pass it to asyncssh, whose own buffer is empty."""
        if self._inpbuf or self._packet:
            self._join_begun()
        view = self._views[0]
        end = self._packet_end(view, self._at)
        if end and self._take_channel_data(view, self._at, end):
            allowance.spend(_units(end - self._at))
            self._move_to(end)
        else:
            self._hand_over((end or len(view)) - self._at)

    def _join_begun(self) -> None:
        """Join the parts of the packet that was cut, but not all data that came with its rest."""
        begun = self._take_back()
        view = self._views[0][self._at :]
        missing = max(0, self._packet_size(begun + bytes(view[:_LENGTH_BYTES])) - len(begun))
        self._at = 0
        joined, rest = memoryview(begun + bytes(view[:missing])), view[missing:]
        self._views[:1] = [joined, rest] if rest else [joined]

    def _move_to(self, at: int) -> None:
        """Continue after the processed part of the first view, unless that ended the connection."""
        self._at = at
        if self._views and at >= len(self._views[0]):
            del self._views[0]
            self._at = 0

    def _hand_over(self, size: int) -> None:
        """Move bytes of the first view into asyncssh's own buffer."""
        self._inpbuf += bytes(self._views[0][self._at : self._at + size])
        self._move_to(self._at + size)

    def _packet_size(self, start: bytes) -> int:
        """Return the size of the packet that starts so; any size for a malformed packet."""
        length = int.from_bytes(start[:_LENGTH_BYTES], "big")
        return _LENGTH_BYTES + min(length, self._max_recv_pktlen) + _TAG_BYTES

    def _may_open(self) -> bool:
        """Return whether the connection is at rest, so that the next packet may use the fast path."""
        encryption = self._recv_encryption
        if encryption is not self._opening[0]:
            self._opening = (encryption, _gcm_of(encryption))
        return (
            self._opening[1] is not None
            and self._auth_complete
            and self._decompressor is None
            and self._transport is not None
            and self._recv_handler in (self._recv_pkthdr, self._recv_packet)
        )

    def _take_back(self) -> bytes:
        """Undo the start of a packet that asyncssh read: with AES-GCM its first block is unchanged."""
        begun = self._packet + self._inpbuf
        self._packet = self._inpbuf = b""
        self._recv_handler = self._recv_pkthdr
        return begun

    def _packet_end(self, view: memoryview, at: int) -> int:
        """Return the end of the packet at `at`; 0 when it is incomplete or malformed."""
        if len(view) - at < _LENGTH_BYTES:
            return 0
        length = int.from_bytes(view[at : at + _LENGTH_BYTES], "big")
        end = at + _LENGTH_BYTES + length + _TAG_BYTES
        return end if _BLOCK_BYTES <= length <= self._max_recv_pktlen and end <= len(view) else 0

    def _take_channel_data(self, view: memoryview, at: int, end: int) -> bool:
        """Deliver the packet between `at` and `end` if it is channel data of a FastPathChannel.

        False leaves everything unchanged: asyncssh opens the packet again and handles errors.
        """
        opener, cipher = self._opening[1], self._recv_encryption._cipher  # type: ignore[union-attr]
        assert opener is not None
        body = at + _LENGTH_BYTES
        try:
            plain = opener.decrypt(cipher._iv, view[body:end], view[at:body])
        except InvalidTag:
            return False
        if plain[1] != MSG_CHANNEL_DATA:
            return False
        padding, _, number, size = _DATA_HEADER.unpack_from(plain)
        channel = self._channels.get(number)
        if not isinstance(channel, FastPathChannel) or size != len(plain) - _DATA_HEADER.size - padding:
            return False
        cipher._update_iv()
        self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF
        self._auth_final = True
        channel.receive(memoryview(plain)[_DATA_HEADER.size : _DATA_HEADER.size + size])
        return True


def _gcm_of(encryption: object) -> AESGCM | None:
    return AESGCM(encryption._cipher._key) if isinstance(encryption, GCMEncryption) else None


def _units(size: int) -> int:
    """Return the cost of a packet of `size` bytes: 1, and 1 more for every whole 64 KiB."""
    return 1 + size // _UNIT_BYTES
