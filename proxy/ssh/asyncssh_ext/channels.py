"""Channels whose bytes take the short road, and one that knows what it was asked for.

asyncssh copies channel data about eight times on its way out and as often on its way in. These channels
hand views to the connection, which copies once. Closing, windows and requests stay asyncssh's.
"""

from collections.abc import Awaitable
from typing import Protocol, cast

import asyncssh
from asyncssh.channel import SSHAgentChannel
from asyncssh.constants import MSG_CHANNEL_REQUEST, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.packet import SSHPacket

from proxy.octets import text_of
from proxy.settings import RelaySettings
from proxy.ssh.asyncssh_ext.hooks import ChannelRequests
from proxy.ssh.asyncssh_ext.tolerance import TolerantChannel, with_ascii_name
from proxy.ssh.asyncssh_ext.variables import wants_answer
from proxy.upstream.frame_codec import Buffer

_SENT_AT_ONCE = 64
"""Packets of one channel in one slice: 2 MiB of them, for a client that takes 32 KiB in each."""
_SMALL_BYTES = 1_024
_JOINED_BYTES = 32 * 1024


class SendsChannelData(Protocol):
    """The connection of a channel, as far as the data of channels is concerned."""

    @property
    def may_send_data(self) -> bool: ...
    def send_channel_data(
        self, channel: "BulkChannel", number: int, data: memoryview, datatype: int | None
    ) -> None: ...
    def send_later(self, channel: "BulkChannel") -> None: ...


class BulkChannel(TolerantChannel):
    """A channel of raw bytes that are never copied here."""

    _discarded_bytes = 0

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not gone to the client, or never did."""
        return self._send_buf_len + self._discarded_bytes

    def _close_send(self) -> None:
        self._discarded_bytes += self._send_buf_len
        super()._close_send()

    def write(self, data: Buffer, datatype: int | None = None) -> None:
        """Send `data`, which must not change afterwards, as the window allows."""
        if self._send_state != "open":
            raise BrokenPipeError("channel not open for sending")
        if data:
            self._send_buf.append((memoryview(data), datatype))  # type: ignore[arg-type]
            self._send_buf_len += len(data)
            self._flush_send_buf()

    def _flush_send_buf(self) -> None:
        self.send_some()

    def send_some(self) -> int:
        """Send what the window allows, in a bounded number of packets: a client may ask for one byte in each.

        What is left by that bound is sent in a later slice. Return the number of packets.
        """
        if self._conn is None:
            return 0
        conn = cast("SendsChannelData", self._conn)
        buffer = cast("list[tuple[memoryview, int | None]]", self._send_buf)
        sent = 0
        while buffer and self._send_window and self._send_chan is not None and conn.may_send_data:
            if sent == _SENT_AT_ONCE:
                conn.send_later(self)
                break
            view, datatype = buffer[0]
            size = min(self._send_window, self._send_pktsize, len(view))
            if size == len(view):
                del buffer[0]
            else:
                buffer[0] = (view[size:], datatype)
                view = view[:size]
            self._send_buf_len -= size
            self._send_window -= size
            sent += 1
            conn.send_channel_data(self, self._send_chan, view, datatype)
        if buffer:
            self._pause_resume_writing()
        else:
            super()._flush_send_buf()  # what is to be said when the buffer is empty
        return sent

    def drop_unsent(self) -> None:
        """Forget the data that was written and has not gone out, but for extended data (stderr)."""
        kept = [(view, datatype) for view, datatype in self._send_buf if datatype is not None]
        size = sum(len(view) for view, _ in kept)
        self._discarded_bytes += self._send_buf_len - size
        self._send_buf[:], self._send_buf_len = kept, size
        self._flush_send_buf()

    def _process_window_adjust(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        """Widen the window, and send at the end of the slice: thousands of adjustments are one."""
        self._send_window += packet.get_uint32()
        packet.check_end()
        if self._send_buf:
            cast("SendsChannelData", self._conn).send_later(self)

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        """Join small pieces that nobody reads yet: a window full of single bytes would be 300 times its size,
        and asyncssh takes each piece from the front of a list."""
        if not self._recv_paused or not data or self._send_state in ("close_pending", "closed"):
            super()._accept_data(data, datatype)
            return
        self._recv_window -= len(data)
        held = cast("list[tuple[Buffer, int | None]]", self._recv_buf)
        last, last_type = held[-1] if held else (b"", None)
        if isinstance(last, bytearray) and last_type == datatype and len(last) < _JOINED_BYTES:
            last += data
        else:
            held.append((bytearray(data) if len(data) < _SMALL_BYTES else data, datatype))

    def _flush_recv_buf(self, exc: Exception | None = None) -> None:
        """Deliver what is held when the channel closes: nobody is to be slowed down any more.

        asyncssh would keep the close to itself until its session reads again, which may be never.
        """
        if self._recv_state == "close_pending":
            self._recv_paused = False
        super()._flush_recv_buf(exc)


# asyncssh looks handlers up in this table, so that overriding the method alone would change nothing.
BulkChannel._packet_handlers = {
    **TolerantChannel._packet_handlers,
    MSG_CHANNEL_WINDOW_ADJUST: BulkChannel._process_window_adjust,
}


class TcpChannel(BulkChannel, asyncssh.SSHTCPChannel[bytes]):
    """`direct-tcpip` or `forwarded-tcpip`."""


class UnixChannel(BulkChannel, asyncssh.SSHUNIXChannel[bytes]):
    """`direct-streamlocal@openssh.com` or `forwarded-streamlocal@openssh.com`."""


class AgentChannel(BulkChannel, SSHAgentChannel):
    """`auth-agent@openssh.com`, to the client's ssh-agent."""


class SessionChannel(BulkChannel, asyncssh.SSHServerChannel[bytes]):
    """Tell the session about `env` and `auth-agent-req@openssh.com` requests of this very channel."""

    _program: ChannelRequests

    @classmethod
    def of(
        cls, conn: asyncssh.SSHServerConnection, session: ChannelRequests, relay: RelaySettings
    ) -> "SessionChannel":
        """Make a channel of raw bytes, without the line editor."""
        conn._update_recv_pktlen(relay.packet_bytes)
        channel = cls(
            conn,
            conn._loop,
            allow_pty=True,
            line_editor=False,
            line_echo=False,
            line_history=0,
            max_line_length=0,
            encoding=None,
            errors="strict",
            window=relay.window_bytes,
            max_pktsize=relay.packet_bytes,
        )
        channel._program = session
        return channel

    def _start_session(self, command: str | None = None, subsystem: str | None = None) -> bool:
        """Hand over what was asked for, once.

        asyncssh would put a forced command in its place and forget it; the session needs both.
        """
        if self._session_started:
            return False
        self._session_started = True
        self._command, self._subsystem = command, subsystem
        if command is not None:
            return self._program.exec_requested(command)
        if subsystem is not None:
            return self._program.subsystem_requested(subsystem)
        return self._program.shell_requested()

    @property
    def forced_command(self) -> str | None:
        """What the certificate lets run and nothing else; None for anything."""
        return cast("str | None", self._conn.get_certificate_option("force-command"))

    @property
    def permits_user_rc(self) -> bool:
        """Whether `~/.ssh/rc` may run: always for a key, for a certificate with `permit-user-rc`."""
        return self._conn.check_certificate_permission("user-rc")

    def _process_pty_req_request(self, packet: SSHPacket) -> bool:
        return super()._process_pty_req_request(with_ascii_name(packet))

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool | Awaitable[None]:
        """Have a packet handled, and no further one while an `env` request waits for the names."""
        if (
            pkttype != MSG_CHANNEL_REQUEST
            or self._program.accepted_names.is_settled
            or not wants_answer(packet)
        ):
            return super().process_packet(pkttype, pktid, packet)
        return self._process_later(pkttype, pktid, packet)

    async def _process_later(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        await self._program.accepted_names.known()
        handled = super().process_packet(pkttype, pktid, packet)
        assert handled is True, "a request of a channel is answered at once"

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        """Take any bytes for a command, where asyncssh takes UTF-8 only."""
        command = packet.get_string()
        packet.check_end()
        return self._start_session(command=text_of(command))

    def _process_env_request(self, packet: SSHPacket) -> bool:
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        return self._program.env_requested(name, value)

    def _process_auth_agent_req_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:  # type: ignore[override]
        # asyncssh would ask the connection, which cannot tell which channel wants it and until when.
        packet.check_end()
        if not self._conn.check_certificate_permission("agent-forwarding"):
            return False
        return self._program.ssh_agent_requested()

    def _process_eow_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:
        """Hear that nobody reads stdout any more (PROTOCOL of OpenSSH, section 2.1).

        `sshd` answers failure where an answer is asked for, which OpenSSH does not.
        """
        packet.check_end()
        self._program.reader_left()
        return False

    def _process_x11_req_request(self, packet: SSHPacket) -> bool:
        # asyncssh would say the same no from a task, and what comes behind it would pile up until then.
        del packet
        return False
