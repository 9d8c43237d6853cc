"""Paths of Unix sockets as the bytes that a client sends, where asyncssh takes UTF-8 only.

What this overrides of asyncssh's private methods is pinned by tests/unit/proxy/ssh/test_private_names.py.
Source: PROTOCOL of OpenSSH, section 2.4.
"""

from typing import Any, cast

import asyncssh
from asyncssh.packet import SSHPacket

from proxy.octets import text_of


class PathsOfBytes(asyncssh.SSHServerConnection):
    """A server connection whose `streamlocal` requests may name any path."""

    def _process_direct_streamlocal_at_openssh_dot_com_open(self, packet: SSHPacket) -> Any:
        """Return the channel and the session of a connection to a path. Raises: ChannelOpenError."""
        path = text_of(packet.get_string())
        packet.get_string(), packet.get_uint32()  # reserved
        packet.check_end()
        if not self._permits_forwards():
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "Port forwarding not permitted"
            )
        session = cast(asyncssh.SSHServer, self.get_owner()).unix_connection_requested(path)
        return self.create_unix_channel(), session

    def _process_streamlocal_forward_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        """Listen at a path."""
        path = text_of(packet.get_string())
        packet.check_end()
        if self._permits_forwards():
            self.create_task(self._finish_path_forward(path))
        else:
            self._report_global_response(False)

    def _process_cancel_streamlocal_forward_at_openssh_dot_com_global_request(
        self, packet: SSHPacket
    ) -> None:
        """Close the listener of a path; refuse to cancel one that does not exist."""
        path = text_of(packet.get_string())
        packet.check_end()
        listener = self._local_listeners.pop(path, None)
        if listener is not None:
            listener.close()
        self._report_global_response(listener is not None)

    def _permits_forwards(self) -> bool:
        return self.check_key_permission("port-forwarding") and self.check_certificate_permission(
            "port-forwarding"
        )
