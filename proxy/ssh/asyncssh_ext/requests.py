"""Global requests of a client in order: a bounded queue, served by a loop that yields to other work.

asyncssh stores the requests after an unanswered one (a `-R` waits for its workspace) in an unbounded list,
and serves them by recursion. `sshd` has no queue: it reads the next request after its answer. Here the queue
is short. While it is full, the handler of the last request has not ended, and a connection whose packet is
still handled reads no more than one piece (`ServerConnection.process`).

The overridden private methods of asyncssh are pinned by tests/unit/proxy/ssh/test_private_names.py.
Source: RFC 4254 §4 (replies come in the order of the requests).
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

import asyncssh
from asyncssh.packet import SSHPacket

MAX_WAITING = 128
"""Requests after an unanswered one. `ssh` sends all its `-R` at once, of which 64 are allowed."""
_PER_TURN = 16
"""Requests answered in one iteration of the event loop; a proof of the host keys takes milliseconds."""


class OrderedRequests(asyncssh.SSHServerConnection):
    """A server connection that answers global requests one after the other."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.no_more_sessions = False
        """Whether the client said that it opens no further session (PROTOCOL of OpenSSH, section 2.2)."""
        self._is_serving = False
        self._unanswered: object = None
        """The request whose handler was called and has not reported yet."""
        self._has_space = asyncio.Event()

    # -------------------------------------------------------------------------------- the queue

    def _process_global_request(  # type: ignore[override]  # asyncssh awaits what a packet handler returns
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> Awaitable[None] | None:
        """Queue a request; asyncssh handles no further packet until the returned awaitable is done."""
        super()._process_global_request(pkttype, pktid, packet)
        if len(self._global_request_queue) <= MAX_WAITING:
            return None
        self._has_space.clear()  # cleared now: it may be set again before the awaitable is awaited
        return self._space()

    async def _space(self) -> None:
        """Wait until the queue is half empty, or the connection has ended."""
        await self._has_space.wait()

    def _service_next_global_request(self) -> None:
        """Serve waiting requests in a loop; asyncssh would call itself for each."""
        if self._is_serving:  # a handler has answered at once
            return
        self._is_serving = True
        try:
            self._serve()
        finally:
            self._is_serving = False

    def _serve(self) -> None:
        queue = self._global_request_queue
        for _ in range(_PER_TURN):
            if not queue or queue[0] is self._unanswered or self._transport is None:
                break
            self._unanswered = queue[0]
            super()._service_next_global_request()
        else:
            self.create_task(self._serve_later())
        if len(queue) <= MAX_WAITING // 2:
            self._has_space.set()

    async def _serve_later(self) -> None:
        self._service_next_global_request()

    def connection_lost(self, exc: Exception | None = None) -> None:
        """End the wait for space: no request will be answered any more."""
        self._has_space.set()
        super().connection_lost(exc)

    # ----------------------------------------------------------------------------- the requests

    def _process_no_more_sessions_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        """Record that the client opens no further session."""
        packet.check_end()
        self.no_more_sessions = True
        self._report_global_response(True)

    def _process_hostkeys_prove_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        """Refuse to prove a key twice: each proof is a signature, and one packet has room for hundreds."""
        asked, keys = SSHPacket(packet.get_remaining_payload()), []
        while asked:
            keys.append(asked.get_string())
        if len(set(keys)) < len(keys):
            self._report_global_response(False)
        else:
            super()._process_hostkeys_prove_00_at_openssh_dot_com_global_request(packet)

    def _process_tcpip_forward_global_request(self, packet: SSHPacket) -> None:
        """Listen at the address as the client spells it; asyncssh would make it lower case.

        The same spelling goes back in `forwarded-tcpip`, where the client finds its forward by it. OpenSSH
        compares it byte by byte and refuses every connection to `LocalHost` that comes as `localhost`.
        """
        address = _address(packet)
        permitted = self.check_key_permission("port-forwarding") and self.check_certificate_permission(
            "port-forwarding"
        )
        if address is None or not permitted:
            self._report_global_response(False)
        else:
            self.create_task(self._finish_port_forward(*address))

    def _process_cancel_tcpip_forward_global_request(self, packet: SSHPacket) -> None:
        """Unbind, and refuse to cancel a forward that does not exist; asyncssh would end the connection."""
        address = _address(packet)
        listener = self._local_listeners.pop(address, None) if address is not None else None
        if listener is not None:
            listener.close()
        self._report_global_response(listener is not None)


def _address(packet: SSHPacket) -> tuple[str, int] | None:
    """Return host and port of a forward (RFC 4254 §7.1); None for a host that is not UTF-8."""
    host, port = packet.get_string(), packet.get_uint32()
    packet.check_end()
    try:
        return host.decode(), port
    except UnicodeDecodeError:
        return None
