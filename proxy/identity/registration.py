"""Creation of users in one transaction: assignment of uids, ownership of names, and the waiting list.

Every function here that writes users begins with `serialise`: one proxy at a time creates users, which keeps
uids, names and subjects distinct on every replica. Logins never wait for it.
"""

import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.errors.login import NameTaken, OnboardingRefused, OnboardingRejected, ProviderMisconfigured
from proxy.errors.stores import IdentityError, StoreError
from proxy.identity import census, reserved_names
from proxy.identity.directory import Account, OnboardingRecord, OnboardingStatus, check_name
from proxy.identity.keys import PublicKey
from proxy.identity.profile import Profile
from proxy.identity.schema import MAX_ISSUER, MAX_SUBJECT, counters, keys, onboardings, revoked_keys, users

_UIDS_AT_ONCE = 1_000
STATIC = "static"
"""Origin of users and keys that an operator added."""

_UID = counters.c.name == "uid"


async def serialise(connection: AsyncConnection) -> None:
    """Wait until no other transaction creates users, until this one ends; on SQLite its own lock does so."""
    await connection.execute(sa.select(counters.c.next).where(_UID).with_for_update())


# --------------------------------------------------------------------------------------- uids and rows


async def has_user(connection: AsyncConnection, name: str) -> bool:
    """Return whether a user of that name exists."""
    found = await connection.execute(sa.select(users.c.name).where(users.c.name == name))
    return found.first() is not None


async def owner_of_uid(connection: AsyncConnection, uid: int) -> str | None:
    """Return the name of the user with a uid, or None."""
    return (await connection.execute(sa.select(users.c.name).where(users.c.uid == uid))).scalar()


async def insert_user(
    connection: AsyncConnection, uids: range, row: Mapping[str, Any], uid: int | None
) -> None:
    """Add a user under `uid`, or the next free one of `uids`.

    The caller checked that the user does not exist.
    """
    uid = await _next_uid(connection, uids) if uid is None else uid
    full = {
        "full_name": "",
        "email": "",
        "locked": False,
        "source": STATIC,
        "login": "",
        "groups": [],
        **row,
        "uid": uid,
        "gid": uid,
        "id": secrets.token_hex(16),
        "created_at": _now(),
    }
    await connection.execute(sa.insert(users).values(full))
    await census.restored(connection, full["name"])


async def insert_key(connection: AsyncConnection, name: str, key: PublicKey, origin: str) -> bool:
    """Add a key to an existing user; return False when it was there.

    A key that an operator removed stays removed until an operator adds it again, even if a provider lists it.
    """
    is_revoked = sa.and_(revoked_keys.c.user == name, revoked_keys.c.fingerprint == key.fingerprint)
    if origin == STATIC:
        await connection.execute(sa.delete(revoked_keys).where(is_revoked))
    elif (await connection.execute(sa.select(revoked_keys.c.user).where(is_revoked))).first() is not None:
        return False
    row = {
        "user": name,
        "fingerprint": key.fingerprint,
        "algorithm": key.algorithm,
        "blob": key.blob,
        "comment": key.comment,
        "origin": origin,
        "created_at": _now(),
    }
    try:
        async with connection.begin_nested():
            await connection.execute(sa.insert(keys).values(row))
    except IntegrityError:
        return False
    await census.restored(connection, name, key.fingerprint)
    return True


async def delete_key(connection: AsyncConnection, name: str, fingerprint: str) -> bool:
    """Remove a key from a user for good; return False when there is none."""
    gone = sa.delete(keys).where(keys.c.user == name, keys.c.fingerprint == fingerprint)
    if not (await connection.execute(gone)).rowcount:
        return False
    row = {"user": name, "fingerprint": fingerprint, "created_at": _now()}
    with suppress(IntegrityError):
        async with connection.begin_nested():
            await connection.execute(sa.insert(revoked_keys).values(row))
    await census.removed(connection, name, [fingerprint])
    return True


async def drop_unlisted(
    connection: AsyncConnection, name: str, provider: str, listed: Collection[str], read_at: datetime
) -> list[str]:
    """Remove the keys that a provider no longer lists; return their fingerprints."""
    is_its = sa.and_(keys.c.user == name, keys.c.origin == provider, keys.c.created_at < read_at)
    held = (await connection.execute(sa.select(keys.c.fingerprint).where(is_its))).scalars().all()
    gone = sorted(set(held) - set(listed))
    if gone:
        await connection.execute(sa.delete(keys).where(is_its, keys.c.fingerprint.in_(gone)))
    is_user = sa.and_(users.c.name == name, users.c.source == provider)
    await connection.execute(sa.update(users).where(is_user).values(refreshed_at=read_at))
    if gone:
        await census.removed(connection, name, gone)
    return gone


async def lacks_uids(connection: AsyncConnection) -> bool:
    """Return whether a release without uids added users."""
    return (await connection.execute(_without_uid())).first() is not None


async def give_uids(connection: AsyncConnection, uids: range) -> None:
    """Assign uids to users whom a release without uids added."""
    await serialise(connection)
    for name in (await connection.execute(_without_uid())).scalars().all():
        uid = await _next_uid(connection, uids)
        await connection.execute(sa.update(users).where(users.c.name == name).values(uid=uid, gid=uid))


def _without_uid() -> sa.Select[Any]:
    return sa.select(users.c.name).where(users.c.uid.is_(None)).order_by(users.c.name)


async def _next_uid(connection: AsyncConnection, uids: range) -> int:
    """Return the next unused uid; a uid from here is not assigned again after its user is removed.

    Raises: StoreError when the range is used up.
    """
    counter = (await connection.execute(sa.select(counters.c.next).where(_UID))).scalar_one()
    first = max(counter, uids.start)
    while first < uids.stop:
        window = range(first, min(first + _UIDS_AT_ONCE, uids.stop))
        query = sa.select(users.c.uid).where(users.c.uid.between(window.start, window.stop - 1))
        taken = set((await connection.execute(query)).scalars())
        free = next((uid for uid in window if uid not in taken), None)
        if free is not None:
            await connection.execute(sa.update(counters).where(_UID).values(next=free + 1))
            return free
        first = window.stop
    raise StoreError(
        f"every uid from {uids.start} to {uids.stop - 1} is used up; raise identity.last_uid",
        user_message="no new user can be registered at the moment; an operator has to make room",
    )


# ---------------------------------------------------------------------------------- users of a provider


async def register(
    connection: AsyncConnection, uids: range, profile: Profile, name: str, key: PublicKey
) -> None:
    """See Directory.register."""
    await serialise(connection)
    record = await _onboarding_of(connection, profile)
    if record is not None:
        _refuse_rejected(record)
    await _let_in(connection, uids, profile, name, key)
    if record is not None and record["status"] != OnboardingStatus.APPROVED.value:
        await _decide(connection, record["id"], OnboardingStatus.APPROVED, "a rule")


async def _let_in(
    connection: AsyncConnection,
    uids: range,
    profile: Profile,
    name: str,
    key: PublicKey,
    *,
    read_at: datetime | None = None,
) -> None:
    facts = _facts(profile, read_at or _now())
    is_bound = await _is_bound(connection, profile, name)
    if not is_bound and not (decision := reserved_names.may_be_account(name)):
        raise OnboardingRefused(decision.reason)
    if is_bound:
        await connection.execute(sa.update(users).where(users.c.name == name).values(facts))
    else:
        row = {"name": check_name(name), "issuer": profile.issuer, "subject": profile.subject, **facts}
        wanted = profile.uid
        is_free = wanted is not None and await owner_of_uid(connection, wanted) is None
        await insert_user(connection, uids, row, wanted if is_free else None)
    await insert_key(connection, name, key, profile.provider)


async def renew(connection: AsyncConnection, profile: Profile, name: str) -> None:
    """See Directory.renew."""
    is_it = sa.and_(
        users.c.name == name, users.c.issuer == profile.issuer, users.c.subject == profile.subject
    )
    facts = _facts(profile, _now())
    if not (await connection.execute(sa.update(users).where(is_it).values(facts))).rowcount:
        raise NameTaken(
            f"user {name!r} is not bound to {profile.provider} account {profile.login!r}",
            user_message=f"approved by another {profile.provider} account than the one of {name}",
        )


def _facts(profile: Profile, read_at: datetime) -> dict[str, Any]:
    """Return the columns that an answer of a provider, read at `read_at`, replaces."""
    return {
        "full_name": profile.full_name,
        "email": _clean(profile.email),
        "source": profile.provider,
        "login": _clean(profile.login),
        "groups": [_clean(group) for group in profile.groups],
        "refreshed_at": read_at,
        "groups_at": read_at,
        "provider_failed_at": None,
        "account_ended_at": None,
    }


async def _is_bound(connection: AsyncConnection, profile: Profile, name: str) -> bool:
    """Return whether `name` is bound to this account already; False when neither is in use.

    Raises: NameTaken.
    """
    if len(profile.issuer) > MAX_ISSUER or len(profile.subject) > MAX_SUBJECT or not profile.subject:
        raise ProviderMisconfigured(
            f"{profile.provider}: issuer or subject is empty, or longer than an account's can be",
            user_message=f"login by {profile.provider} does not work; its settings need an operator",
        )
    is_subject = sa.and_(users.c.issuer == profile.issuer, users.c.subject == profile.subject)
    bound = (await connection.execute(sa.select(users.c.name).where(is_subject))).scalar()
    if bound not in (None, name):
        raise NameTaken(
            f"{profile.provider} account {profile.login!r} is user {bound!r}, not {name!r}",
            user_message="your account is known here under another user name",
        )
    if bound is None and await has_user(connection, name):
        raise NameTaken(
            f"user {name!r} is not bound to {profile.provider} account {profile.login!r}",
            user_message=f"the user name {name} belongs to another user here",
        )
    return bound is not None


# ------------------------------------------------------------------------------------- the waiting list


async def waitlist(
    connection: AsyncConnection, profile: Profile, name: str, key: PublicKey, source: str
) -> None:
    """See Directory.waitlist."""
    await serialise(connection)
    await _is_bound(connection, profile, name)
    record = await _onboarding_of(connection, profile)
    row = {
        "provider": profile.provider,
        "login": _clean(profile.login),
        "name": check_name(name),
        "full_name": profile.full_name,
        "email": _clean(profile.email),
        "groups": [_clean(group) for group in profile.groups],
        "uid": profile.uid,
        "algorithm": key.algorithm,
        "blob": key.blob,
        "fingerprint": key.fingerprint,
        "source_address": source,
        "status": OnboardingStatus.WAITLISTED.value,
        "decided_by": "",
        "decided_at": None,
    }
    if record is None:
        bound = {"issuer": profile.issuer, "subject": profile.subject, "created_at": _now()}
        await connection.execute(sa.insert(onboardings).values({**row, **bound}))
        return
    _refuse_rejected(record)
    await connection.execute(sa.update(onboardings).where(onboardings.c.id == record["id"]).values(row))


async def list_onboardings(connection: AsyncConnection) -> list[OnboardingRecord]:
    """See Directory.list_onboardings."""
    rows = await connection.execute(sa.select(onboardings).order_by(onboardings.c.id))
    return [_onboarding(row) for row in rows.mappings()]


async def approve(connection: AsyncConnection, uids: range, onboarding_id: int, by: str) -> OnboardingRecord:
    """See Directory.approve."""
    await serialise(connection)
    record, uid = await _undecided(connection, onboarding_id)
    account = record.account
    profile = Profile(
        provider=account.provider,
        issuer=account.issuer,
        subject=account.subject,
        login=account.login,
        name=record.name,
        full_name=record.full_name,
        email=record.email,
        groups=account.groups,
        uid=uid,
    )
    # Groups are as old as the request, because the provider was not asked since.
    await _let_in(connection, uids, profile, record.name, record.key, read_at=record.created_at)
    return await _decide(connection, onboarding_id, OnboardingStatus.APPROVED, by)


async def reject(connection: AsyncConnection, onboarding_id: int, by: str) -> OnboardingRecord:
    """See Directory.reject."""
    await serialise(connection)
    await _undecided(connection, onboarding_id)
    return await _decide(connection, onboarding_id, OnboardingStatus.REJECTED, by)


async def _undecided(connection: AsyncConnection, onboarding_id: int) -> tuple[OnboardingRecord, int | None]:
    query = sa.select(onboardings).where(onboardings.c.id == onboarding_id)
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise IdentityError(f"there is no onboarding {onboarding_id}")
    record = _onboarding(row)
    if record.status is OnboardingStatus.APPROVED:
        raise IdentityError(
            f"onboarding {onboarding_id} was approved by {record.decided_by}; "
            f"user {record.name} can be locked or removed"
        )
    return record, row["uid"]


async def _decide(
    connection: AsyncConnection, onboarding_id: int, status: OnboardingStatus, by: str
) -> OnboardingRecord:
    is_it = onboardings.c.id == onboarding_id
    decision = {"status": status.value, "decided_by": by, "decided_at": _now()}
    await connection.execute(sa.update(onboardings).where(is_it).values(decision))
    return _onboarding((await connection.execute(sa.select(onboardings).where(is_it))).mappings().one())


async def _onboarding_of(connection: AsyncConnection, profile: Profile) -> sa.RowMapping | None:
    is_account = sa.and_(onboardings.c.issuer == profile.issuer, onboardings.c.subject == profile.subject)
    return (await connection.execute(sa.select(onboardings).where(is_account))).mappings().first()


def _refuse_rejected(record: sa.RowMapping) -> None:
    if record["status"] == OnboardingStatus.REJECTED.value:
        raise OnboardingRejected(
            f"{record['provider']} account {record['login']!r} was rejected by {record['decided_by']}",
            user_message="an operator rejected your request to log in here",
        )


def _onboarding(row: sa.RowMapping) -> OnboardingRecord:
    return OnboardingRecord(
        id=row["id"],
        status=OnboardingStatus(row["status"]),
        name=row["name"],
        full_name=row["full_name"],
        email=row["email"],
        account=Account(row["provider"], row["issuer"], row["subject"], row["login"], tuple(row["groups"])),
        key=PublicKey(row["algorithm"], row["blob"]),
        source_address=row["source_address"],
        created_at=row["created_at"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
    )


def _clean(text: str) -> str:
    """Remove characters that no terminal should print and PostgreSQL does not store."""
    return "".join(character for character in text if character.isprintable())


def _now() -> datetime:
    return datetime.now(UTC)
