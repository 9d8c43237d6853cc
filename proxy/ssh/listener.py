"""The listening socket, and the options that every connection shares."""

import asyncio
import socket

import asyncssh

from proxy.aio import TaskOwner
from proxy.errors import SettingsError
from proxy.gateway import Gateway
from proxy.logins import Logins
from proxy.settings import Settings, split_address
from proxy.ssh.certificates import read_authorities
from proxy.ssh.connection import ClientConnection, Shared
from proxy.ssh.hostkeys import HostKeys
from proxy.ssh.transport import TunedConnection

_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_COMPRESSION = ("none", "zlib@openssh.com")  # the one that starts after login: strangers inflate nothing


class Listener:
    """Accepts SSH connections until closed."""

    def __init__(self, settings: Settings, gateway: Gateway, logins: Logins, host_keys: HostKeys) -> None:
        self._settings = settings
        self._host_keys = host_keys
        self._shared = Shared(
            settings, gateway, logins, read_authorities(settings.identity.trusted_user_ca_keys), set()
        )
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
        loop = asyncio.get_running_loop()
        host, port = split_address(settings.listen)

        def accept() -> TunedConnection:
            return TunedConnection(loop, options, settings.relay, prefer_aes_gcm=settings.ssh.prefer_aes_gcm)

        try:
            self._server = await loop.create_server(
                accept, host or None, port, backlog=settings.ssh.backlog, flags=socket.AI_PASSIVE
            )
        except OSError as exc:
            raise SettingsError(f"listen: cannot listen on {settings.listen}: {exc.strerror or exc}") from exc

    async def close(self, grace_s: float) -> None:
        """Accept no more; give live connections `grace_s` seconds, then end them with a sentence."""
        if self._server is not None:
            self._server.close()
        live = TaskOwner("closing")
        for connection in tuple(self._shared.connections):
            live.spawn(connection.conn.wait_closed(), name="wait")
        await live.wait(grace_s)
        for connection in tuple(self._shared.connections):
            connection.disconnect("the proxy is shutting down")
        await live.close(grace_s=2.0)

    def _options(self) -> dict[str, object]:
        settings = self._settings
        return {
            "server_factory": lambda: ClientConnection(self._shared),
            "server_host_keys": list(self._host_keys.keys),
            "send_server_host_keys": True,
            "server_version": settings.ssh.version,
            "encryption_algs": settings.ssh.ciphers,
            "mac_algs": _MACS,
            "compression_algs": _COMPRESSION,
            "login_timeout": 0,  # three budgets of our own replace it
            "keepalive_interval": settings.connection.keepalive_interval_s,
            "keepalive_count_max": settings.connection.keepalive_count_max,
            "password_auth": False,
            "kbdint_auth": True,
            "host_based_auth": False,
            "gss_host": None,
            "allow_pty": True,
            "line_editor": False,
            "agent_forwarding": True,
            "encoding": None,
            "window": settings.relay.window_bytes,
            "max_pktsize": settings.relay.packet_bytes,
        }
