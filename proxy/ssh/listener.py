"""The SSH listener: the listening socket, the algorithms, and the options of all connections."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from proxy.access.authentication import Authenticator
from proxy.access.gateway import Gateway
from proxy.addresses import split_address
from proxy.aio import TaskOwner
from proxy.errors import SettingsError
from proxy.identity.revoked_keys import Revocations
from proxy.protection.guard import Guard
from proxy.sessions.records import End, EndReason
from proxy.sessions.tracker import Tracker
from proxy.settings.protection import ProxyProtocolSettings
from proxy.settings.ssh import ListenSettings
from proxy.ssh.accept import PreAuthContext, PreAuthProtocol
from proxy.ssh.asyncssh_ext.certificates import read_authorities
from proxy.ssh.asyncssh_ext.connection import DISCONNECT_GRACE_S, Arrival, ServerConnection
from proxy.ssh.asyncssh_ext.kex import supported_key_exchanges
from proxy.ssh.asyncssh_ext.slices import Slices
from proxy.ssh.connection import ClientConnection, ConnectionSections, Shared
from proxy.ssh.handshake_scheduler import HandshakeScheduler
from proxy.ssh.hostkeys import HostKeys

# Post-quantum algorithms come first. NTRU Prime, which OpenSSH 8.5 to 9.8 prefer, needs the library liboqs,
# which asyncssh looks for.
_KEY_EXCHANGES = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "mlkem768nistp256-sha256",
    "mlkem1024nistp384-sha384",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
)  # No group exchange: for a client that asks for 1,024 bits asyncssh picks a group of 1,024 bits.
# As OpenSSH since 8.8: no SHA-1.
_HOST_KEY_SIGNATURES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
_SIGNATURES = (
    *_HOST_KEY_SIGNATURES,
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
)
_COMPRESSION = (
    "none",
    "zlib@openssh.com",
)  # it starts after the login


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """The sections of the settings that the listener needs."""

    listen: str
    """`host:port` to listen on."""
    ssh: ListenSettings
    proxy_protocol: ProxyProtocolSettings
    strangers_share: float
    """Part of the processor time for handshakes before the login, above 0 and at most 1."""
    trusted_user_ca_keys: Sequence[Path]
    sections: ConnectionSections
    """Sections for each connection."""


class Listener:
    """The acceptor of SSH connections."""

    def __init__(
        self,
        settings: ListenerSettings,
        gateway: Gateway,
        authenticator: Authenticator,
        tracker: Tracker,
        guard: Guard,
        host_keys: HostKeys,
        revocations: Revocations,
    ) -> None:
        self._settings = settings
        self.host_keys = host_keys
        self._shared = Shared(
            settings.sections,
            gateway,
            authenticator,
            tracker,
            read_authorities(settings.trusted_user_ca_keys),
            revocations,
            set(),
            guard,
        )
        self._scheduler = HandshakeScheduler(settings.strangers_share)
        self._slices = Slices()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first bound socket."""
        if self._server is None:
            raise RuntimeError("not listening")
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    def connections(self) -> set[ClientConnection]:
        """Return the connections that are open now, before or after the login."""
        return self._shared.connections

    async def open(self) -> None:
        """Bind and accept. Raises: SettingsError naming the address that cannot be bound."""
        settings = self._settings
        try:
            options = await asyncssh.SSHServerConnectionOptions.construct(**self._options())
        except ValueError as exc:
            raise SettingsError(f"ssh: {exc}") from exc
        # One key object for each algorithm: asyncssh stores the signature algorithm in the object, and two
        # clients that use the RSA key with different algorithms at once would share it.
        options.server_host_keys = OrderedDict(
            (name.encode(), copy(options.server_host_keys[name.encode()]))
            for name in _HOST_KEY_SIGNATURES
            if name.encode() in options.server_host_keys
        )
        for keypair in options.all_server_host_keys.values():
            if keypair.algorithm == b"ssh-rsa":
                keypair.set_sig_algorithm(
                    b"rsa-sha2-512"
                )  # the algorithm of the proof of a host key (`hostkeys-prove`)
        loop = asyncio.get_running_loop()
        host, port = split_address(settings.listen)

        def make_connection(arrival: Arrival) -> ServerConnection:
            prefer_aes_gcm = settings.ssh.prefer_aes_gcm
            return ServerConnection(
                loop,
                options,
                settings.sections.relay,
                prefer_aes_gcm=prefer_aes_gcm,
                arrival=arrival,
                slices=self._slices,
            )

        header = settings.proxy_protocol
        context = PreAuthContext(
            self._shared.guard, self._scheduler, header, header.networks, make_connection
        )
        try:
            self._server = await loop.create_server(
                lambda: PreAuthProtocol(context),
                None if host in ("", "::") else host,  # with `::` asyncio would listen on IPv6 only
                port,
                backlog=settings.ssh.backlog,
                flags=socket.AI_PASSIVE,
            )
        except OSError as exc:
            raise SettingsError(f"listen: cannot listen on {settings.listen}: {exc.strerror or exc}") from exc

    async def close(self, grace_s: float) -> None:
        """Stop accepting; after `grace_s` seconds end the live connections with a sentence."""
        if self._server is not None:
            self._server.close()
        self._scheduler.close()
        live = TaskOwner("closing")
        for connection in tuple(self._shared.connections):
            live.spawn(connection.conn.wait_closed(), name="wait")
        await live.wait(grace_s)
        leaving = tuple(self._shared.connections)
        for connection in leaving:
            live.spawn(connection.conn.gone.wait(), name="goodbye")
            connection.end("the proxy is shutting down", End(EndReason.SHUTDOWN))
        await live.close(grace_s=DISCONNECT_GRACE_S)

    def _options(self) -> dict[str, object]:
        settings = self._settings
        return {
            "server_factory": lambda: ClientConnection(self._shared),
            "server_host_keys": list(self.host_keys.keys),
            "send_server_host_keys": True,
            "server_version": settings.ssh.version,
            "encryption_algs": settings.ssh.ciphers,
            "kex_algs": supported_key_exchanges(_KEY_EXCHANGES),
            "signature_algs": _SIGNATURES,
            "mac_algs": settings.ssh.macs,
            "compression_algs": _COMPRESSION,
            "login_timeout": 0,  # replaced by the three time limits of ClientConnection
            "keepalive_interval": settings.sections.connection.keepalive_interval_s,
            "keepalive_count_max": settings.sections.connection.keepalive_count_max,
            "password_auth": False,
            "kbdint_auth": True,
            "host_based_auth": False,
            "gss_host": None,
            "allow_pty": True,
            "line_editor": False,
            "agent_forwarding": True,
            "encoding": None,
            "window": settings.sections.relay.window_bytes,
            "max_pktsize": settings.sections.relay.packet_bytes,
        }
