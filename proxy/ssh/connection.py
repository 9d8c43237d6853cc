"""One SSH connection: asyncssh's callbacks, turned into questions to the gateway. Decides nothing."""

import asyncio
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import cast

import asyncssh
import structlog

from proxy import userstring
from proxy.aio import TaskOwner
from proxy.errors import StoreError, UserStringInvalid
from proxy.gateway import Gateway
from proxy.model import ConnId, LoginAttempt, Peer, Principal, TcpTarget, UnixTarget
from proxy.settings import Settings
from proxy.ssh import prompts
from proxy.ssh.channel import SessionChannel
from proxy.ssh.forwarding import Dialled, RemoteListener, dial
from proxy.ssh.session import ProgramSession
from proxy.ssh.sshagent import SshAgent
from proxy.ssh.transport import LoginGuard, TunedConnection

_log = structlog.get_logger("ssh")


@dataclass(frozen=True, slots=True)
class Shared:
    """What every connection of this process has in common."""

    settings: Settings
    gateway: Gateway
    connections: "set[ClientConnection]"


class ClientConnection(LoginGuard):
    """One client, from accept to close."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.conn_id = ConnId(secrets.token_hex(5))
        self.log = _log.bind(conn=self.conn_id)
        self.tasks = TaskOwner(self.conn_id)
        self.principal: Principal | None = None
        self.ssh_agent = SshAgent(self)
        self._conn: TunedConnection | None = None
        self._attempt: LoginAttempt | None = None
        self._refused_keys = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._channels = 0
        self._programs = 0
        self._listeners = 0

    @property
    def conn(self) -> TunedConnection:
        if self._conn is None:
            raise RuntimeError("the connection is not made yet")
        return self._conn

    # ------------------------------------------------------------------------ coming and going

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = cast(TunedConnection, conn)
        self.shared.connections.add(self)
        self._limit(self.shared.settings.login.key_exchange_timeout_s, "key exchange")

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.connections.discard(self)
        self._cancel_deadline()
        self.tasks.cancel()
        if self.principal is not None:
            self.log.info("disconnected", user=self.principal.user.name, reason=str(exc) if exc else "")
        else:
            self.log.info("gone before login", reason=str(exc) if exc else "")

    def disconnect(self, reason: str) -> None:
        """End the connection with a sentence for the person."""
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    def _limit(self, timeout_s: float, what: str) -> None:
        self._cancel_deadline()
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self._too_late, what)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self, what: str) -> None:
        self.log.info("login took too long", stage=what)
        # An orderly goodbye first; a peer that stalls in key exchange cannot read one.
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, f"{what} took too long")
        self.conn.abort()

    # ----------------------------------------------------------------------------------- login

    def begin_auth(self, username: str) -> bool:
        """Read the user string; known and unknown users go on alike."""
        peer_host, peer_port = self.conn.get_extra_info("peername")[:2]
        server_host, server_port = self.conn.get_extra_info("sockname")[:2]
        peer = Peer(self.conn_id, peer_host, peer_port, server_host, server_port)
        try:
            self._attempt = LoginAttempt(peer, userstring.parse(username))
        except UserStringInvalid as exc:
            self.log.info("user string refused", client=peer_host, reason=exc.reason, position=exc.position)
            raise asyncssh.IllegalUserName(prompts.user_string_invalid(exc)) from exc
        self._limit(self.shared.settings.login.timeout_s, "login")
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Tell whether a key would do; asyncssh verifies the signature after this."""
        del username  # parsed in begin_auth, which asyncssh calls again when the name changes
        if self._attempt is None:
            return False
        try:
            known = await self.shared.gateway.recognises(self._attempt, key.public_data)
        except StoreError as exc:
            self.log.exception("identity store failed")
            raise asyncssh.DisconnectError(
                asyncssh.DISC_BY_APPLICATION, f"login is not possible right now (reference {self.conn_id})"
            ) from exc
        if not known:
            self._count_refusal()
        return known

    def _count_refusal(self) -> None:
        self._refused_keys += 1
        if self._refused_keys > self.shared.settings.login.max_attempts:
            raise asyncssh.DisconnectError(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures"
            )

    async def may_enter(self, key_blob: bytes) -> bool:
        """Bind the identity to the key that was proved, and to nothing else."""
        assert self._attempt is not None
        principal = await self.shared.gateway.admit(self._attempt, key_blob)
        if principal is None:
            self._count_refusal()
            return False
        self._cancel_deadline()
        self.principal = principal
        self.log = self.log.bind(user=principal.user.name)
        self.log.info(
            "logged in",
            client=principal.attempt.peer.host,
            version=self.conn.get_extra_info("client_version"),
            key=principal.fingerprint,
        )
        return True

    # -------------------------------------------------------------------------------- channels

    def _principal_for_channel(self) -> Principal:
        if self.principal is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not logged in")
        if self._channels >= self.shared.settings.connection.max_channels:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"more than {self._channels} channels on one connection"
            )
        return self.principal

    def channel_opened(self) -> None:
        self._channels += 1

    def channel_closed(self) -> None:
        self._channels -= 1

    def next_program_id(self) -> str:
        """Name a program for the logs of both ends."""
        self._programs += 1
        return f"{self.conn_id}-{self._programs}"

    def session_requested(self) -> tuple[SessionChannel, ProgramSession]:
        principal = self._principal_for_channel()
        session = ProgramSession(self, principal)
        return SessionChannel.of(self.conn, session, self.shared.settings.relay), session

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[Dialled]:
        del orig_host, orig_port
        return dial(self, self._principal_for_channel(), TcpTarget(dest_host, dest_port))

    def unix_connection_requested(self, dest_path: str) -> Awaitable[Dialled]:
        return dial(self, self._principal_for_channel(), UnixTarget(dest_path))

    async def server_requested(self, listen_host: str, listen_port: int) -> RemoteListener | bool:
        return await self._listen(TcpTarget(listen_host, listen_port))

    async def unix_server_requested(self, listen_path: str) -> RemoteListener | bool:
        return await self._listen(UnixTarget(listen_path))

    async def _listen(self, bind: TcpTarget | UnixTarget) -> RemoteListener | bool:
        if self.principal is None or self._listeners >= self.shared.settings.connection.max_listeners:
            return False
        self._listeners += 1
        listener = await RemoteListener.open(self, self.principal, bind, self._listener_closed)
        return listener or False

    def _listener_closed(self) -> None:
        self._listeners -= 1
