"""Channels whose data is copied once instead of about eight times, and the session channel.

asyncssh copies channel data about eight times in each direction. These channels pass views to the connection,
which copies once. Closing, windows and requests remain asyncssh's.
"""

from collections.abc import Awaitable
from typing import Protocol, cast

import asyncssh
from asyncssh.channel import SSHAgentChannel
from asyncssh.constants import MSG_CHANNEL_REQUEST, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.packet import SSHPacket

from proxy.octets import text_of
from proxy.settings.relay import RelaySettings
from proxy.ssh.asyncssh_ext.hooks import ChannelRequests
from proxy.ssh.asyncssh_ext.tolerance import TolerantChannel, with_ascii_name
from proxy.ssh.asyncssh_ext.variables import wants_answer
from proxy.upstream.frame_codec import Buffer

_SENT_AT_ONCE = 64
"""Packets of one channel in one slice: 2 MiB for a client that takes 32 KiB in each."""
_SMALL_BYTES = 1_024
_JOINED_BYTES = 32 * 1024


class SendsChannelData(Protocol):
    """The part of a connection that sends channel data."""

    @property
    def may_send_data(self) -> bool:
        """Return whether channel data may be sent now."""

    def send_channel_data(
        self, channel: "FastPathChannel", number: int, data: memoryview, datatype: int | None
    ) -> None:
        """Send `data` to the channel `number` in one packet."""

    def send_later(self, channel: "FastPathChannel") -> None:
        """Let `channel` send its held bytes at the end of this slice, or later."""


class FastPathChannel(TolerantChannel):
    """A channel of raw bytes that are never copied here."""

    _discarded_bytes = 0

    @property
    def unsent_bytes(self) -> int:
        """Return the bytes that were written and have not gone to the client, dropped ones included."""
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
        """Send as much as the window allows, in a bounded number of packets. Return that number.

        A client may allow one byte in each packet. The rest is sent in a later slice.
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
            super()._flush_send_buf()  # sends the EOF or close that waits for an empty buffer
        return sent

    def drop_unsent(self) -> None:
        """Drop data that was written and has not gone out, except extended data (stderr)."""
        kept = [(view, datatype) for view, datatype in self._send_buf if datatype is not None]
        size = sum(len(view) for view, _ in kept)
        self._discarded_bytes += self._send_buf_len - size
        self._send_buf[:], self._send_buf_len = kept, size
        self._flush_send_buf()

    def _process_window_adjust(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        """Widen the window, and send once at the end of the slice, even for thousands of adjustments."""
        self._send_window += packet.get_uint32()
        packet.check_end()
        if self._send_buf:
            cast("SendsChannelData", self._conn).send_later(self)

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        """Join small pieces that are not read yet.

        A window full of single bytes would take 300 times its size, and asyncssh removes each piece from the
        front of a list.
        """
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
        """Deliver the held bytes when the channel closes.

        asyncssh would not report the close until its session reads again, which may be never.
        """
        if self._recv_state == "close_pending":
            self._recv_paused = False
        super()._flush_recv_buf(exc)


# asyncssh looks handlers up in this table; overriding the method alone would change nothing.
FastPathChannel._packet_handlers = {
    **TolerantChannel._packet_handlers,
    MSG_CHANNEL_WINDOW_ADJUST: FastPathChannel._process_window_adjust,
}


class TcpChannel(FastPathChannel, asyncssh.SSHTCPChannel[bytes]):
    """A `direct-tcpip` or `forwarded-tcpip` channel."""


class UnixChannel(FastPathChannel, asyncssh.SSHUNIXChannel[bytes]):
    """A `direct-streamlocal@openssh.com` or `forwarded-streamlocal@openssh.com` channel."""


class AgentChannel(FastPathChannel, SSHAgentChannel):
    """An `auth-agent@openssh.com` channel to the client's ssh-agent."""


class SessionChannel(FastPathChannel, asyncssh.SSHServerChannel[bytes]):
    """A session channel that passes `env` and `auth-agent-req@openssh.com` to its session."""

    _program: ChannelRequests

    @classmethod
    def of(
        cls, conn: asyncssh.SSHServerConnection, session: ChannelRequests, relay: RelaySettings
    ) -> "SessionChannel":
        """Create a channel of raw bytes without asyncssh's line editor."""
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
        """Pass the client's request to the session, once.

        asyncssh would replace it by a forced command and drop the original; the session needs both.
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
        """Return the only command that the certificate permits; None when it permits any."""
        return cast("str | None", self._conn.get_certificate_option("force-command"))

    @property
    def permits_user_rc(self) -> bool:
        """Return whether `~/.ssh/rc` may run: with a key, or a certificate that has `permit-user-rc`."""
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
        # asyncssh would ask the connection, which does not know the channel.
        packet.check_end()
        if not self._conn.check_certificate_permission("agent-forwarding"):
            return False
        return self._program.ssh_agent_requested()

    def _process_eow_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:
        """Report that the client's end of stdout is closed (PROTOCOL of OpenSSH, section 2.1).

        When an answer is asked for, it is failure, as from `sshd`. OpenSSH asks for none.
        """
        packet.check_end()
        self._program.reader_left()
        return False

    def _process_x11_req_request(self, packet: SSHPacket) -> bool:
        # asyncssh would send the same refusal from a task, and later requests would pile up until then.
        del packet
        return False
