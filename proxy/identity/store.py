"""The directory in SQL: users and their keys here, users of a provider in `registration`.

Only this module and `registration` write queries.
"""

import hmac
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.errors.stores import IdentityError, KeyNotFound, StoreError, UserExists, UserNotFound
from proxy.identity import census, groups, registration, user_import
from proxy.identity.directory import (
    Account,
    Census,
    ImportResult,
    KeyStanding,
    OnboardingRecord,
    StoredKey,
    UserEntry,
    UserRecord,
    check_name,
)
from proxy.identity.groups import Reading
from proxy.identity.keys import PublicKey
from proxy.identity.profile import Profile
from proxy.identity.schema import grants, keys, revoked_keys, users
from proxy.model import User, fingerprint
from proxy.settings.groups import GroupSettings
from proxy.storage.database import Database
from proxy.storage.installation import installation

_TOUCH_EVERY = timedelta(minutes=1)
_PAIRS_PER_QUERY = 5_000  # both databases take 32,767 parameters
_USER = (
    *(users.c.name, users.c.full_name, users.c.locked, users.c.expires_at),
    *(users.c.email, users.c.uid, users.c.gid, users.c.groups, users.c.issuer, users.c.source),
    *(users.c.id, users.c.created_at, users.c.refreshed_at),
    *(users.c.groups_at, users.c.provider_failed_at, users.c.account_ended_at),
)


class _Rollback(Exception):
    """A signal to leave a transaction without committing it."""


class SqlDirectory:
    """A Directory in a database; every call is bounded by `query_timeout_s`."""

    def __init__(self, database: Database, uids: range, groups: GroupSettings) -> None:
        self._database = database
        self._uids = uids
        self._groups = groups
        self._reading = database.reading
        self._writing = database.writing
        self._doubt = ""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        query_timeout_s: float = 10.0,
        uids: range = range(10_000, 60_000),
        upgrade: bool = False,
        groups: GroupSettings | None = None,
    ) -> Self:
        """Connect to a database of its own; `uids` are for users who are added without one.

        `groups` defines how long groups count.

        Raises: as Database.open, which `upgrade` is for.
        """
        database = await Database.open(url, query_timeout_s=query_timeout_s, upgrade=upgrade)
        try:
            if upgrade:
                return await cls.in_database(database, uids=uids, groups=groups)
            return cls(database, uids, groups or GroupSettings())
        except BaseException:
            await database.close()
            raise

    @classmethod
    async def in_database(
        cls, database: Database, *, uids: range, groups: GroupSettings | None = None
    ) -> Self:
        """Use a database that other packages use too, and assign uids to users of an older release.

        Raises: StoreError.
        """
        store = cls(database, uids, groups or GroupSettings())
        await store._give_uids()
        return store

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    async def find(self, name: str) -> User | None:
        """See Directory."""
        row = await self._one(users, _USER, users.c.name == name)
        if row is None:
            self._refuse_in_doubt()
            return None
        return self._user(row)

    async def key_of(self, name: str, blob: bytes) -> StoredKey | None:
        """See Directory."""
        is_it = sa.and_(keys.c.user == name, keys.c.fingerprint == fingerprint(blob))
        row = await self._one(keys, keys.c, is_it)
        if row is None:
            self._refuse_in_doubt()
            return None
        return _stored(row) if hmac.compare_digest(row["blob"], blob) else None

    async def standing_of(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], KeyStanding]:
        """See Directory."""
        found: dict[str, tuple[User, dict[str, str]]] = {}
        wanted = list(pairs)
        async with self._database.snapshot() as connection:
            for start in range(0, len(wanted), _PAIRS_PER_QUERY):
                part = wanted[start : start + _PAIRS_PER_QUERY]
                for row in (await connection.execute(_standing(part))).mappings():
                    _, held = found.setdefault(row["name"], (self._user(row), {}))
                    if row["fingerprint"] is not None:
                        is_ended = row["account_ended_at"] is not None and row["origin"] == row["source"]
                        held[row["fingerprint"]] = row["source"] if is_ended else ""
            missing = {
                (name, key): (name, key if name in found else "")
                for name, key in wanted
                if name not in found or (key and key not in found[name][1])
            }
            lost = await _lost(connection, set(missing.values()))
        absent: tuple[User | None, dict[str, str]] = (None, {})
        standing = {}
        for pair in wanted:
            name, key = pair
            user, held = found.get(name, absent)
            standing[pair] = KeyStanding(
                user,
                not key or key in held,
                ended_at_provider=held.get(key, ""),
                is_certain=missing.get(pair) not in lost,
            )
        return standing

    async def assure(self) -> None:
        """See Directory."""
        async with self._database.snapshot() as connection:
            await _require_whole(connection)

    async def audit(self, most: float) -> Census:
        """Count; from now on refuse to report a user as unknown while more than `most` of them are missing.

        Rows that an older release added are expected from now on. Raises: StoreError.
        """
        async with self._database.snapshot() as connection:
            found = await census.take(connection)
        if found.users > found.expected_users or found.keys > found.expected_keys:
            async with self._adding():
                pass
        self._doubt = str(found) if found.lost_most(most) else ""
        return found

    async def accept(self, seen: Census | None = None) -> Census:
        """Make the present rows the expected ones, unless they changed since `seen`.

        Returns the counts before. Raises: StoreError.
        """
        async with self._writing() as connection:
            found = await census.hold(connection)
            if seen in (None, found):
                await census.expect(connection, found)
        return found

    async def account_of(self, name: str) -> Account | None:
        """See Directory."""
        row = await self._one(users, users.c, users.c.name == name)
        return None if row is None else _account(row)

    async def find_account(self, issuer: str, subject: str) -> User | None:
        """See Directory."""
        is_it = sa.and_(users.c.issuer == issuer, users.c.subject == subject)
        row = await self._one(users, _USER, is_it)
        if row is None:
            self._refuse_in_doubt()
            return None
        return self._user(row)

    async def add_user(
        self,
        name: str,
        *,
        full_name: str = "",
        email: str = "",
        uid: int | None = None,
        expires_at: datetime | None = None,
    ) -> User:
        """See Directory."""
        row = {"name": check_name(name), "full_name": full_name, "email": email, "expires_at": expires_at}
        async with self._adding() as connection:
            await registration.serialise(connection)
            if await registration.has_user(connection, name):
                raise UserExists(f"there is already a user {name}")
            if uid is not None and (owner := await registration.owner_of_uid(connection, uid)):
                raise IdentityError(f"uid {uid} is user {owner}'s")
            await registration.insert_user(connection, self._uids, row, uid)
            added = await connection.execute(sa.select(*_USER).where(users.c.name == name))
            return self._user(added.mappings().one())

    async def remove_user(self, name: str) -> None:
        """See Directory."""
        async with self._writing() as connection:
            held = sa.select(keys.c.fingerprint).where(keys.c.user == name)
            # The row first: a transaction that adds a key for this user now waits, and then finds no user.
            await connection.execute(sa.select(users.c.name).where(users.c.name == name).with_for_update())
            fingerprints = (await connection.execute(held)).scalars().all()
            for table in (keys, revoked_keys, grants):
                await connection.execute(sa.delete(table).where(table.c.user == name))
            gone = await connection.execute(sa.delete(users).where(users.c.name == name))
            _expect_user(gone.rowcount, name)
            await census.removed(connection, name, fingerprints, user=True)

    async def show_user(self, name: str) -> UserRecord:
        """See Directory."""
        async with self._reading() as connection:
            row = (await connection.execute(_records().where(users.c.name == name))).mappings().first()
        if row is None:
            raise UserNotFound(f"there is no user {name}")
        return self._record(row)

    async def list_users(self) -> list[UserRecord]:
        """See Directory."""
        async with self._reading() as connection:
            rows = (await connection.execute(_records().order_by(users.c.name))).mappings().all()
        return [self._record(row) for row in rows]

    async def lock(self, name: str) -> None:
        """See Directory."""
        await self._set_locked(name, locked=True)

    async def unlock(self, name: str) -> None:
        """See Directory."""
        await self._set_locked(name, locked=False)

    async def add_key(self, name: str, key: PublicKey, *, origin: str = registration.STATIC) -> bool:
        """See Directory."""
        async with self._adding() as connection:
            await _require_user(connection, name)
            return await registration.insert_key(connection, name, key, origin)

    async def remove_key(self, name: str, fingerprint: str) -> None:
        """See Directory."""
        async with self._writing() as connection:
            await _require_user(connection, name)
            if not await registration.delete_key(connection, name, fingerprint):
                raise KeyNotFound(f"user {name} has no key {fingerprint}")

    async def drop_unlisted(
        self, name: str, provider: str, listed: Collection[bytes], read_at: datetime
    ) -> list[str]:
        """See Directory."""
        shown = {fingerprint(blob) for blob in listed}
        async with self._writing() as connection:
            return await registration.drop_unlisted(connection, name, provider, shown, read_at)

    async def keys_of(self, name: str) -> list[StoredKey]:
        """See Directory."""
        query = sa.select(keys).where(keys.c.user == name).order_by(keys.c.id)
        async with self._reading() as connection:
            await _require_user(connection, name)
            rows = (await connection.execute(query)).mappings().all()
        return [_stored(row) for row in rows]

    async def touch_key(self, key_id: int) -> None:
        """See Directory."""
        now = _now()
        stale = sa.or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < now - _TOUCH_EVERY)
        async with self._reading() as connection:
            if (
                await connection.execute(sa.select(keys.c.id).where(keys.c.id == key_id, stale))
            ).first() is None:
                return
        async with self._writing() as connection:
            await connection.execute(sa.update(keys).where(keys.c.id == key_id).values(last_used_at=now))

    async def import_users(self, entries: Sequence[UserEntry], *, dry_run: bool = False) -> ImportResult:
        """See Directory."""
        with suppress(_Rollback):
            async with self._adding() as connection:
                result = await user_import.import_users(connection, self._uids, entries)
                if dry_run or result.problems:
                    raise _Rollback
        return result

    async def register(self, profile: Profile, name: str, key: PublicKey, provider: str) -> None:
        """See Directory."""
        async with self._adding() as connection:
            await _require_whole(connection)
            await registration.register(
                connection, self._uids, replace(profile, provider=provider), name, key
            )

    async def waitlist(self, profile: Profile, name: str, key: PublicKey, source: str) -> None:
        """See Directory."""
        async with self._writing() as connection:
            await _require_whole(connection)
            await registration.waitlist(connection, profile, name, key, source)

    async def list_onboardings(self) -> list[OnboardingRecord]:
        """See Directory."""
        async with self._reading() as connection:
            return await registration.list_onboardings(connection)

    async def approve(self, onboarding_id: int, by: str) -> OnboardingRecord:
        """See Directory."""
        async with self._adding() as connection:
            return await registration.approve(connection, self._uids, onboarding_id, by)

    async def reject(self, onboarding_id: int, by: str) -> OnboardingRecord:
        """See Directory."""
        async with self._writing() as connection:
            return await registration.reject(connection, onboarding_id, by)

    async def renew(self, profile: Profile, name: str) -> None:
        """See Directory."""
        async with self._writing() as connection:
            await registration.renew(connection, profile, name)

    async def note_provider(self, name: str, *, answers: bool) -> None:
        """See Directory."""
        await self._note(name, provider_failed_at=None if answers else _now())

    async def account_ended(self, name: str) -> None:
        """See Directory."""
        await self._note(name, account_ended_at=_now(), provider_failed_at=None)

    async def _note(self, name: str, **moments: datetime | None) -> None:
        is_bound = sa.and_(users.c.name == name, users.c.issuer.is_not(None))
        async with self._writing() as connection:
            await connection.execute(sa.update(users).where(is_bound).values(moments))

    def _user(self, row: sa.RowMapping) -> User:
        """Return a user with the groups that count now."""
        reading = _reading(row)
        counts = reading is None or groups.count(reading, self._groups, _now())
        return User(
            row["name"],
            row["full_name"],
            row["locked"],
            row["expires_at"],
            email=row["email"],
            uid=row["uid"],
            gid=row["gid"],
            groups=tuple(row["groups"]) if counts else (),
            known_groups=tuple(row["groups"]),
            provider="" if row["issuer"] is None else row["source"],
            id=row["id"],
            created_at=row["created_at"],
        )

    def _record(self, row: sa.RowMapping) -> UserRecord:
        return UserRecord(
            user=self._user(row),
            email=row["email"],
            uid=row["uid"],
            gid=row["gid"],
            created_at=row["created_at"],
            key_count=row["key_count"],
            account=_account(row),
        )

    async def _give_uids(self) -> None:
        async with self._reading() as connection:
            if not await registration.lacks_uids(connection):
                return
        async with self._writing() as connection:
            await registration.give_uids(connection, self._uids)

    @asynccontextmanager
    async def _adding(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes, and expect the added rows from now on."""
        async with self._writing() as connection:
            yield connection
            await census.added(connection)

    async def _one(
        self, table: sa.Table, columns: Iterable[sa.ColumnElement[Any]], condition: sa.ColumnElement[bool]
    ) -> sa.RowMapping | None:
        """Return a row, or None; the same statement reads the installation's id, because logins query often.

        A missing row costs the same as a present one.
        """
        joined = installation.outerjoin(table, condition)
        query = sa.select(installation.c.id.label("installation"), *columns).select_from(joined)
        rows = await self._database.ask(query)
        self._database.recognise(rows[0]["installation"] if len(rows) == 1 else "")
        return rows[0] if rows[0][next(iter(table.primary_key)).name] is not None else None

    def _refuse_in_doubt(self) -> None:
        """Refuse to report a row as missing while most rows are. Raises: StoreError."""
        if self._doubt:
            raise StoreError(self._doubt, user_message="users cannot be looked up at the moment")

    async def _set_locked(self, name: str, *, locked: bool) -> None:
        change = sa.update(users).where(users.c.name == name).values(locked=locked)
        async with self._writing() as connection:
            _expect_user((await connection.execute(change)).rowcount, name)


async def _lost(connection: AsyncConnection, missing: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the missing users and keys that may return."""
    lost = set(missing) - await census.recorded(connection, missing)
    return lost if lost and not (await census.take(connection)).is_whole else set()


async def _require_whole(connection: AsyncConnection) -> None:
    """Check that no row was lost. Raises: StoreError."""
    found = await census.take(connection)
    if not found.is_whole:
        raise StoreError(str(found), user_message="no new user can be registered at the moment")


def _records() -> sa.Select[Any]:
    count = sa.select(sa.func.count()).where(keys.c.user == users.c.name).scalar_subquery()
    return sa.select(users, count.label("key_count"))


def _standing(pairs: Sequence[tuple[str, str]]) -> sa.Select[Any]:
    is_wanted = sa.and_(keys.c.user == users.c.name, keys.c.fingerprint.in_({key for _, key in pairs}))
    joined = users.outerjoin(keys, is_wanted)
    query = sa.select(*_USER, keys.c.fingerprint, keys.c.origin).select_from(joined)
    return query.where(users.c.name.in_({name for name, _ in pairs}))


def _account(row: sa.RowMapping) -> Account | None:
    reading = _reading(row)
    if reading is None:
        return None
    return Account(
        row["source"],
        row["issuer"],
        row["subject"],
        row["login"],
        tuple(row["groups"]),
        row["refreshed_at"],
        reading,
    )


def _reading(row: sa.RowMapping) -> Reading | None:
    """Return when groups were read; None for a user whom an operator added."""
    if row["issuer"] is None:
        return None
    # An older release that still runs beside this one writes no `groups_at`.
    read_at = row["groups_at"] or row["refreshed_at"] or row["created_at"]
    return Reading(read_at, row["provider_failed_at"], row["account_ended_at"])


def _stored(row: sa.RowMapping) -> StoredKey:
    key = PublicKey(row["algorithm"], row["blob"], row["comment"])
    return StoredKey(row["id"], row["user"], key, row["origin"], row["created_at"], row["last_used_at"])


async def _require_user(connection: AsyncConnection, name: str) -> None:
    found = await connection.execute(sa.select(users.c.name).where(users.c.name == name))
    _expect_user(len(found.all()), name)


def _expect_user(rows: int, name: str) -> None:
    if not rows:
        raise UserNotFound(f"there is no user {name}")


def _now() -> datetime:
    return datetime.now(UTC)
