"""The listening socket, and the options that every connection shares."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from proxy.access.authentication import Logins
from proxy.access.gateway import Gateway
from proxy.aio import TaskOwner
from proxy.errors import SettingsError
from proxy.identity.revoked_keys import Revocations
from proxy.protection.guard import Guard
from proxy.sessions.records import End, EndReason
from proxy.sessions.tracker import Tracker
from proxy.settings import ListenSettings, split_address
from proxy.settings.protection import ProxyProtocolSettings
from proxy.ssh.accept import Doorkeeper, Doorstep
from proxy.ssh.asyncssh_ext.certificates import read_authorities
from proxy.ssh.asyncssh_ext.connection import GOODBYE_S, Arrival, ServerConnection
from proxy.ssh.asyncssh_ext.kex import supported_key_exchanges
from proxy.ssh.asyncssh_ext.slices import Slices
from proxy.ssh.connection import ClientConnection, ConnectionSections, Shared
from proxy.ssh.handshake_scheduler import Turns
from proxy.ssh.hostkeys import HostKeys

# The post-quantum ones first. NTRU Prime, which OpenSSH 8.5 to 9.8 would take, needs a library that asyncssh
# looks for: liboqs.
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
)  # No group exchange: asyncssh gives a client that asks for 1,024 bits a group of 1,024 bits.
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
_COMPRESSION = ("none", "zlib@openssh.com")  # the one that starts after login: strangers inflate nothing


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """The sections of the settings that the listener needs."""

    listen: str
    """`host:port`."""
    ssh: ListenSettings
    proxy_protocol: ProxyProtocolSettings
    strangers_share: float
    """Share of the processor for handshakes of clients that are not logged in, 0 to 1."""
    trusted_user_ca_keys: Sequence[Path]
    sections: ConnectionSections
    """For each connection."""


class Listener:
    """Accepts SSH connections until closed."""

    def __init__(
        self,
        settings: ListenerSettings,
        gateway: Gateway,
        logins: Logins,
        tracker: Tracker,
        guard: Guard,
        host_keys: HostKeys,
        revocations: Revocations,
    ) -> None:
        self._settings = settings
        self._host_keys = host_keys
        self._shared = Shared(
            settings.sections,
            gateway,
            logins,
            tracker,
            read_authorities(settings.trusted_user_ca_keys),
            revocations,
            set(),
            guard,
        )
        self._turns = Turns(settings.strangers_share)
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
        """Give those that are open at the moment, logged in or not yet."""
        return self._shared.connections

    async def open(self) -> None:
        """Bind and accept. Raises: SettingsError naming the address that cannot be bound."""
        settings = self._settings
        try:
            options = await asyncssh.SSHServerConnectionOptions.construct(**self._options())
        except ValueError as exc:
            raise SettingsError(f"ssh: {exc}") from exc
        # One key object an algorithm: asyncssh sets the algorithm of a signature on the object, and two
        # clients at once, one for each algorithm of the RSA key, would share it.
        options.server_host_keys = OrderedDict(
            (name.encode(), copy(options.server_host_keys[name.encode()]))
            for name in _HOST_KEY_SIGNATURES
            if name.encode() in options.server_host_keys
        )
        for keypair in options.all_server_host_keys.values():
            if keypair.algorithm == b"ssh-rsa":
                keypair.set_sig_algorithm(b"rsa-sha2-512")  # of the proof that we have it
        loop = asyncio.get_running_loop()
        host, port = split_address(settings.listen)

        def speak(arrival: Arrival) -> ServerConnection:
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
        keeper = Doorkeeper(self._shared.guard, self._turns, header, header.networks, speak)
        try:
            self._server = await loop.create_server(
                lambda: Doorstep(keeper),
                None if host in ("", "::") else host,  # asyncio would take `::` for IPv6 only
                port,
                backlog=settings.ssh.backlog,
                flags=socket.AI_PASSIVE,
            )
        except OSError as exc:
            raise SettingsError(f"listen: cannot listen on {settings.listen}: {exc.strerror or exc}") from exc

    async def close(self, grace_s: float) -> None:
        """Accept no more; give live connections `grace_s` seconds, then end them with a sentence."""
        if self._server is not None:
            self._server.close()
        self._turns.close()
        live = TaskOwner("closing")
        for connection in tuple(self._shared.connections):
            live.spawn(connection.conn.wait_closed(), name="wait")
        await live.wait(grace_s)
        leaving = tuple(self._shared.connections)
        for connection in leaving:
            live.spawn(connection.conn.gone.wait(), name="goodbye")
            connection.end("the proxy is shutting down", End(EndReason.SHUTDOWN))
        await live.close(grace_s=GOODBYE_S)

    def _options(self) -> dict[str, object]:
        settings = self._settings
        return {
            "server_factory": lambda: ClientConnection(self._shared),
            "server_host_keys": list(self._host_keys.keys),
            "send_server_host_keys": True,
            "server_version": settings.ssh.version,
            "encryption_algs": settings.ssh.ciphers,
            "kex_algs": supported_key_exchanges(_KEY_EXCHANGES),
            "signature_algs": _SIGNATURES,
            "mac_algs": settings.ssh.macs,
            "compression_algs": _COMPRESSION,
            "login_timeout": 0,  # three budgets of our own replace it
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
