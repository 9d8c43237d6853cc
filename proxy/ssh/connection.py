"""The asyncssh callbacks of one SSH connection. All decisions are asked from `access`."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

import asyncssh
import structlog

from proxy import userstring
from proxy.access.authentication import Authenticator, Standing
from proxy.access.gateway import Gateway
from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.login import UserStringInvalid
from proxy.errors.stores import StoreError
from proxy.events.schema import AuthFailed
from proxy.identity.revoked_keys import Revocations
from proxy.model import ConnId, LoginAttempt, Peer, Principal, TcpTarget, UnixTarget, User, Visit
from proxy.protection import guard
from proxy.protection.guard import Guard
from proxy.sessions.limits import ConnectionLimits
from proxy.sessions.records import End, EndReason
from proxy.sessions.tracker import Tracker
from proxy.settings.connection import ConnectionSettings
from proxy.settings.login import LoginSettings
from proxy.settings.relay import RelaySettings
from proxy.settings.sessions import SessionSettings
from proxy.ssh import prompts
from proxy.ssh.asyncssh_ext.channels import SessionChannel
from proxy.ssh.asyncssh_ext.connection import ServerConnection
from proxy.ssh.asyncssh_ext.hooks import AuthReply, Certificate, LoginGuard
from proxy.ssh.asyncssh_ext.variables import AcceptedNames
from proxy.ssh.attempts import Attempts
from proxy.ssh.forwarding import ForwardSession, RemoteListener, dial
from proxy.ssh.login_flow import KEYBOARD_INTERACTIVE, PUBLICKEY, LoggedIn, LoginFlow
from proxy.ssh.openings import Openings
from proxy.ssh.served import Served
from proxy.ssh.session import ProgramSession
from proxy.ssh.sshagent import SshAgent

_log = structlog.get_logger("ssh")

Challenge = tuple[str, str, str, tuple[()]]
"""Title, instruction, language and no prompts (RFC 4256 §3.2)."""

_KEYS_OF_BANNED = 6
"""Number of keys that may fail on one connection from a banned address. This is the default of sshd."""
_TARGET_CHARS = 1_024
"""Longest host name or socket path. Real ones have at most 253 and 107; longer ones would fill the logs."""
_APPROVAL_SLACK_S = 5.0  # a backstop: the onboarding flow ends by itself at its expiry


@dataclass(frozen=True, slots=True)
class ConnectionSections:
    """The sections of the settings that a connection needs."""

    proxy_id: str
    login: LoginSettings
    connection: ConnectionSettings
    relay: RelaySettings
    sessions: SessionSettings
    recheck_s: float
    """Seconds until a failed comparison with the directory is repeated."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts that all connections of this process share."""

    settings: ConnectionSections
    gateway: Gateway
    authenticator: Authenticator
    tracker: Tracker
    authorities: frozenset[bytes]
    """Public keys of the trusted authorities of user certificates."""
    revocations: Revocations
    connections: "set[ClientConnection]"
    guard: Guard


class ClientConnection(LoginGuard):
    """One client, from accept to close."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.conn_id = ConnId(secrets.token_hex(8))
        self.log = _log.bind(conn=self.conn_id)
        self.tasks = TaskOwner(self.conn_id)
        self._served: Served | None = None
        self._ssh_agent: SshAgent | None = None
        self._conn: ServerConnection | None = None
        self._login: LoginFlow | None = None
        self._attempts = Attempts(0, 0)
        self._is_shown = False
        self._is_late = False
        self._deadline: asyncio.TimerHandle | None = None
        self._time_limits: ConnectionLimits | None = None
        self._judged: Visit | None = None
        self._ordered: End | None = None
        self._listeners = 0

    @property
    def conn(self) -> ServerConnection:
        """Return the transport. Raises: RuntimeError before `connection_made`."""
        if self._conn is None:
            raise RuntimeError("the connection is not made yet")
        return self._conn

    @property
    def principal(self) -> Principal | None:
        """Return the logged-in user; None before the login."""
        return None if self._served is None else self._served.visit.principal

    @property
    def client_version(self) -> str:
        """Return the client's version text after `SSH-2.0-`."""
        return str(self.conn.get_extra_info("client_version", "")).removeprefix("SSH-2.0-")

    # ------------------------------------------------------------------------ coming and going

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Set the budgets of requests, and begin the time limit of the key exchange."""
        self._conn = cast(ServerConnection, conn)
        self.shared.connections.add(self)
        login = self.shared.settings.login
        is_banned = self.conn.arrival.visitor.ban is not None
        max_keys = min(login.max_attempts, _KEYS_OF_BANNED) if is_banned else login.max_attempts
        self._attempts = Attempts(login.max_failures, max_keys)
        self._limit(self.shared.settings.login.key_exchange_timeout_s, "key exchange")

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the record of the connection, and count a failed login against the address."""
        self.shared.connections.discard(self)
        self._cancel_deadline()
        if self._time_limits is not None:
            self._time_limits.stop()
        if self._served is not None:
            self._served.live.ended(self._ordered or _end_of(exc))
        self.tasks.cancel()
        if self._served is not None:
            self.log.info("disconnected", user=self._served.visit.actor.name, reason=str(exc) if exc else "")
            return
        self.log.info("gone before login", reason=str(exc) if exc else "")
        if self._login is not None:
            self._count_failure(self._login.failed())
        elif self._is_late:
            self._count_failure(("too_slow",))

    def warn(self, sentence: str) -> None:
        """Show the sentence to the user in every program of the connection that can show one."""
        if self._served is not None:
            for program in tuple(self._served.live.programs.values()):
                program.controls.warn(sentence)

    def end(self, sentence: str, end: End) -> None:
        """End the connection and show `sentence` to the user; `end` goes into the record."""
        self._ordered = self._ordered or end
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, sentence)

    def _limit(self, timeout_s: float, what: str) -> None:
        self._cancel_deadline()
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self._too_late, what)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self, what: str) -> None:
        self._is_late = True
        self.log.info("login took too long", stage=what)
        # A client that stalls in the key exchange cannot read the disconnect message, so abort besides.
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, f"{what} took too long")
        self.conn.abort()

    # ----------------------------------------------------------------------------------- login

    async def begin_auth(self, username: str) -> bool:
        """Parse the user string and begin the login. Known and unknown users get the same answers.

        A connection has one user name, as with OpenSSH: each name costs a look-up, an event and new budgets.
        """
        if self._login is not None:
            self._login.fault("name_changed")
            raise asyncssh.ProtocolError("the user name cannot be changed; connect again")
        peer_host, peer_port = self.conn.get_extra_info("peername")[:2]
        server_host, server_port = self.conn.get_extra_info("sockname")[:2]
        peer = Peer(self.conn_id, peer_host, peer_port, server_host, server_port)
        try:
            attempt = LoginAttempt(peer, userstring.parse(username))
        except UserStringInvalid as exc:
            self._user_string_refused(peer, exc)
            raise asyncssh.IllegalUserName(prompts.user_string_invalid(exc)) from exc
        async with self._directory_query():
            standing = await self.shared.authenticator.standing(attempt)
        if self.conn.arrival.visitor.ban is not None and standing is Standing.NEW:
            standing = Standing.UNKNOWN  # no new user comes from a banned address
        self._login = LoginFlow(
            self.shared.authenticator,
            attempt,
            standing,
            client_version=self.client_version,
            authorities=self.shared.authorities,
            revocations=self.shared.revocations,
            check=self._check,
        )
        self._limit(self.shared.settings.login.timeout_s, "login")
        return True

    def public_key_auth_supported(self) -> bool:
        """Return whether a public key can bring the login further now."""
        return self._login is not None and self._login.offers(PUBLICKEY)

    def kbdint_auth_supported(self) -> bool:
        """Return whether keyboard-interactive can bring the login further now."""
        return self._login is not None and self._login.offers(KEYBOARD_INTERACTIVE)

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Return whether the client may sign with this key. asyncssh verifies the signature afterwards."""
        del username  # parsed in begin_auth
        if self._login is None:
            return False
        async with self._directory_query():
            refusal = await self._login.offered(key.public_data)
        if refusal:
            self.conn.send_auth_banner(prompts.notice(refusal))
        return refusal is None

    async def certificate_offered(self, certificate: Certificate) -> bool:
        """Return whether the client may sign with this certificate.

        A banner gives the owner the reason if not.
        """
        assert self._login is not None
        refusal = await self._login.certificate_offered(certificate)
        if refusal:
            self.conn.send_auth_banner(prompts.notice(refusal))
        return refusal is None

    def asked(self, what: str, *, proves: bool = False) -> None:
        """Count a request of the client, whether it fails or not."""
        self._attempts.asked(what, proves=proves)
        self._end_if_exhausted()

    def method_failed(self, method: str) -> None:
        """Count a failed method. A new user who asks for approval too early is shown the first step."""
        if self._login is not None and self._login.failed_method(method):
            self.conn.send_auth_banner(prompts.key_first(self._login.attempt.user_string.user))
        self._attempts.failed(method)
        self._end_if_exhausted()

    def method_led_on(self) -> None:
        """Count a partial success, which costs nothing."""
        self._attempts.led_on()

    def _end_if_exhausted(self) -> None:
        if self._attempts.is_over:
            raise asyncssh.DisconnectError(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures"
            )

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Challenge:
        """Show the address for the approval, as a challenge without prompts."""
        del username, lang, submethods
        assert self._login is not None
        try:
            shown = await self._login.begin_approval()
        except FairleadError as exc:
            raise self._refusal(exc) from exc
        lifetime_s = (shown.expires_at - datetime.now(UTC)).total_seconds()
        self._limit(lifetime_s + _APPROVAL_SLACK_S, "approval")
        if drawing := prompts.qr_code(shown):
            self.conn.send_auth_banner(drawing)
        self._is_shown = True
        title, text = prompts.approval(shown, self._login.attempt.user_string.user)
        return title, text, "", ()

    async def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        """Wait for the approval. The empty answer of the client only says that it has shown the text."""
        del username, responses
        assert self._login is not None
        if not self._is_shown:
            raise asyncssh.ProtocolError("an answer before the question")
        self._is_shown = False  # one answer for each question (RFC 4256 §3.4)
        try:
            other_key = await self._login.approval()
        except FairleadError as exc:
            raise self._refusal(exc) from exc
        self._limit(self.shared.settings.login.timeout_s, "login")
        if other_key:
            self.conn.send_auth_banner(prompts.notice(f"{other_key}; trying your other keys"))
        return True

    async def may_enter(self, key_blob: bytes) -> AuthReply:
        """Continue the login with the key that was proved last, and serve the user once it is complete."""
        assert self._login is not None
        was_new = self._login.offers(PUBLICKEY)
        try:
            await self._login.ask_provider(key_blob)
            async with self._directory_query():
                reply = await self._login.proved(key_blob)
        except FairleadError as exc:
            raise self._refusal(exc) from exc
        if reply is AuthReply.MORE and was_new and not self._login.offers(PUBLICKEY):
            name, provider = self._login.attempt.user_string.user, self._login.renewal_provider
            sentence = prompts.approve_again(provider) if provider else prompts.new_here(name)
            self.conn.send_auth_banner(sentence)
        elif reply is AuthReply.ENTER:
            assert isinstance(self._login.state, LoggedIn)
            self._entered(self._login.attempt, self._login.state.principal)
        return reply

    def _entered(self, attempt: LoginAttempt, principal: Principal) -> None:
        self._cancel_deadline()
        visitor = self.conn.arrival.visitor
        self.shared.guard.succeeded(visitor)
        if visitor.ban is not None:
            self.conn.send_auth_banner(
                prompts.notice(f"{guard.ban_notice(visitor.ban)}; your key let you in")
            )
        self.log = self.log.bind(user=principal.user.name)
        self.log.info(
            "logged in",
            client=principal.client.host,
            version=self.client_version,
            key=principal.fingerprint,
            certificate=principal.certificate,
        )
        served = self._serve(Visit(principal, principal.user, attempt.user_string))
        self._served = served
        self._ssh_agent = SshAgent(served)
        self._judged = served.visit
        self._time_limits = ConnectionLimits(served.live)
        self.tasks.spawn(self._place(served, self._time_limits), name="place")

    def _serve(self, visit: Visit) -> Served:
        settings = self.shared.settings
        return Served(
            self.conn_id,
            settings.proxy_id,
            self.conn,
            self.tasks,
            self.log,
            visit,
            self.shared.tracker.open(visit, self.client_version, self),
            self.shared.gateway,
            settings.connection,
            settings.relay,
            Openings(settings.connection),
            AcceptedNames(settings.connection.env_wait_s),
        )

    async def _place(self, served: Served, time_limits: ConnectionLimits) -> None:
        """Look up workspace and blueprint for the record and for time limits. No login waits for this."""
        workspace = blueprint = ""
        accept_env: tuple[str, ...] | None = None
        try:
            with suppress(FairleadError):  # a user who opens a channel sees the error there
                workspace, blueprint, accept_env = await served.gateway.place(served.visit)
        finally:
            served.accepted_names.settle(accept_env)
        served.live.placed(workspace, blueprint)
        self._apply_time_limits(served.visit.actor, time_limits, blueprint)

    def _apply_time_limits(self, user: User, time_limits: ConnectionLimits, blueprint: str) -> None:
        limits = self.shared.settings.sessions
        time_limits.apply(limits.limit_of(user.name, user.restricting_groups, blueprint))

    def regrouped(self, user: User) -> None:
        """Replace the groups of the user, and end the connection if only the old groups allowed it."""
        assert self._served is not None
        visit = self._served.visit
        is_judging = visit is not self._judged
        self._served.visit = replace(visit, principal=replace(visit.principal, user=user), owner=user)
        self.log.info("groups changed", groups=user.groups)
        if not is_judging:
            self.tasks.spawn(self._judge(self._served), name="groups")

    async def _judge(self, served: Served) -> None:
        """Repeat the check that the connection may remain until it is decided for the present groups."""
        while (now := served.visit) is not self._judged:
            assert self._judged is not None
            try:
                decision = await served.gateway.may_remain(self._judged, now)
            except FairleadError as exc:
                self.log.warning("groups not judged yet", code=exc.code, reason=str(exc))
                await asyncio.sleep(self.shared.settings.recheck_s)
                continue
            if not decision:
                self.log.info("connection ended", reason=decision.reason)
                self.end(decision.reason, End(EndReason.REVOKED, decision.reason))
                return
            self._judged = now

    def _refusal(self, exc: FairleadError) -> asyncssh.DisconnectError:
        """Return the error that ends the connection with the reason.

        Other methods would not help the client.
        """
        self.log.info("login refused", code=exc.code, reason=str(exc))
        sentence = prompts.refusal(exc, self.conn_id)
        return asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, sentence)

    @asynccontextmanager
    async def _directory_query(self) -> AsyncIterator[None]:
        """Limit the queries of unauthenticated clients to the directory.

        A failing store ends the connection.
        """
        slot = self.conn.slot
        try:
            async with slot.scheduler.query_slots if slot is not None else nullcontext():
                yield
        except StoreError as exc:
            self.log.exception("identity store failed")
            raise self._refusal(exc) from exc

    def _user_string_refused(self, peer: Peer, exc: UserStringInvalid) -> None:
        self.log.info("user string refused", client=peer.host, reason=exc.reason, position=exc.position)
        self._count_failure((exc.code,))
        self.shared.authenticator.failed(
            AuthFailed(
                user=exc.text,
                client_address=peer.host,
                client_port=peer.port,
                client_version=self.client_version,
                connection_id=self.conn_id,
                reasons=(exc.code,),
            )
        )

    def _check(self, principal: Principal) -> None:
        user = principal.user
        others = (other.principal for other in self.shared.connections)
        sessions = sum(other is not None and other.user.id == user.id for other in others)
        self.shared.guard.check(self.conn.arrival.visitor, user.name, sessions)

    def _count_failure(self, reasons: Sequence[str]) -> None:
        """Count a failed login against the address: one for a connection, however many keys were offered."""
        self.shared.guard.failed(self.conn.arrival.visitor, reasons)

    # -------------------------------------------------------------------------------- channels

    def _for_channel(self, target: str = "session") -> Served:
        """Return the value that a channel needs.

        Raises: asyncssh.ChannelOpenError when it may not be opened.
        """
        if self._served is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not logged in")
        if len(target) > _TARGET_CHARS:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_CONNECT_FAILED, f"a target has at most {_TARGET_CHARS} characters"
            )
        if not self._served.has_room:
            self._served.log_no_room(target)
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE,
                f"more than {self.conn.channels_held} channels on one connection",
            )
        return self._served

    def session_requested(self) -> tuple[SessionChannel, ProgramSession]:
        """Open a session channel. Raises: DisconnectError after `no-more-sessions`, as sshd does."""
        if self.conn.no_more_sessions:
            self.log.warning("session after the client gave up sessions")
            raise asyncssh.DisconnectError(
                asyncssh.DISC_PROTOCOL_ERROR, "a session after no-more-sessions@openssh.com"
            )
        served = self._for_channel()
        assert self._ssh_agent is not None
        session = ProgramSession(served, self._ssh_agent)
        return SessionChannel.of(self.conn, session, served.relay), session

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[ForwardSession]:
        """Open a `direct-tcpip` channel to a host and port, seen from the workspace."""
        del orig_host, orig_port
        return dial(self._for_channel(dest_host), TcpTarget(dest_host, dest_port))

    def unix_connection_requested(self, dest_path: str) -> Awaitable[ForwardSession]:
        """Open a `direct-streamlocal` channel to a Unix socket in the workspace."""
        return dial(self._for_channel(dest_path), UnixTarget(dest_path))

    async def server_requested(self, listen_host: str, listen_port: int) -> RemoteListener | bool:
        """Listen on a TCP port in the workspace for the client (`-R`)."""
        bind = TcpTarget(listen_host.lower(), listen_port)
        return len(listen_host) <= _TARGET_CHARS and await self._listen(bind, listen_host)

    async def unix_server_requested(self, listen_path: str) -> RemoteListener | bool:
        """Listen on a Unix socket in the workspace for the client (`-R`)."""
        bind = UnixTarget(listen_path)
        return len(listen_path) <= _TARGET_CHARS and await self._listen(bind, listen_path)

    async def _listen(self, bind: TcpTarget | UnixTarget, spelling: str) -> RemoteListener | bool:
        if self._served is None or self._listeners >= self._served.limits.max_listeners:
            return False
        self._listeners += 1
        listener = await RemoteListener.open(self._served, bind, spelling, self._listener_closed)
        return listener or False

    def _listener_closed(self) -> None:
        self._listeners -= 1


def _end_of(exc: Exception | None) -> End:
    """Return the record of an end that the proxy did not order."""
    if exc is None:
        return End(EndReason.LEFT)
    if isinstance(exc, asyncssh.ConnectionLost | OSError):
        return End(EndReason.LOST, str(exc))
    return End(EndReason.FAILED if isinstance(exc, asyncssh.Error) else EndReason.BUG, str(exc))
