"""Import of many users from a file: all in one transaction, or none with every problem listed."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.identity import registration
from proxy.identity.directory import ImportResult, UserChange, UserEntry
from proxy.identity.schema import users


async def import_users(
    connection: AsyncConnection, uids: range, entries: Sequence[UserEntry]
) -> ImportResult:
    """Apply the valid entries; the caller rolls back when there are problems."""
    await registration.serialise(connection)
    changes, problems = [], []
    # Requested numbers go first, so that no other user is given one of them by chance.
    for entry in sorted(entries, key=lambda entry: entry.uid is None):
        problem, change = await _apply(connection, uids, entry)
        if problem:
            problems.append(f"{entry.where} ({entry.name}): {problem}")
        elif change is not None:
            changes.append(change)
    order = {entry.name: number for number, entry in enumerate(entries)}
    return ImportResult(tuple(sorted(changes, key=lambda change: order[change.name])), tuple(problems))


async def _apply(connection: AsyncConnection, uids: range, entry: UserEntry) -> tuple[str, UserChange | None]:
    query = sa.select(users).where(users.c.name == entry.name)
    known = (await connection.execute(query)).mappings().first()
    if entry.uid is not None:
        if known is not None and known["uid"] != entry.uid:
            return f"has uid {known['uid']}, which does not change", None
        owner = await registration.owner_of_uid(connection, entry.uid)
        if owner not in (None, entry.name):
            return f"uid {entry.uid} is user {owner}'s", None
    given: dict[str, Any] = {
        name: value
        for name in ("full_name", "email", "expires_at", "locked")
        if (value := getattr(entry, name)) is not None
    }
    if known is None:
        await registration.insert_user(connection, uids, {"name": entry.name, **given}, entry.uid)
        changed = given
    else:
        changed = {name: value for name, value in given.items() if known[name] != value}
        if changed:
            await connection.execute(sa.update(users).where(users.c.name == entry.name).values(changed))
    keys = tuple(
        [
            key
            for key in entry.keys
            if await registration.insert_key(connection, entry.name, key, registration.STATIC)
        ]
    )
    action = "add" if known is None else "change" if changed or keys else "same"
    was_locked = known is not None and known["locked"]
    locked = changed.get("locked")
    return "", UserChange(entry.name, action, keys, None if locked == was_locked else locked)
