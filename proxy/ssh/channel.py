"""A session channel that remembers per channel what asyncssh keeps per connection or not at all."""

from typing import TYPE_CHECKING

import asyncssh
from asyncssh.packet import SSHPacket

from proxy.settings import Settings

if TYPE_CHECKING:
    from proxy.ssh.session import ProgramSession
    from proxy.ssh.transport import TunedConnection


class SessionChannel(asyncssh.SSHServerChannel[bytes]):
    """Tell the session about `env` and `auth-agent-req@openssh.com` requests of this very channel."""

    _program: "ProgramSession"

    @classmethod
    def of(cls, conn: "TunedConnection", session: "ProgramSession", settings: Settings) -> "SessionChannel":
        """Make a channel of raw bytes, without the line editor."""
        conn._update_recv_pktlen(settings.relay.packet_bytes)
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
            window=settings.relay.window_bytes,
            max_pktsize=settings.relay.packet_bytes,
        )
        channel._program = session
        return channel

    def _process_env_request(self, packet: SSHPacket) -> bool:
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        return self._program.env_requested(name, value)

    def _process_auth_agent_req_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:  # type: ignore[override]
        # asyncssh would ask the connection, which cannot tell which channel wants it and until when.
        packet.check_end()
        return self._program.ssh_agent_requested()
