"""The asyncssh server connection with changed defaults: cipher order, joined writes, fewer packets, bounds.

Nothing here knows users or workspaces. Each override says which default it replaces and why. The private
names of asyncssh in use are pinned by tests/unit/proxy/ssh/test_private_names.py.
"""

import asyncio
import socket
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple, Self, cast

import asyncssh
import structlog
from asyncssh.constants import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_NEWKEYS,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
)
from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import SSHOpenSSHCertificate

from proxy.access.relay import Gate
from proxy.metrics import UNTRUSTED_HEADERS
from proxy.protection.guard import PendingConnection
from proxy.proxyprotocol import Addresses, is_header
from proxy.settings.relay import RelaySettings
from proxy.ssh.asyncssh_ext.channels import AgentChannel, FastPathChannel, TcpChannel, UnixChannel
from proxy.ssh.asyncssh_ext.coalescing_transport import CoalescingTransport
from proxy.ssh.asyncssh_ext.decompression import BoundedDecompressor
from proxy.ssh.asyncssh_ext.fast_path import FastPathConnection
from proxy.ssh.asyncssh_ext.hooks import AuthReply, LoginGuard
from proxy.ssh.asyncssh_ext.paths import PathsOfBytes
from proxy.ssh.asyncssh_ext.requests import OrderedRequests
from proxy.ssh.asyncssh_ext.slices import Allowance, Slices
from proxy.ssh.asyncssh_ext.tolerance import TolerantConnection
from proxy.ssh.attempts import KEY_EXCHANGE, SERVICE
from proxy.ssh.handshake_scheduler import HandshakeSlot, metered

_log = structlog.get_logger("ssh")

_USERAUTH = String("ssh-userauth")
_MSG_PING, _MSG_PONG = 192, 193
"""Ping and pong of OpenSSH since 9.4 (its PROTOCOL, section 1.9), which hides the timing of keystrokes."""
_PACKET_BYTES = 64
"""Memory for a packet besides its payload, in the buffers of the transport too; a round number."""
DISCONNECT_GRACE_S = 2.0
"""Seconds that a client has to read why its connection ends."""
LARGEST_PACKET_BYTES = 256 * 1024
"""Limit from the login on, as PACKET_MAX_SIZE of OpenSSH, so that a field that is too long is refused with
a reason.
"""

_AES_GCM = frozenset({b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com"})


class Arrival(NamedTuple):
    """The facts about a connection before its SSH handshake."""

    visitor: PendingConnection
    addresses: Addresses | None
    """The real ends of the connection, from a load balancer; None when the ends of the socket are the real
    ones.
    """
    slot: HandshakeSlot | None
    """The place of the handshake in the scheduler; None when it need not wait."""


class ServerConnection(OrderedRequests, PathsOfBytes, TolerantConnection, FastPathConnection):
    """One SSH transport to a client."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        relay: RelaySettings,
        *,
        prefer_aes_gcm: bool,
        arrival: Arrival,
        slices: Slices,
    ) -> None:
        """Create the transport; `slices` is the scheduler of the event loop."""
        super().__init__(loop, options)
        self.arrival = arrival
        self.slot = arrival.slot
        """Used for every slice of the handshake until the login; None when the handshake need not wait."""
        self.writable = Gate()
        """Shut while the client's TCP connection takes no more. Every channel waits for it, in spite of its
        window.
        """
        self.gone = asyncio.Event()
        """Set when the socket is closed or its peer is gone."""
        self.proved_key = b""
        """The key blob whose signature was verified last; a key that was only offered is never stored
        here.
        """
        self._slices = slices
        self._in_turn = False
        self._is_processing = False
        self._is_reading = True
        self._reply_bytes = 0
        self._reading_due: asyncio.TimerHandle | None = None
        self._unread_timeout_s = relay.unread_timeout_s
        self._unsent: dict[FastPathChannel, None] = {}
        self._join_bytes = relay.join_bytes
        self._prefer_aes_gcm = prefer_aes_gcm
        self._kexinit_held = False
        self._method_asked = ""

    # ------------------------------------------------------------------------------ the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write through CoalescingTransport."""
        tcp = cast(asyncio.Transport, transport)
        tcp.set_write_buffer_limits(high=self._join_bytes)
        super().connection_made(
            cast(asyncio.Transport, CoalescingTransport(tcp, self._join_bytes, self.arrival.addresses))
        )

    def pause_writing(self) -> None:
        """Stop every channel.

        asyncssh does nothing here and relies on windows. A client may announce any window and read nothing.
        """
        self.writable.shut()
        self._reply_bytes = 0

    def resume_writing(self) -> None:
        """Let channels send again, and process the input of a client that did not read our replies."""
        self.writable.open()
        self._cancel_reading_due()
        self.ready()

    @property
    def is_over(self) -> bool:
        """Return whether the connection has ended, and its channels only because of that."""
        return self._transport is None

    @property
    def channels_held(self) -> int:
        """Number of channels of both sides, from the request to open them until both ends are closed."""
        return len(self._channels)

    def connection_lost(self, exc: Exception | None = None) -> None:
        """Leave the scheduler and wake all that waits."""
        self.writable.open()
        self.gone.set()
        self.arrival.visitor.leave()
        self._slices.forget(self)
        super().connection_lost(exc)

    # -------------------------------------------------------------------------------- the slices

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Store input, and process it now or in a later slice."""
        del datatype
        if self._transport is not None:  # otherwise the disconnect message was sent, and input is ignored
            self.keep(data)
            self.ready()

    def ready(self) -> None:
        """Process input, or send output that was held back."""
        if self._transport is None or self._in_turn or self._is_processing:
            return
        if self.slot is None:
            self._slices.ready(self)
            return
        self._in_turn = True
        if self.slot.run(self._run_slice):
            self.hold()  # one read waits, so that unauthenticated clients fill no memory

    def _run_slice(self) -> None:
        """Process one slice of the handshake."""
        self._in_turn = False
        if self.slot is None or self.process(Allowance.slice()):
            self.ready()

    def process(self, allowance: Allowance) -> bool:
        """Process input as far as `allowance` goes, then send the data that channels hold back.

        Nothing is processed while the client does not read our replies. Return whether there is more to do.
        """
        if self._transport is None:
            return False
        if self._replies_are_unread():
            self.hold()
            self._expect_reading()
            return False
        self._is_processing = True
        has_more = False
        try:
            has_more = self.advance(allowance)
            has_more |= self._send_held_back(allowance)
        except Exception:  # noqa: BLE001 (a bug of one connection must not stop the scheduler of all)
            self.internal_error()
        finally:
            self._is_processing = False
        if has_more or (self.is_handling and self.has_input):
            self.hold()
        elif not self._is_reading and self._transport is not None:
            self._is_reading = True
            self._transport.resume_reading()
        return has_more

    def hold(self) -> None:
        """Stop reading until all input is processed."""
        if self._is_reading and self._transport is not None:
            self._is_reading = False
            self._transport.pause_reading()

    def _finish_recv_packet(
        self, pkttype: int, seq: int, _task: "asyncio.Task[None] | None" = None, is_async: bool = False
    ) -> None:
        """Continue in a slice after a packet that a task handled.

        asyncssh would process all the rest at once.
        """
        super()._finish_recv_packet(pkttype, seq, _task)
        if is_async:
            self.ready()

    def create_task(self, coro: Awaitable[None], task_logger: Any = None) -> "asyncio.Task[None]":
        """Charge the tasks of a handshake to the share of handshakes."""
        if self.slot is not None:
            coro = metered(coro, self.slot.scheduler.charge)
        return super().create_task(coro, task_logger)

    # ------------------------------------------------------------------- replies, and what waits

    def _replies_are_unread(self) -> bool:
        """Return whether more replies than allowed wait for the client or for the end of a key exchange.

        Counted from the moment when it stopped reading, or from our KEXINIT, during whose exchange
        UNIMPLEMENTED goes out and most other replies are deferred (RFC 4253 §7.1). Channel data does not
        count: the input of a client that reads slowly is still processed, because it may be an interrupt for
        the program that sends so much.
        """
        may_go = self.writable.is_open and (self._kex_complete or not self._deferred_packets)
        return self._reply_bytes > self._join_bytes and not may_go

    def _expect_reading(self) -> None:
        if self._reading_due is None:
            self._reading_due = self._loop.call_later(self._unread_timeout_s, self._never_read)

    def _cancel_reading_due(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None

    def _never_read(self) -> None:
        self._reading_due = None
        if self._transport is not None:
            _log.info("client asks and does not read the answers", waiting_bytes=self._reply_bytes)
            self._force_close(asyncssh.ConnectionLost("Client does not read our answers"))

    @property
    def may_send_data(self) -> bool:
        """Return whether channel data may be sent.

        During a key exchange asyncssh would store it without a bound.
        """
        return self._kex_complete

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """Send the data that channels held back during the key exchange, too."""
        super().send_newkeys(k, h)
        for channel in self._channels.values():
            if isinstance(channel, FastPathChannel):
                self.send_later(channel)

    def send_later(self, channel: FastPathChannel) -> None:
        """Let a channel send its held bytes at the end of this slice, or in a later one."""
        self._unsent[channel] = None
        self.ready()

    def _send_held_back(self, allowance: Allowance) -> bool:
        """Let channels send, each a bounded number of packets. Return whether there is more to send."""
        while self._unsent and self.may_send_data and self.writable.is_open:
            channel = next(iter(self._unsent))
            del self._unsent[channel]
            allowance.spend(channel.send_some())
            if allowance.is_spent:
                return bool(self._unsent)
        return False

    # ------------------------------------------------------------------------------- the goodbye

    def disconnect(self, code: int, reason: str, lang: str = "en-US") -> None:
        """Send the reason, and end.

        asyncssh closes every channel first, and drops the message without channels.
        """
        self._send_disconnect(code, reason, lang)
        self._force_close(None)

    def _force_close(self, exc: Exception | None) -> None:
        """End the connection, but give the client time to read the reason.

        asyncssh aborts, which drops the disconnect message and all that waits before it.
        """
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self.drop_input()
        self._unsent.clear()
        self._cancel_reading_due()
        self._slices.forget(self)
        transport.resume_reading()  # so that we notice when the client has gone
        self._loop.call_soon(self._cleanup, exc)
        if transport.is_closing() or isinstance(exc, asyncssh.ConnectionLost):
            transport.abort()
            return
        transport.write_eof()
        self._loop.call_later(DISCONNECT_GRACE_S, transport.abort)

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """Log an error that would end the connection without a message: it is a bug, here or in asyncssh.

        A packet that cannot be read is the client's fault; asyncssh tells the two apart only where it reads
        without waiting. A task that outlives its connection may fail in any way: that is no bug.
        """
        exc_info = exc_info or sys.exc_info()
        if self.get_owner() is None:
            _log.debug("a task outlived its connection", exc_info=exc_info)
            return
        if isinstance(exc_info[1], PacketDecodeError):
            fault = asyncssh.ProtocolError(str(exc_info[1]))
            self._send_disconnect(fault.code, fault.reason, fault.lang)
            self._force_close(fault)
            return
        _log.error("connection ended by a bug", exc_info=exc_info)
        super().internal_error(exc_info, error_logger)

    def _recv_version(self) -> bool:
        """Refuse a version that is not ASCII (RFC 4253 §4.2), which would raise an error in asyncssh.

        A PROXY header in its place is named: it comes from a load balancer that the settings lack.
        """
        if is_header(self._inpbuf):
            UNTRUSTED_HEADERS.inc()
            _log.warning(
                "PROXY header from an address that is not in proxy_protocol.trusted",
                source=self.arrival.visitor.address,
                hint="is this a load balancer? Then add it to proxy_protocol.trusted",
            )
            raise asyncssh.ProtocolNotSupported("PROXY header from an untrusted address")
        try:
            return super()._recv_version()
        except UnicodeDecodeError:
            raise asyncssh.ProtocolError("Version is not ASCII") from None

    # ------------------------------------------------------------------------- the key exchange

    def _send_kexinit(self) -> None:
        """Delay the first KEXINIT until the client's has arrived, so that ours can depend on it.

        The client's order of ciphers decides (RFC 4253 §7.1), and stock OpenSSH puts ChaCha20 first. Only
        OpenSSH is waited for: it is known to send first, and other clients may not.
        """
        if (
            self._prefer_aes_gcm
            and not self._session_id
            and not self._kexinit_held
            and self._client_version.startswith(b"SSH-2.0-OpenSSH_")
        ):
            self._kexinit_held = True
            return
        self._reply_bytes = 0
        super()._send_kexinit()

    async def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if self._session_id and not self._auth_complete:
            self._asked(KEY_EXCHANGE)  # new keys are due after 1 GiB or an hour, not before the login
        theirs = packet.get_full_payload()
        if self._kexinit_held and not self._session_id and not self._server_kexinit:
            if _AES_GCM & set(_Proposal.of(theirs).ciphers):
                self._enc_algs = [name for name in self._enc_algs if name in _AES_GCM]
            super()._send_kexinit()
        await super()._process_kexinit(pkttype, pktid, packet)
        # A client may guess the algorithms and send its first packet at once. asyncssh takes the guess for
        # right when it names what was agreed on. By RFC 4253 §7, which Dropbear follows, it is right only
        # when the first choices of both sides are equal.
        client, server = _Proposal.of(theirs), _Proposal.of(self._server_kexinit)
        self._ignore_first_kex = client.guesses and client.favourites != server.favourites

    def _process_newkeys(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Have NEWKEYS acknowledged at once, and limit decompression from here on.

        It is the one packet of a login without an answer, so the kernel would delay its TCP acknowledgement
        by 40 ms. OpenSSH leaves Nagle's algorithm on until it has a session, and sends its next packet only
        after that.
        """
        if self._next_decompressor is not None:
            self._next_decompressor = BoundedDecompressor(lambda: self._max_recv_pktlen)
        super()._process_newkeys(pkttype, pktid, packet)
        if (tcp := self.get_extra_info("socket")) is not None and hasattr(socket, "TCP_QUICKACK"):
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _send_ext_info(self) -> None:
        """Announce that we answer pings."""
        self._extensions_to_send[b"ping@openssh.com"] = b"0"
        super()._send_ext_info()

    def _process_ping(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Send back the data of a ping; before the login asyncssh rejects the packet."""
        data = packet.get_string()
        packet.check_end()
        self.send_packet(_MSG_PONG, String(data))

    def choose_server_host_key(self, peer_host_key_algs: Sequence[bytes]) -> bool:
        """Keep the signature algorithm of the chosen key for later proofs, as OpenSSH requires for RSA."""
        chosen = super().choose_server_host_key(peer_host_key_algs)
        if (key := self._server_host_key) is not None:
            self._all_server_host_keys = OrderedDict(self._all_server_host_keys) | {key.public_data: key}
        return chosen

    # ------------------------------------------------------------------------------- the methods

    def _process_service_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Grant the authentication service again, as sshd does: Paramiko asks for it before every method."""
        self._asked(SERVICE)
        if self._auth_in_progress and packet.get_full_payload()[1:] == _USERAUTH:
            self.send_packet(MSG_SERVICE_ACCEPT, _USERAUTH)
        else:
            super()._process_service_request(pkttype, pktid, packet)

    async def _finish_userauth(self, begin_auth: bool, method: bytes, packet: SSHPacket) -> None:
        self._method_asked = method.decode("ascii", "replace")
        # The first byte of a publickey request tells a signature from an offer (RFC 4252 §7).
        self._asked(self._method_asked, proves=packet.get_remaining_payload()[:1] not in (b"", b"\0"))
        await super()._finish_userauth(begin_auth, method, packet)

    def _asked(self, what: str, *, proves: bool = False) -> None:
        owner = self.get_owner()
        if isinstance(owner, LoginGuard):
            owner.asked(what, proves=proves)

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Let a banner with the reason go first: after this packet the client may be gone."""
        owner = self.get_owner()
        if isinstance(owner, LoginGuard):
            if partial_success:
                owner.method_led_on()
            else:
                owner.method_failed(self._method_asked)
        super().send_userauth_failure(partial_success)

    # ---------------------------------------------------------------------------- the signature

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Store the key that was proved: the identity depends on the signature, not on the last offer.

        A signature over SHA-1 proves nothing, as with OpenSSH since 8.8.
        """
        if signature and SSHPacket(signature).get_string() == b"ssh-rsa":
            return False
        valid = await super().validate_public_key(username, key_data, msg, signature)
        if valid and msg:
            self.proved_key = key_data
        return valid

    async def _validate_openssh_certificate(
        self, username: str, cert: SSHOpenSSHCertificate
    ) -> asyncssh.SSHKey | None:
        """Have certificates judged for the user name; asyncssh would take the whole user string."""
        del username
        owner = self.get_owner()
        if not isinstance(owner, LoginGuard) or not await owner.certificate_offered(cert):
            return None
        self._key_options = {}
        self._cert_options = cert.options
        cert.key.set_touch_required(not cert.options.get("no-touch-required", False))
        return cert.key

    async def send_userauth_success(self) -> None:
        """Ask the guard once more before success: the signature is verified, and only now is the key known.

        The guard may ask for a second method: each answer but success is sent as a failure, partial or full.
        """
        owner = self.get_owner()
        reply = await owner.may_enter(self.proved_key) if isinstance(owner, LoginGuard) else AuthReply.REFUSE
        if reply is AuthReply.ENTER:
            self.slot = None
            self._update_recv_pktlen(LARGEST_PACKET_BYTES)
            await super().send_userauth_success()
        else:
            self.send_userauth_failure(reply is AuthReply.MORE)

    # ------------------------------------------------------------------------------ the packets

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Drop the empty IGNORE that asyncssh sends before every packet, and count all other packets.

        It protects the initialisation vectors of CBC ciphers, which are not offered, and doubles the number
        of packets.
        """
        if pkttype == MSG_IGNORE:
            return
        if pkttype not in (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA):
            self._reply_bytes += _PACKET_BYTES + sum(map(len, args))
        super().send_packet(pkttype, *args, handler=handler)

    def create_tcp_channel(
        self,
        encoding: str | None = None,
        errors: str = "strict",
        window: int = 0,
        max_pktsize: int = 0,
    ) -> TcpChannel:
        """Create the channel of a `direct-tcpip` or `forwarded-tcpip`; it is always binary."""
        return TcpChannel(
            self, self._loop, None, errors, window or self._window, max_pktsize or self._max_pktsize
        )

    def create_unix_channel(
        self,
        encoding: str | None = None,
        errors: str = "strict",
        window: int = 0,
        max_pktsize: int = 0,
    ) -> UnixChannel:
        """Create the channel of a Unix socket; it is always binary."""
        return UnixChannel(
            self, self._loop, None, errors, window or self._window, max_pktsize or self._max_pktsize
        )

    def create_agent_channel(self, window: int = 0, max_pktsize: int = 0) -> AgentChannel:
        """Create the channel of a connection to the client's ssh-agent."""
        self._update_recv_pktlen(max_pktsize or self._max_pktsize)
        return AgentChannel(
            self, self._loop, None, "strict", window or self._window, max_pktsize or self._max_pktsize
        )

    async def reload_config(self) -> None:
        """Keep the options: there is no configuration file with `Match` blocks to evaluate again."""


# asyncssh looks handlers up in this table; overriding the method alone would change nothing.
ServerConnection._packet_handlers = {
    **asyncssh.SSHServerConnection._packet_handlers,
    MSG_KEXINIT: ServerConnection._process_kexinit,
    MSG_NEWKEYS: ServerConnection._process_newkeys,
    MSG_SERVICE_REQUEST: ServerConnection._process_service_request,
    MSG_GLOBAL_REQUEST: ServerConnection._process_global_request,
    _MSG_PING: ServerConnection._process_ping,
}


class _Proposal(NamedTuple):
    """The fields of a KEXINIT that are used here (RFC 4253 §7.1)."""

    favourites: tuple[Sequence[bytes], Sequence[bytes]]
    """The first key exchange and the first host key algorithm of the lists; empty for an empty list."""
    ciphers: Sequence[bytes]
    """Ciphers from client to server."""
    guesses: bool
    """Whether a packet follows that relies on the guessed algorithms."""

    @classmethod
    def of(cls, payload: bytes) -> Self:
        """Parse a payload. Raises: PacketDecodeError."""
        packet = SSHPacket(payload)
        packet.get_byte()
        packet.get_bytes(16)  # cookie
        exchanges, host_keys, ciphers, *_ = [packet.get_namelist() for _ in range(10)]
        return cls((exchanges[:1], host_keys[:1]), ciphers, packet.get_boolean())
