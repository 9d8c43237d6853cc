"""One SSH connection: asyncssh's callbacks, turned into questions to the gateway. Decides nothing."""

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
from proxy.access.authentication import Logins, Standing
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
from proxy.sessions.limits import Leash
from proxy.sessions.records import End, EndReason
from proxy.sessions.tracker import Tracker
from proxy.settings import ConnectionSettings, LoginSettings, RelaySettings
from proxy.settings.sessions import SessionSettings
from proxy.ssh import prompts
from proxy.ssh.asyncssh_ext.channels import SessionChannel
from proxy.ssh.asyncssh_ext.connection import ServerConnection
from proxy.ssh.asyncssh_ext.hooks import Certificate, LoginGuard, Verdict
from proxy.ssh.asyncssh_ext.variables import AcceptedNames
from proxy.ssh.attempts import Attempts
from proxy.ssh.forwarding import ForwardSession, RemoteListener, dial
from proxy.ssh.login_flow import KEYBOARD_INTERACTIVE, PUBLICKEY, Login
from proxy.ssh.openings import Openings
from proxy.ssh.served import Served
from proxy.ssh.session import ProgramSession
from proxy.ssh.sshagent import SshAgent

_log = structlog.get_logger("ssh")

Challenge = tuple[str, str, str, tuple[()]]
"""Title, instruction, language and no prompts (RFC 4256 §3.2)."""

_KEYS_OF_BANNED = 6
"""Keys that may be refused on one connection from a banned address, as sshd has it for everybody."""
_TARGET_CHARS = 1_024
"""Of a host name or a socket path: 253 and 107 are the most that exist, and the rest would fill logs."""
_APPROVAL_SLACK_S = 5.0  # the flow ends by itself at its expiry; this only catches one that does not


@dataclass(frozen=True, slots=True)
class ConnectionSections:
    """The sections of the settings that a connection needs."""

    proxy_id: str
    login: LoginSettings
    connection: ConnectionSettings
    relay: RelaySettings
    sessions: SessionSettings
    recheck_s: float
    """Seconds between two comparisons of a connection with the directory, when the first came to nothing."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What every connection of this process has in common."""

    settings: ConnectionSections
    gateway: Gateway
    logins: Logins
    tracker: Tracker
    authorities: frozenset[bytes]
    """Public keys whose user certificates are trusted."""
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
        self._login: Login | None = None
        self._attempts = Attempts(0, 0)
        self._is_shown = False
        self._is_late = False
        self._deadline: asyncio.TimerHandle | None = None
        self._leash: Leash | None = None
        self._judged: Visit | None = None
        self._ordered: End | None = None
        self._listeners = 0

    @property
    def conn(self) -> ServerConnection:
        if self._conn is None:
            raise RuntimeError("the connection is not made yet")
        return self._conn

    @property
    def principal(self) -> Principal | None:
        """The user who is logged in; None before."""
        return None if self._served is None else self._served.visit.principal

    @property
    def client_version(self) -> str:
        """What the client said after `SSH-2.0-`."""
        return str(self.conn.get_extra_info("client_version", "")).removeprefix("SSH-2.0-")

    # ------------------------------------------------------------------------ coming and going

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = cast(ServerConnection, conn)
        self.shared.connections.add(self)
        login = self.shared.settings.login
        is_banned = self.conn.arrival.visitor.ban is not None
        max_keys = min(login.max_attempts, _KEYS_OF_BANNED) if is_banned else login.max_attempts
        self._attempts = Attempts(login.max_failures, max_keys)
        self._limit(self.shared.settings.login.key_exchange_timeout_s, "key exchange")

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.connections.discard(self)
        self._cancel_deadline()
        if self._leash is not None:
            self._leash.release()
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
        """Tell the person wherever a program of theirs has a place for it."""
        if self._served is not None:
            for program in tuple(self._served.live.programs.values()):
                program.controls.warn(sentence)

    def end(self, sentence: str, end: End) -> None:
        """End the connection with a sentence for the person; `end` is for the record."""
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
        # An orderly goodbye first; a peer that stalls in key exchange cannot read one.
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, f"{what} took too long")
        self.conn.abort()

    # ----------------------------------------------------------------------------------- login

    async def begin_auth(self, username: str) -> bool:
        """Read the user string; known and unknown users go on alike.

        One name a connection, as with OpenSSH: each would cost a look-up, an event and a new budget.
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
        async with self._questions():
            standing = await self.shared.logins.standing(attempt)
        if self.conn.arrival.visitor.ban is not None and standing is Standing.NEW:
            standing = Standing.UNKNOWN  # nobody new comes from a banned address
        self._login = Login(
            self.shared.logins,
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
        return self._login is not None and self._login.offers(PUBLICKEY)

    def kbdint_auth_supported(self) -> bool:
        return self._login is not None and self._login.offers(KEYBOARD_INTERACTIVE)

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Tell whether a key is worth a signature; asyncssh verifies that after this."""
        del username  # parsed in begin_auth
        if self._login is None:
            return False
        async with self._questions():
            refusal = await self._login.offered(key.public_data)
        if refusal:
            self.conn.send_auth_banner(prompts.notice(refusal))
        return refusal is None

    async def certificate_offered(self, certificate: Certificate) -> bool:
        """Tell whether a certificate is worth a signature; a person whose own is not, hears why."""
        assert self._login is not None
        refusal = await self._login.certificate_offered(certificate)
        if refusal:
            self.conn.send_auth_banner(prompts.notice(refusal))
        return refusal is None

    def asked(self, what: str, *, proves: bool = False) -> None:
        """Count what is asked again and again, whether or not it fails."""
        self._attempts.asked(what, proves=proves)
        self._end_if_exhausted()

    def method_failed(self, method: str) -> None:
        """Count it, and tell a new user who asks for the approval first what comes before it."""
        if self._login is not None and self._login.failed_method(method):
            self.conn.send_auth_banner(prompts.key_first(self._login.attempt.user_string.user))
        self._attempts.failed(method)
        self._end_if_exhausted()

    def method_led_on(self) -> None:
        self._attempts.led_on()

    def _end_if_exhausted(self) -> None:
        if self._attempts.is_over:
            raise asyncssh.DisconnectError(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures"
            )

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Challenge:
        """Show where to approve, with nothing to answer."""
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
        """Wait for the approval; the client's empty answer only says that the text was shown."""
        del username, responses
        assert self._login is not None
        if not self._is_shown:
            raise asyncssh.ProtocolError("an answer before the question")
        self._is_shown = False  # one answer a question (RFC 4256 §3.4)
        try:
            other_key = await self._login.approval()
        except FairleadError as exc:
            raise self._refusal(exc) from exc
        self._limit(self.shared.settings.login.timeout_s, "login")
        if other_key:
            self.conn.send_auth_banner(prompts.notice(f"{other_key}; trying your other keys"))
        return True

    async def may_enter(self, key_blob: bytes) -> Verdict:
        """Bind the identity to the key that was proved, and to nothing else."""
        assert self._login is not None
        was_new = self._login.offers(PUBLICKEY)
        try:
            await self._login.ask_provider(key_blob)
            async with self._questions():
                verdict = await self._login.proved(key_blob)
        except FairleadError as exc:
            raise self._refusal(exc) from exc
        if verdict is Verdict.MORE and was_new and not self._login.offers(PUBLICKEY):
            name, provider = self._login.attempt.user_string.user, self._login.renewal_provider
            sentence = prompts.approve_again(provider) if provider else prompts.new_here(name)
            self.conn.send_auth_banner(sentence)
        elif verdict is Verdict.ENTER:
            self._entered(self._login)
        return verdict

    def _entered(self, login: Login) -> None:
        assert login.principal is not None
        self._cancel_deadline()
        visitor = self.conn.arrival.visitor
        self.shared.guard.succeeded(visitor)
        if visitor.ban is not None:
            self.conn.send_auth_banner(
                prompts.notice(f"{guard.ban_notice(visitor.ban)}; your key let you in")
            )
        principal = login.principal
        self.log = self.log.bind(user=principal.user.name)
        self.log.info(
            "logged in",
            client=principal.client.host,
            version=self.client_version,
            key=principal.fingerprint,
            certificate=principal.certificate,
        )
        served = self._serve(Visit(principal, principal.user, login.attempt.user_string))
        self._served = served
        self._ssh_agent = SshAgent(served)
        self._judged = served.visit
        self._leash = Leash(served.live)
        self.tasks.spawn(self._place(served, self._leash), name="place")

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

    async def _place(self, served: Served, leash: Leash) -> None:
        """Find out where the connection leads, for the record and for limits; no login waits for it."""
        workspace = blueprint = ""
        accept_env: tuple[str, ...] | None = None
        try:
            with suppress(FairleadError):  # the user who opens a channel is told
                workspace, blueprint, accept_env = await served.gateway.place(served.visit)
        finally:
            served.accepted_names.settle(accept_env)
        served.live.placed(workspace, blueprint)
        self._hold(served.visit.actor, leash, blueprint)

    def _hold(self, user: User, leash: Leash, blueprint: str) -> None:
        limits = self.shared.settings.sessions
        leash.hold(limits.limit_of(user.name, user.restricting_groups, blueprint))

    def regrouped(self, user: User) -> None:
        """Go on with the groups that the user has now; what only the old ones gave ends."""
        assert self._served is not None
        visit = self._served.visit
        is_judging = visit is not self._judged
        self._served.visit = replace(visit, principal=replace(visit.principal, user=user), owner=user)
        self.log.info("groups changed", groups=user.groups)
        if not is_judging:
            self.tasks.spawn(self._judge(self._served), name="groups")

    async def _judge(self, served: Served) -> None:
        """Compare where the connection leads with where it may lead, until that is known."""
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
        """End the connection with the reason: trying other methods would not help."""
        self.log.info("login refused", code=exc.code, reason=str(exc))
        sentence = prompts.refusal(exc, self.conn_id)
        return asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, sentence)

    @asynccontextmanager
    async def _questions(self) -> AsyncIterator[None]:
        """Ask the directory: a stranger in turn with others. A store that fails ends the connection."""
        turn = self.conn.turn
        try:
            async with turn.turns.questions if turn is not None else nullcontext():
                yield
        except StoreError as exc:
            self.log.exception("identity store failed")
            raise self._refusal(exc) from exc

    def _user_string_refused(self, peer: Peer, exc: UserStringInvalid) -> None:
        self.log.info("user string refused", client=peer.host, reason=exc.reason, position=exc.position)
        self._count_failure((exc.code,))
        self.shared.logins.failed(
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
        """Let it count against the address, once a connection however many keys were offered."""
        self.shared.guard.failed(self.conn.arrival.visitor, reasons)

    # -------------------------------------------------------------------------------- channels

    def _for_channel(self, target: str = "session") -> Served:
        """Return what a channel needs. Raises: asyncssh.ChannelOpenError where none may be opened."""
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
        """Open a session. Raises: DisconnectError after `no-more-sessions`, at which `sshd` hangs up too."""
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
        del orig_host, orig_port
        return dial(self._for_channel(dest_host), TcpTarget(dest_host, dest_port))

    def unix_connection_requested(self, dest_path: str) -> Awaitable[ForwardSession]:
        return dial(self._for_channel(dest_path), UnixTarget(dest_path))

    async def server_requested(self, listen_host: str, listen_port: int) -> RemoteListener | bool:
        bind = TcpTarget(listen_host.lower(), listen_port)
        return len(listen_host) <= _TARGET_CHARS and await self._listen(bind, listen_host)

    async def unix_server_requested(self, listen_path: str) -> RemoteListener | bool:
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
    """Say for the record why a connection ended that we did not end."""
    if exc is None:
        return End(EndReason.LEFT)
    if isinstance(exc, asyncssh.ConnectionLost | OSError):
        return End(EndReason.LOST, str(exc))
    return End(EndReason.FAILED if isinstance(exc, asyncssh.Error) else EndReason.BUG, str(exc))
