"""Tolerance of client messages that break the rules and that `sshd` accepts.

asyncssh ends the connection, with all its channels, for any message that it does not expect or cannot read.
Here such a message is ignored, refused or answered for its own channel, and logged once for each message
number. Before the first keys everything stays as strict as in asyncssh: tolerance there could be used to make
a handshake shorter (CVE-2023-48795).

The overridden private methods of asyncssh are pinned by tests/unit/proxy/ssh/test_private_names.py.
The answers of `sshd` to each message are the table of tests/wire/test_oddities.py.
"""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, cast

import asyncssh
import structlog
from asyncssh.channel import SSHChannel
from asyncssh.constants import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_NEWKEYS,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
    OPEN_CONNECT_FAILED,
    OPEN_UNKNOWN_CHANNEL_TYPE,
)
from asyncssh.misc import ProtocolError
from asyncssh.packet import PacketDecodeError, SSHPacket, String, UInt32

_log = structlog.get_logger("ssh")

_UNREADABLE = (ProtocolError, PacketDecodeError)
_WITHOUT_EFFECT = frozenset({MSG_IGNORE, MSG_UNIMPLEMENTED, MSG_DEBUG})
_OF_SERVERS = frozenset({MSG_SERVICE_ACCEPT, MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS, MSG_USERAUTH_BANNER})
_ALWAYS_STRICT = frozenset({MSG_DISCONNECT, MSG_KEXINIT, MSG_NEWKEYS})
"""The end, and the messages that decide on keys."""
_CHANNEL_TYPES = frozenset({b"session", b"direct-tcpip", b"direct-streamlocal@openssh.com"})
"""Known channel types; asyncssh itself would find a handler for a type named `channel`."""
_TO_OTHERS = {
    "kex not in progress": True,
    "auth not in progress": True,
    "incomplete channel request": True,
    "invalid channel number": False,
}
"""Reasons why asyncssh gives a packet to no handler, and whether the answer is UNIMPLEMENTED.

A packet for a closed channel gets no answer: it was correct when it was sent.
"""
_LOGGED = 8
"""Log lines for one connection about wrong messages."""
_WINDOW_GRACE = 10
"""Part of a window by which a client may exceed it, as with `sshd`: one tenth."""


class TolerantConnection(asyncssh.SSHServerConnection):
    """A server connection that survives messages that are misplaced or unreadable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tolerated: set[int] = set()
        self._skipped: tuple[int, int, str] = (0, 0, "")
        """Number and sequence number of the last packet, and the reason if asyncssh gives it to no
        handler.
        """

    def tolerate(self, number: int, why: object) -> None:
        """Log the first message of a number that broke a rule on this connection, for a few numbers."""
        if number not in self._tolerated and len(self._tolerated) < _LOGGED:
            self._tolerated.add(number)
            log = getattr(self.get_owner(), "log", _log)
            log.info("client broke the protocol", message=number, reason=str(why))

    # ------------------------------------------------------------------------- without a handler

    def log_received_packet(self, pkttype: int, pktid: int | None, packet: Any, note: str = "") -> None:
        """Store why asyncssh is about to end the connection; no other callback has the reason."""
        self._skipped = (pkttype, pktid or 0, note)
        super().log_received_packet(pkttype, pktid, packet, note)

    def _recv_packet(self) -> bool:
        """Continue after a packet without a handler; asyncssh would end the connection."""
        self._skipped = (0, 0, "")
        try:
            return super()._recv_packet()
        except ProtocolError as exc:
            number, sequence, reason = self._skipped
            if reason not in _TO_OTHERS or not self._auth_complete:
                raise  # before the login a client has no channels to lose
            self.tolerate(number, exc.reason)
            if _TO_OTHERS[reason]:
                self.send_packet(MSG_UNIMPLEMENTED, UInt32(sequence))
            self._finish_recv_packet(number, sequence)
            return True

    # ---------------------------------------------------------------------------- with a handler

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> "bool | Awaitable[None]":
        """Handle a packet; return False to have it answered with UNIMPLEMENTED (RFC 4253 §11.4)."""
        if pkttype in _WITHOUT_EFFECT:
            return True
        if not self._recv_encryption:
            return super().process_packet(pkttype, pktid, packet)
        if self._is_out_of_place(pkttype):
            self.tolerate(pkttype, "not expected now")
            return pkttype in (MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE)
        try:
            if pkttype == MSG_CHANNEL_OPEN and self._is_refused(packet):
                return True
            if mend := _MENDED.get(pkttype):
                packet = mend(packet)
            return super().process_packet(pkttype, pktid, packet)
        except _UNREADABLE as exc:
            if not self._auth_complete or pkttype in _ALWAYS_STRICT:
                raise
            self.tolerate(pkttype, exc)
            if pkttype in (MSG_CHANNEL_OPEN_CONFIRMATION, MSG_CHANNEL_OPEN_FAILURE):
                self._give_up_opening(packet)
            return pkttype == MSG_CHANNEL_OPEN and self._refuse_unreadable(packet)

    def _is_out_of_place(self, number: int) -> bool:
        """Return whether a message has no meaning for a server, or none at this time."""
        if number in _OF_SERVERS:
            return True
        if number == MSG_NEWKEYS:
            return not self._next_recv_encryption
        if number == MSG_EXT_INFO:
            return not self._can_recv_ext_info
        if number in (MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE):
            return not self._global_request_waiters
        if number == MSG_USERAUTH_REQUEST:
            return self._auth_complete and self._auth_final
        return self._auth_complete and number == MSG_SERVICE_REQUEST

    def _is_refused(self, packet: SSHPacket) -> bool:
        """Refuse a channel of an unknown type, or one that may send nothing; leave `packet` unread.

        Raises: PacketDecodeError.
        """
        kind, sender, packet_bytes = _opened(packet)
        if kind not in _CHANNEL_TYPES:
            self.send_channel_open_failure(sender, OPEN_UNKNOWN_CHANNEL_TYPE, "Unknown channel type", "en-US")
        elif not packet_bytes:
            self.tolerate(MSG_CHANNEL_OPEN, "maximum packet of 0")
            self.send_channel_open_failure(sender, OPEN_CONNECT_FAILED, "the maximum packet is 0", "en-US")
        else:
            return False
        return True

    def _refuse_unreadable(self, packet: SSHPacket) -> bool:
        """Refuse the channel of a CHANNEL_OPEN; return False when not even its number can be read."""
        try:
            _, sender, _ = _opened(packet)
        except PacketDecodeError:
            return False
        self.send_channel_open_failure(sender, OPEN_CONNECT_FAILED, "the request cannot be read", "en-US")
        return True

    def _give_up_opening(self, packet: SSHPacket) -> None:
        """Fail our own channel open whose answer is unreadable: there will be no other answer."""
        channel = self._channels.get(int.from_bytes(packet.get_full_payload()[1:5], "big"))
        if channel is not None:
            with suppress(ProtocolError):  # it is open already
                channel.process_open_failure(OPEN_CONNECT_FAILED, "the answer cannot be read", "en-US")

    def _service_next_global_request(self) -> None:
        """Answer an unreadable request with failure."""
        try:
            super()._service_next_global_request()
        except _UNREADABLE as exc:
            self.tolerate(MSG_GLOBAL_REQUEST, exc)
            self._report_global_response(False)


class TolerantChannel(SSHChannel[bytes]):
    """A channel on which an error costs only this channel, and only when bytes would be lost."""

    _excess_bytes = 0
    """Bytes received beyond the window in total; `sshd` forgets them at the next byte within the window."""

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> "bool | Awaitable[None]":
        """Handle a packet; one that cannot be read at all closes the channel."""
        if pkttype in self._packet_handlers and not self._expects(pkttype, packet):
            self._tolerate(pkttype, "not expected in this state of the channel")
            return True
        try:
            if pkttype == MSG_CHANNEL_REQUEST:
                packet = with_ascii_name(packet)
            return super().process_packet(pkttype, pktid, packet)
        except _UNREADABLE as exc:
            self._tolerate(pkttype, exc)
            self.abort()
            return True

    def _expects(self, number: int, packet: SSHPacket) -> bool:
        if self._recv_state not in ("open", "eof_pending", "eof"):
            return False
        if number in (MSG_CHANNEL_SUCCESS, MSG_CHANNEL_FAILURE):
            return bool(self._request_waiters)
        if number == MSG_CHANNEL_EXTENDED_DATA:
            return self._recv_state == "open" and _extended_type(packet) in self._read_datatypes
        return self._recv_state == "open" or number not in (MSG_CHANNEL_DATA, MSG_CHANNEL_EOF)

    def _service_next_request(self) -> None:
        """Answer an unreadable request with failure; all handlers answer at once."""
        try:
            super()._service_next_request()
        except _UNREADABLE as exc:
            self._tolerate(MSG_CHANNEL_REQUEST, exc)
            self._report_response(False)

    def _process_data(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        """Take data as on the fast path."""
        data = packet.get_string()
        packet.check_end()
        self.receive(memoryview(data))

    def receive(self, data: memoryview) -> None:
        """Take the payload of one CHANNEL_DATA packet (RFC 4254 §5.2).

        Data after EOF or CLOSE is ignored. Data that exceeds the window by more than `sshd` allows closes the
        channel.
        """
        if self._recv_state != "open":
            self._tolerate(MSG_CHANNEL_DATA, "data after EOF or CLOSE")
        elif len(data) <= self._recv_window or self._may_exceed(len(data)):
            self._accept_data(data)  # type: ignore[arg-type]
        else:
            self.abort()

    def _may_exceed(self, size: int) -> bool:
        """Widen the window to `size`, unless the client has used up its tolerated excess."""
        self._tolerate(MSG_CHANNEL_DATA, "window exceeded")
        self._excess_bytes += size - self._recv_window
        if self._excess_bytes > self._init_recv_window // _WINDOW_GRACE:
            return False
        self._recv_window = size
        return True

    def _tolerate(self, number: int, why: object) -> None:
        if self._conn is not None:
            cast(TolerantConnection, self._conn).tolerate(number, why)


# asyncssh looks handlers up in this table; overriding the method alone would change nothing.
TolerantChannel._packet_handlers = {
    **SSHChannel._packet_handlers,
    MSG_CHANNEL_DATA: TolerantChannel._process_data,
}


def _opened(packet: SSHPacket) -> tuple[bytes, int, int]:
    """Return type, sender's number and maximum packet of a CHANNEL_OPEN, and leave the packet unread."""
    opened = SSHPacket(packet.get_full_payload()[1:])
    kind = opened.get_string()
    sender, _, packet_bytes = (opened.get_uint32() for _ in range(3))
    return kind, sender, packet_bytes


def _with_room(packet: SSHPacket) -> SSHPacket:
    """Return a CHANNEL_OPEN_CONFIRMATION with a maximum packet of 1 for 0: it is too late to refuse."""
    payload = packet.get_full_payload()
    if payload[13:17] == bytes(4):
        payload = payload[:16] + b"\x01" + payload[17:]
    return _past_number(payload)


def _with_plain_reason(packet: SSHPacket) -> SSHPacket:
    """Return a CHANNEL_OPEN_FAILURE whose text is UTF-8. Raises: PacketDecodeError."""
    recipient, code, reason = packet.get_uint32(), packet.get_uint32(), packet.get_string()
    text = String(reason.decode("utf-8", "replace"))
    number = packet.get_full_payload()[:1]
    return _past_number(number + UInt32(recipient) + UInt32(code) + text + String("en-US"))


def _past_number(payload: bytes) -> SSHPacket:
    """Return a packet as a handler takes it, with the message number read."""
    packet = SSHPacket(payload)
    packet.get_byte()
    return packet


def _extended_type(packet: SSHPacket) -> int:
    return int.from_bytes(packet.get_remaining_payload()[:4], "big")


def with_ascii_name(packet: SSHPacket) -> SSHPacket:
    """Return the rest of a packet whose first string is made ASCII: `?` stands for other bytes.

    No name of a request or of a terminal has other bytes, so that such a request is answered like an unknown
    one.
    Raises: PacketDecodeError.
    """
    name = packet.get_string()
    plain = name.decode("ascii", "replace").encode("ascii", "replace")
    return SSHPacket(String(plain) + packet.get_remaining_payload())


_MENDED = {
    MSG_GLOBAL_REQUEST: with_ascii_name,
    MSG_CHANNEL_OPEN_CONFIRMATION: _with_room,
    MSG_CHANNEL_OPEN_FAILURE: _with_plain_reason,
}
"""Repairs by message number, so that asyncssh can read the message. Each raises PacketDecodeError."""
