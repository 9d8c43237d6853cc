"""Browser sessions in SQL: digests of cookie values, one-use codes and links; never a value itself.

    begin ──▶ a session of the login origin ── offer (code, 30 s) ──▶ redeem ──▶ a session of one app origin
    invite (link, 60 s) ──▶ spend

What is spent once is spent by one UPDATE or DELETE, so that of two replicas one wins.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.http.sessions import digest
from proxy.model import CertificateProof, KeyProof
from proxy.storage.database import Database
from proxy.web.session_schema import web_keys, web_links, web_sessions

Proof = KeyProof | CertificateProof

_KEY_BYTES = 32
_IDS_PER_QUERY = 5_000  # both databases take 32,767 parameters
_MAX_LISTED = 10_000
SWEEP_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One signed-in browser at one origin."""

    id: str
    """Ours, random, no secret."""
    parent: str
    """Id of the session of the login origin that this one came from; empty for such a session itself."""
    host: str
    """Of the app's origin, without a port; empty for the login origin."""
    user: str
    user_id: str
    provider: str
    """What signed the browser in; empty for an SSH key."""
    client: str
    """Address at the sign-in."""
    created_at: datetime
    expires_at: datetime
    seen_at: datetime | None = None
    """Last use, written at most every few minutes; None before the first."""
    issuer: str = ""
    subject: str = ""
    sid: str = ""
    """Of the session at the provider (OpenID Connect Back-Channel Logout §2.1)."""
    proof: Proof | None = field(default=None, repr=False)

    @property
    def root(self) -> str:
        """Return the id of the session of the login origin that this one belongs to."""
        return self.parent or self.id


@dataclass(frozen=True, slots=True)
class Invitation:
    """A request for a link over SSH."""

    user: str
    user_id: str
    proof: Proof = field(repr=False)
    client: str
    code: str
    """Shown in the terminal and on the page."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Offer:
    """The binding of a one-use code."""

    code: str = field(repr=False)
    pre: str
    """Digest of the cookie that the browser has at the app's origin since it left there."""
    expires_at: datetime


class SessionStore:
    """The store of the module; every method raises StoreError when the database does not answer in time."""

    def __init__(self, database: Database, *, idle_s: float, per_user: int) -> None:
        """`idle_s`: seconds without use after which a session has ended; `per_user`: sessions at most."""
        self._reading = database.reading
        self._writing = database.writing
        self._idle = timedelta(seconds=idle_s)
        self._per_user = per_user

    async def key(self) -> bytes:
        """Return the secret of this installation, made by the replica that needs it first."""
        query = sa.select(web_keys.c.value).where(web_keys.c.name == "values")
        for _ in range(2):
            async with self._reading() as connection:
                if (found := (await connection.execute(query)).scalar()) is not None:
                    return bytes(found)
            key = secrets.token_bytes(_KEY_BYTES)
            made = {"name": "values", "value": key, "created_at": _now()}
            async with self._writing() as connection:
                try:
                    async with connection.begin_nested():
                        await connection.execute(sa.insert(web_keys).values(made))
                except IntegrityError:
                    continue  # another replica was faster
                return key
        raise AssertionError("unreachable")

    # ---------------------------------------------------------------------- the login origin

    async def begin(self, record: SessionRecord, value: str, *, instead_of: str = "") -> None:
        """Keep a session of the login origin, and end the one that the browser came with.

        The oldest sessions of a user end when there would be more than `per_user`.
        """
        async with self._writing() as connection:
            if instead_of:
                await connection.execute(sa.delete(web_sessions).where(_family(instead_of)))
            await self._make_room(connection, record.user)
            await connection.execute(sa.insert(web_sessions).values(_row(record) | {"digest": digest(value)}))

    async def _make_room(self, connection: AsyncConnection, user: str) -> None:
        theirs = (
            sa.select(web_sessions.c.id)
            .where(web_sessions.c.user == user, web_sessions.c.host == "")
            .order_by(web_sessions.c.created_at.desc())
            .offset(self._per_user - 1)
            .limit(SWEEP_AT_ONCE)
        )
        for id_ in (await connection.execute(theirs)).scalars().all():
            await connection.execute(sa.delete(web_sessions).where(_family(id_)))

    async def find(self, value: str) -> SessionRecord | None:
        """Return the session of a cookie's value; None when there is none, or it has ended."""
        query = sa.select(web_sessions).where(web_sessions.c.digest == digest(value), self._lives())
        async with self._reading() as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else _record(row)

    async def alive(self, ids: Collection[str]) -> set[str]:
        """Return those of some sessions that have not ended."""
        found: set[str] = set()
        wanted = list(ids)
        async with self._reading() as connection:
            for start in range(0, len(wanted), _IDS_PER_QUERY):
                part = wanted[start : start + _IDS_PER_QUERY]
                query = sa.select(web_sessions.c.id).where(web_sessions.c.id.in_(part), self._lives())
                found.update((await connection.execute(query)).scalars())
        return found

    async def touch(self, record: SessionRecord) -> None:
        """Note that a session is used now, and with it the one that it came from."""
        ids = {record.id, record.root}
        async with self._writing() as connection:
            await connection.execute(
                sa.update(web_sessions).where(web_sessions.c.id.in_(ids)).values(seen_at=_now())
            )

    async def end(self, id_: str) -> list[SessionRecord]:
        """End a session and all that came from it; return the ended ones."""
        return await self._end(_family(id_))

    async def end_all(self, user: str) -> list[SessionRecord]:
        """End every session of a user; return the ended ones."""
        return await self._end(web_sessions.c.user == user)

    async def end_at_provider(
        self, issuer: str, subject: str, sid: str, until: datetime
    ) -> list[SessionRecord]:
        """End sessions that a provider ended: those of `sid`, or without one all of the account.

        Only those that began before `until`: the same word again ends nothing that began since.
        """
        its = sa.and_(
            web_sessions.c.issuer == issuer, web_sessions.c.host == "", web_sessions.c.created_at <= until
        )
        wanted = web_sessions.c.sid == sid if sid else web_sessions.c.subject == subject
        if sid and subject:
            wanted = sa.and_(wanted, web_sessions.c.subject == subject)
        async with self._reading() as connection:
            ids = (await connection.execute(sa.select(web_sessions.c.id).where(its, wanted))).scalars().all()
        return [one for id_ in ids for one in await self.end(id_)]

    async def _end(self, which: sa.ColumnElement[bool]) -> list[SessionRecord]:
        async with self._writing() as connection:
            rows = (await connection.execute(sa.select(web_sessions).where(which))).mappings().all()
            await connection.execute(sa.delete(web_sessions).where(which))
        return [_record(row) for row in rows]

    async def of_user(self, user: str) -> list[SessionRecord]:
        """Return the sessions of a user at all origins, the newest first; of every user for an empty name."""
        query = sa.select(web_sessions).where(web_sessions.c.digest.is_not(None), self._lives())
        if user:
            query = query.where(web_sessions.c.user == user)
        query = query.order_by(web_sessions.c.created_at.desc()).limit(_MAX_LISTED)
        async with self._reading() as connection:
            return [_record(row) for row in (await connection.execute(query)).mappings()]

    # ----------------------------------------------------------------------- one-use codes

    async def offer(self, record: SessionRecord, offer: Offer) -> None:
        """Keep the session of an app's origin that a code will open."""
        row = _row(record) | {
            "code": digest(offer.code),
            "pre": offer.pre,
            "code_expires_at": offer.expires_at,
        }
        async with self._writing() as connection:
            await connection.execute(sa.insert(web_sessions).values(row))

    async def unused(self, parent: str, host: str, before: datetime, after: datetime) -> int:
        """Count sessions of one origin that were opened between two moments, and never came back."""
        query = sa.select(sa.func.count()).where(
            web_sessions.c.parent == parent,
            web_sessions.c.host == host,
            web_sessions.c.digest.is_not(None),
            web_sessions.c.seen_at.is_(None),
            web_sessions.c.created_at < before,
            web_sessions.c.created_at > after,
        )
        async with self._reading() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def redeem(self, code: str, host: str, pre: str, value: str) -> SessionRecord | None:
        """Open the session that a code was given for, once; None for a code that is not good here.

        A code that comes again ends the session that it opened (RFC 6749 §4.1.2).
        """
        is_it = sa.and_(web_sessions.c.code == digest(code), web_sessions.c.host == host)
        fits = sa.and_(
            is_it,
            web_sessions.c.digest.is_(None),
            web_sessions.c.pre == digest(pre),
            web_sessions.c.code_expires_at > _now(),
        )
        opened = {"digest": digest(value), "created_at": _now()}
        async with self._writing() as connection:
            if (await connection.execute(sa.update(web_sessions).where(fits).values(opened))).rowcount != 1:
                await connection.execute(
                    sa.delete(web_sessions).where(is_it, web_sessions.c.pre == digest(pre))
                )
                return None
            query = sa.select(web_sessions).where(web_sessions.c.digest == digest(value))
            return _record((await connection.execute(query)).mappings().one())

    # ------------------------------------------------------------------------------- links

    async def invite(self, invitation: Invitation, token: str) -> None:
        """Keep a link in place of any other of the user."""
        row = {one.name: getattr(invitation, one.name) for one in fields(invitation) if one.name != "proof"}
        row |= _of_proof(invitation.proof) | {"digest": digest(token)}
        async with self._writing() as connection:
            await connection.execute(sa.delete(web_links).where(web_links.c.user == invitation.user))
            await connection.execute(sa.insert(web_links).values(row))

    async def invitation(self, token: str) -> Invitation | None:
        """Return the invitation of a link; None when it was used or is too old."""
        async with self._reading() as connection:
            return await _invitation(connection, token)

    async def spend(self, token: str) -> Invitation | None:
        """Use a link up; None when it was used already, or is too old."""
        async with self._writing() as connection:
            found = await _invitation(connection, token)
            gone = await connection.execute(sa.delete(web_links).where(web_links.c.digest == digest(token)))
        return found if gone.rowcount == 1 else None

    # --------------------------------------------------------------------------------- age

    async def sweep(self) -> int:
        """Delete sessions that ended by age, some at a time; return the number of them."""
        unredeemed = sa.and_(web_sessions.c.digest.is_(None), web_sessions.c.code_expires_at <= _now())
        old = sa.or_(sa.not_(self._lives()), unredeemed)
        query = sa.select(web_sessions.c.id).where(old).limit(SWEEP_AT_ONCE)
        async with self._writing() as connection:
            ids = (await connection.execute(query)).scalars().all()
            if ids:
                await connection.execute(sa.delete(web_sessions).where(web_sessions.c.id.in_(ids)))
            await connection.execute(sa.delete(web_links).where(web_links.c.expires_at <= _now()))
        return len(ids)

    def _lives(self) -> sa.ColumnElement[bool]:
        seen_at = sa.func.coalesce(web_sessions.c.seen_at, web_sessions.c.created_at)
        return sa.and_(web_sessions.c.expires_at > _now(), seen_at > _now() - self._idle)


def _family(id_: str) -> sa.ColumnElement[bool]:
    return sa.or_(web_sessions.c.id == id_, web_sessions.c.parent == id_)


async def _invitation(connection: AsyncConnection, token: str) -> Invitation | None:
    query = sa.select(web_links).where(web_links.c.digest == digest(token), web_links.c.expires_at > _now())
    row = (await connection.execute(query)).mappings().first()
    if row is None or (proof := _proof(row)) is None:
        return None
    return Invitation(row["user"], row["user_id"], proof, row["client"], row["code"], row["expires_at"])


def _row(record: SessionRecord) -> dict[str, Any]:
    plain = {one.name: getattr(record, one.name) for one in fields(record) if one.name != "proof"}
    return plain | _of_proof(record.proof) | {"pre": ""}


def _record(row: sa.RowMapping) -> SessionRecord:
    names = [one.name for one in fields(SessionRecord) if one.name != "proof"]
    return SessionRecord(**{name: row[name] for name in names}, proof=_proof(row))


def _of_proof(proof: Proof | None) -> dict[str, Any]:
    if isinstance(proof, CertificateProof):
        certified = {"authority": proof.authority, "serial": str(proof.serial), "key_id": proof.key_id}
        return {"key": proof.key, **certified}
    return {"key": None if proof is None else proof.key, "authority": None, "serial": "", "key_id": ""}


def _proof(row: sa.RowMapping) -> Proof | None:
    if row["key"] is None:
        return None
    if row["authority"] is None:
        return KeyProof(bytes(row["key"]))
    return CertificateProof(
        bytes(row["key"]), bytes(row["authority"]), int(row["serial"] or 0), row["key_id"]
    )


def _now() -> datetime:
    return datetime.now(UTC)
