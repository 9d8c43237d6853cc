"""Signed-in browsers as this process knows them: checked against the store, ended everywhere at once.

    request ─▶ find ─▶ Held (believed for `check_s` seconds) ─▶ principal of the Visit
    sign-out · lock · removal · kill ─▶ the store ─▶ an event ─▶ every replica looks, and closes WebSockets

The event only says: look. The store is asked every `check_s` seconds while WebSockets are open, so that
without NATS the bound is that, and a party that can only publish events can end no session.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from proxy import metrics
from proxy.access import policy
from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events import schema, subjects
from proxy.events.lookout import Lookout
from proxy.events.publisher import Bus, Gap, Message
from proxy.http.sessions import digest
from proxy.identity.directory import Directory, KeyStanding
from proxy.identity.revoked_keys import Revocation, Revocations
from proxy.model import CertificateProof, ConnId, Peer, Principal, User, WebSession
from proxy.onboarding.idtoken import LoggedOut
from proxy.sessions.records import End, EndReason
from proxy.settings.web import WebSessionSettings
from proxy.userstring import UserString
from proxy.web.frames import POLICY_VIOLATION
from proxy.web.seals import Seals
from proxy.web.session_records import Recorded, WebRecords
from proxy.web.session_store import SWEEP_AT_ONCE, Offer, Proof, SessionRecord, SessionStore

_log = structlog.get_logger("web")

LOGIN_VALUE = "login"
"""Purpose of cookie values of the login origin."""

_MAX_HELD = 20_000
"""Sessions that are remembered between two requests; more are looked up again."""
_REMEMBERED_S = 60
_TOUCH_S = 300
_SWEEP_S = 60
_CLOCKS_DIFFER_S = 2
_CODE_S = 30
"""Life of a one-use code from the login origin to an app's."""


Sockets = Callable[[], Iterable[tuple[object, Callable[[int, str], None]]]]
"""Open WebSockets: the session that each belongs to, and how to end it with a code and a reason."""


def value_of_host(host: str) -> str:
    """Return the purpose of cookie values of one app's origin."""
    return f"app:{host}"


@dataclass(frozen=True, slots=True)
class SignIn:
    """The proof of a browser."""

    user: User
    client: str
    provider: str = ""
    issuer: str = ""
    subject: str = ""
    sid: str = ""
    proof: Proof | None = None


class Held(Recorded):
    """A session that was good when it was last looked at; a `Live` of `access.revocation`."""

    def __init__(
        self, sessions: "WebSessions", key: str, record: SessionRecord, principal: Principal
    ) -> None:
        self._sessions = sessions
        self.key = key
        self.record = record
        self.principal: Principal | None = principal
        self.checked_at = 0.0
        self.touched_at = float("-inf")

    @property
    def user(self) -> User:
        """Return the user who is signed in."""
        assert self.principal is not None
        return self.principal.user

    @property
    def actor(self) -> Principal:
        """Return the principal of the session."""
        assert self.principal is not None
        return self.principal

    def warn(self, sentence: str) -> None:
        """Say nothing: there is no place for it."""

    def end(self, sentence: str, end: End) -> None:
        """End the session everywhere; its WebSockets get the sentence as their reason."""
        self._sessions.revoke(self, sentence, end)

    def regrouped(self, user: User) -> None:
        """Go on as a user with other groups; apps judge the next connection by them."""
        if self.principal is not None:
            self.principal = replace(self.principal, user=user)


class WebSessions:
    """One per process."""

    def __init__(
        self,
        store: SessionStore,
        seals: Seals,
        directory: Directory,
        revocations: Revocations,
        bus: Bus,
        settings: WebSessionSettings,
        records: WebRecords,
    ) -> None:
        self.store = store
        self.seals = seals
        self._directory = directory
        self._revocations = revocations
        self._bus = bus
        self._settings = settings
        self.records = records
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._sockets: Sockets = tuple
        self._lookout = Lookout(
            self._look,
            settings.check_s,
            _log,
            outage="web sessions cannot be compared with the store",
            heard=self._believe_nothing,
        )
        self._tasks = TaskOwner("web-sessions")

    def start(self, sockets: Sockets) -> None:
        """Look after open WebSockets, given by `sockets`, until closed."""
        self._sockets = sockets
        self._lookout.start(self._tasks, self._bus.subscribe(subjects.WEB_SIGNED_OUT))
        self._tasks.spawn(self._sweep(), name="sweep")

    @property
    def life_s(self) -> float:
        """Return the seconds from a sign-in to the end of its session."""
        return self._settings.life_s

    async def close(self) -> None:
        """End looking; sessions stay."""
        await self._tasks.close()

    def __len__(self) -> int:
        """Count the sessions that are remembered."""
        return len(self._held)

    def live(self) -> list[Held]:
        """Return the sessions that are remembered, for `access.revocation`."""
        return list(self._held.values())

    # ------------------------------------------------------------------------------- look-up

    async def find(self, value: str, host: str, *, is_use: bool = True) -> Held | None:
        """Return the session of a cookie's value at one origin, the login origin for an empty host.

        A value that this installation never issued for that origin costs no look-up. Without `is_use` the
        session still ends `idle_s` after its last use. Raises: StoreError.
        """
        if not self.is_issued(value, host):
            return None
        now = asyncio.get_running_loop().time()
        held = self.known(value, host)
        if held is None:
            key = digest(value)
            held = await self._look_up(value, key, host, self._held.get(key))
            if held is None:
                return None
            held.checked_at = now
        if is_use and now - held.touched_at >= _TOUCH_S:
            held.touched_at = now
            await self.store.touch(held.record)
        return held

    def is_issued(self, value: str, host: str) -> bool:
        """Tell whether this installation issued a cookie's value for one origin; asks no store."""
        return bool(value) and self.seals.is_issued(value_of_host(host) if host else LOGIN_VALUE, value)

    def known(self, value: str, host: str) -> Held | None:
        """Return a session that was looked at within `check_s` seconds; None for all others."""
        held = self._held.get(digest(value))
        if held is None or held.record.host != host:
            return None
        age_s = asyncio.get_running_loop().time() - held.checked_at
        return held if age_s < self._settings.check_s else None

    async def _look_up(self, value: str, key: str, host: str, known: Held | None) -> Held | None:
        record = await self.store.find(value)
        if record is None or record.host != host:
            self._forget(key, "you were signed out")
            return None
        user = await self._standing(record)
        if user is None:
            self._forget(key, "this session may not go on")
            return None
        if known is not None and self._held.get(key) is known:
            if known.user.groups != user.groups:
                known.regrouped(user)
            return known
        held = Held(self, key, record, _principal(record, user))
        self._held[key] = held
        while len(self._held) > _MAX_HELD:
            self._forget(next(iter(self._held)), "there are too many sessions")
        return held

    async def _standing(self, record: SessionRecord) -> User | None:
        """Return the user of a session as of now; None when the session may not go on."""
        is_key = record.proof is not None and not _principal(record, User(record.user)).certificate
        pair = record.user, record.proof.fingerprint if record.proof is not None and is_key else ""
        found: KeyStanding = (await self._directory.standing_of({pair}))[pair]
        user = found.user
        if user is None and not found.is_certain:
            raise StoreError("users are gone, and were not removed", user_message="users cannot be looked up")
        if user is None or user.id != record.user_id:
            return None
        decision = policy.may_stay(
            user,
            found.has_key or not is_key,
            datetime.now(UTC),
            ended_at_provider=found.ended_at_provider,
        )
        if not decision:
            return None
        lists = await self._revocations.current()
        is_revoked = lists.of(WebSession(record.id, record.proof)) is Revocation.REVOKED
        return None if is_revoked else user

    def used(self, held: Held, workspace: UserString) -> None:
        """Begin the record of a session that is used for an app, unless it has begun."""
        if held.live is None and held.principal is not None:
            held.live = self.records.open(held.principal, workspace, held)

    def _forget(self, key: str, reason: str) -> None:
        held = self._drop(key, End(EndReason.REVOKED, reason))
        if held is not None:
            self._stop({held.record.id}, reason)

    def _drop(self, key: str, end: End) -> Held | None:
        """Remember a session no more, and end its record."""
        held = self._held.pop(key, None)
        if held is not None and held.live is not None:
            held.live.ended(end)
        return held

    # ------------------------------------------------------------------------------ sign-in

    def refused(self, client: str, provider: str, reason: str, user: str = "") -> None:
        """Tell of a sign-in that came to nothing."""
        metrics.WEB_SIGN_INS.labels("refused", "provider" if provider else "ssh").inc()
        self._bus.publish(
            schema.WebSignInRefused(user=user, client_address=client, provider=provider, reasons=(reason,))
        )
        _log.info("sign-in refused", client=client, provider=provider, reason=reason, user=user)

    async def sign_in(self, who: SignIn, replaced: Held | None) -> str:
        """Begin a session of the login origin, end the one that the browser came with; returns its value.

        Raises: StoreError.
        """
        value = self.seals.issue(LOGIN_VALUE)
        now = datetime.now(UTC)
        is_certified = isinstance(who.proof, CertificateProof)
        life_s = min(self.life_s, self._settings.certificate_life_s) if is_certified else self.life_s
        record = SessionRecord(
            secrets.token_hex(8),
            "",
            "",
            who.user.name,
            who.user.id,
            who.provider,
            who.client,
            now,
            now + timedelta(seconds=life_s),
            issuer=who.issuer,
            subject=who.subject,
            sid=who.sid,
            proof=who.proof,
        )
        ended = [] if replaced is None else await self.store.end(replaced.record.root)
        await self.store.begin(record, value)
        self._ended(ended, "another sign-in took its place", by=who.user.name)
        metrics.WEB_SIGN_INS.labels("succeeded", "ssh" if who.proof is not None else "provider").inc()
        self._bus.publish(
            schema.WebSignedIn(
                user=who.user.name,
                client_address=who.client,
                session_id=record.id,
                provider=who.provider,
                fingerprint=who.proof.fingerprint if who.proof is not None else "",
            )
        )
        _log.info(
            "signed in", user=who.user.name, client=who.client, session=record.id, provider=who.provider
        )
        return value

    async def offer(self, login: Held, host: str, pre: str, client: str) -> str:
        """Give a code that opens a session of one app's origin, once and within 30 s. Raises: StoreError."""
        code = self.seals.issue(f"code:{host}")
        now = datetime.now(UTC)
        parent = login.record
        record = replace(
            parent,
            id=secrets.token_hex(8),
            parent=parent.id,
            host=host,
            client=client,
            created_at=now,
            seen_at=None,
        )
        await self.store.offer(record, Offer(code, pre, now + timedelta(seconds=_CODE_S)))
        return code

    async def redeem(self, code: str, host: str, pre: str) -> str:
        """Open a session of an app's origin by a code; returns its value, empty for a code that is not good.

        Raises: StoreError.
        """
        if not self.seals.is_issued(f"code:{host}", code) or not self.seals.is_issued(f"pre:{host}", pre):
            return ""
        value = self.seals.issue(value_of_host(host))
        return value if await self.store.redeem(code, host, pre, value) is not None else ""

    # ----------------------------------------------------------------------------- the end

    async def sign_out(self, record: SessionRecord, *, everywhere: bool = False, by: str = "") -> None:
        """End a session with all that came from it, or every session of its user. Raises: StoreError."""
        ended = await (self.store.end_all(record.user) if everywhere else self.store.end(record.id))
        self._ended(ended, "you signed out", by=by or record.user)

    async def ended_at_provider(self, said: LoggedOut, provider: str) -> int:
        """End the sessions that a provider ended; return the number of them. Raises: StoreError."""
        until = said.at + timedelta(seconds=_CLOCKS_DIFFER_S)
        ended = await self.store.end_at_provider(said.issuer, said.subject, said.sid, until)
        self._ended(ended, "you signed out at the provider", by=f"provider:{provider}")
        return len(ended)

    def revoke(self, held: Held, sentence: str, end: End) -> None:
        """End a session that may not go on: here at once, then in the store."""
        self._drop(held.key, end)
        self._stop({held.record.id}, sentence)
        self._tasks.spawn(self._end_stored(held.record, sentence, end.by), name="revoke")

    async def _end_stored(self, record: SessionRecord, sentence: str, by: str) -> None:
        ended = await self.store.end(record.id)
        self._ended(ended, sentence, by=by)

    def _ended(self, records: Sequence[SessionRecord], sentence: str, *, by: str) -> None:
        """Close the WebSockets of ended sessions, and notify other replicas."""
        ids = {record.id for record in records}
        for key in [key for key, held in self._held.items() if held.record.id in ids]:
            self._drop(key, End(EndReason.LEFT, sentence))
        self._stop(ids, sentence)
        for record in records:
            if not record.parent:
                self._bus.publish(schema.WebSignedOut(user=record.user, session_id=record.id, actor=by))
        # An event for each root session is enough: replicas look at all of theirs.
        if records and all(record.parent for record in records):
            self._bus.publish(schema.WebSignedOut(user=records[0].user, session_id=records[0].id, actor=by))

    def _stop(self, ids: set[str], reason: str) -> None:
        if not ids:
            return
        for tag, stop in tuple(self._sockets()):
            if isinstance(tag, Held) and tag.record.id in ids:
                stop(POLICY_VIOLATION, reason)

    # -------------------------------------------------------------------------- looking after

    async def check(self) -> None:
        """Compare the sessions of open WebSockets with the store. Raises: StoreError."""
        open_ = {tag.record.id for tag, _ in self._sockets() if isinstance(tag, Held)}
        if not open_:
            return
        gone = open_ - await self.store.alive(open_)
        for key in [key for key, held in self._held.items() if held.record.id in gone]:
            self._drop(key, End(EndReason.LEFT, "you were signed out"))
        self._stop(gone, "you were signed out")

    async def _look(self) -> None:
        self._prune()
        await self.check()

    def _believe_nothing(self, message: Message | Gap) -> bool:
        """Ask the store about each session again before its next use: another replica ended one."""
        del message
        for held in self._held.values():
            held.checked_at = float("-inf")
        return True

    def _prune(self) -> None:
        """Forget sessions that were not asked for lately and have no WebSocket open."""
        open_ = {tag.record.id for tag, _ in self._sockets() if isinstance(tag, Held)}
        long_ago = asyncio.get_running_loop().time() - _REMEMBERED_S
        for key in [
            key
            for key, held in self._held.items()
            if held.checked_at < long_ago and held.record.id not in open_
        ]:
            self._drop(key, End(EndReason.CLOSED))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                while await self.store.sweep() == SWEEP_AT_ONCE:
                    pass  # each turn waits for the store
            except StoreError as exc:
                _log.debug("old web sessions are not deleted", reason=str(exc))


def _principal(record: SessionRecord, user: User) -> Principal:
    """Make the principal of a session; each process gives it an id of its own, for its records."""
    peer = Peer(ConnId(secrets.token_hex(8)), record.client, 0, record.host, 0)
    return Principal(peer, user, WebSession(record.id, record.proof))
