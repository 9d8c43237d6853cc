"""Bans in the file of one home, through which commands reach its proxy while NATS is away.

    command ──order──▶ file ──▶ HomeBans ──▶ Bans: in force here at once, shared with NATS later
    command ◀──list─── file ◀── HomeBans ◀── Bans: every ban that this proxy knows

Only an installation with NATS needs it: without NATS the bans themselves are in that file. A command whose
change NATS has taken leaves its order there too, since NATS may die before the change reaches this proxy:
`Announcer.BY_COMMAND`.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StateConflict, StateError
from proxy.events.publisher import Gap, Publisher
from proxy.events.schema import AddressUnbanned
from proxy.protection.bans import Ban, Bans, key_of, read
from proxy.protection.guard import ban_event
from proxy.shared.buckets import Bucket, Buckets, BucketSpec, Entry
from proxy.shared.file import POLL_S, FileBuckets

_log = structlog.get_logger("protection")

_MAX_ORDERS = 10_000
_LIFT_LIFE_S = 86_400.0
"""Seconds after which an order to lift a ban expires if no proxy took it.

An order to ban ends with the ban.
"""
_SHARED_LIFE_S = 60.0
"""Seconds after which an order that NATS has as well expires: a proxy that starts later hears of it there."""


class Announcer(StrEnum):
    """The publisher of the event about an order."""

    BY_PROXY = "proxy"
    """The proxy that takes the order; NATS does not have it."""
    BY_COMMAND = "command"
    """The command, which writes to NATS as well."""

    def life_s(self, left_s: float) -> float:
        """Return the seconds until an order expires that would otherwise live for `left_s`."""
        return left_s if self is Announcer.BY_PROXY else min(left_s, _SHARED_LIFE_S)


class _HomeBuckets:
    """The two buckets of the file."""

    def __init__(self, buckets: Buckets, max_sources: int) -> None:
        self.known: Bucket = buckets.open(BucketSpec("bans-known", max_entries=max_sources))
        self.orders: Bucket = buckets.open(BucketSpec("ban-orders", max_entries=_MAX_ORDERS))

    async def live(self) -> None:
        await self.known.live()
        await self.orders.live()


async def _put(bucket: Bucket, ban: Ban) -> None:
    """Store a ban until it ends. Raises: StateError."""
    if (left_s := ban.seconds_left(datetime.now(UTC))) > 0:
        await bucket.put(key_of(ban.source), ban.to_json(), ttl_s=left_s)


class HomeBans:
    """The proxy's side: takes orders from the file, and keeps a copy of the known bans there."""

    def __init__(
        self, file: Path, bans: Bans, publisher: Publisher, *, timeout_s: float, max_sources: int
    ) -> None:
        """Take the file and the bans; `timeout_s` bounds one operation of the file."""
        self._buckets = FileBuckets(file, timeout_s=timeout_s)
        self._home_buckets = _HomeBuckets(self._buckets, max_sources)
        self._bans = bans
        self._publisher = publisher
        self._tasks = TaskOwner("home-bans")

    def start(self) -> None:
        """Start; needs a running loop."""
        self._buckets.start()
        for name, work in (
            ("obey", self._obey),
            ("copy", self._copy),
            ("copy-unshared", self._copy_unshared),
        ):
            self._tasks.spawn(work(), name=name)

    async def close(self) -> None:
        """Stop the tasks; orders that were not taken stay in the file."""
        await self._tasks.close()
        await self._buckets.close()

    # ------------------------------------------------------------------------------------- orders

    async def _obey(self) -> None:
        watch = self._home_buckets.orders.watch()
        try:
            async for item in watch:
                entries = self._home_buckets.orders.entries() if isinstance(item, Gap) else [item.entry]
                for entry in entries:
                    if entry is not None:
                        await self._take(entry)
        finally:
            watch.close()

    async def _take(self, entry: Entry) -> None:
        """Execute one order, then delete it; a repeated execution changes nothing."""
        if (ban := read(entry)) is not None:
            if self._bans.find(ban.source) != ban:
                self._bans.begin(ban)
            await self._note(entry.key, ban)
            if _announcer(entry) is Announcer.BY_PROXY:
                self._publisher.publish(ban_event(ban))
                _log.warning("banned by a command while NATS is away", source=ban.source, actor=ban.actor)
        elif (lift := _Lift.read(entry)) is not None:
            self._bans.lift(lift.source, lift.at)
            if self._bans.find(lift.source) is None:
                await self._note(entry.key, None)
            if _announcer(entry) is Announcer.BY_PROXY:
                self._publisher.publish(AddressUnbanned(address=lift.source, actor=lift.actor))
                _log.info("let in by a command while NATS is away", source=lift.source, actor=lift.actor)
        try:
            await self._home_buckets.orders.delete(entry.key, entry.revision)
        except StateConflict:
            return  # a newer order, which comes next
        except StateError as exc:
            _log.warning("an order about a ban cannot be taken off the file", reason=str(exc))

    # --------------------------------------------------------------------------------- the copy

    async def _copy(self) -> None:
        await self._home_buckets.live()
        watch = self._bans.watch()
        try:
            async for item in watch:
                if isinstance(item, Gap):
                    await self._copy_all()
                else:
                    await self._note(item.key, None if item.entry is None else read(item.entry))
        finally:
            watch.close()

    async def _copy_all(self) -> None:
        bans = {key_of(ban.source): ban for ban in self._bans.all()}
        for entry in self._home_buckets.known.entries():
            if entry.key not in bans:
                await self._note(entry.key, None)
        for key, ban in bans.items():
            known = self._home_buckets.known.get(key)
            if known is None or known.value != ban.to_json():
                await self._note(key, ban)

    async def _copy_unshared(self) -> None:
        """Copy the bans that wait to be shared, which no watch reports."""
        await self._home_buckets.live()
        copied: dict[str, Ban] = {}
        while True:
            unshared = dict(self._bans.unshared)
            for source, ban in unshared.items():
                if copied.get(source) != ban:
                    await self._note(key_of(source), ban)
            for source in copied.keys() - unshared.keys():
                if self._bans.find(source) is None:  # lifted, not shared
                    await self._note(key_of(source), None)
            copied = unshared
            await asyncio.sleep(POLL_S)

    async def _note(self, key: str, ban: Ban | None) -> None:
        try:
            if ban is None:
                await self._home_buckets.known.delete(key)
            else:
                await _put(self._home_buckets.known, ban)
        except StateError as exc:
            _log.warning("a ban cannot be copied into the file of this home", key=key, reason=str(exc))


class HeldBans:
    """The command's side: the proxy's last known bans, and orders for it. See Bans."""

    def __init__(self, file: Path, *, timeout_s: float, max_sources: int) -> None:
        self._buckets = FileBuckets(file, timeout_s=timeout_s)
        self._home_buckets = _HomeBuckets(self._buckets, max_sources)

    async def open(self) -> None:
        """Open the file, which is created if missing."""
        self._buckets.start()
        await self._home_buckets.live()

    async def close(self) -> None:
        """Close the file."""
        await self._buckets.close()

    def all(self) -> list[Ban]:
        """Return every ban, in force or ordered, in the order of their ends."""
        found = {
            ban.source: ban
            for entry in self._home_buckets.known.entries()
            if (ban := read(entry)) is not None
        }
        for entry in self._home_buckets.orders.entries():
            if (ban := read(entry)) is not None:
                found[ban.source] = ban
            elif (lift := _Lift.read(entry)) is not None:
                found.pop(lift.source, None)
        return sorted(found.values(), key=lambda ban: ban.until)

    def find(self, source: str) -> Ban | None:
        """Return the ban of a source, or None."""
        return next((ban for ban in self.all() if ban.source == source), None)

    def offences(self, source: str) -> int:
        """Return the number of a source's bans that were remembered when its present one began."""
        ban = self.find(source)
        return 0 if ban is None else ban.offences

    async def add(self, ban: Ban, announcer: Announcer = Announcer.BY_PROXY) -> None:
        """Order a ban. Raises: StateError."""
        if (left_s := ban.seconds_left(datetime.now(UTC))) > 0:
            order = {**json.loads(ban.to_json()), "announcer": announcer}
            await self._order(ban.source, order, announcer.life_s(left_s))

    async def remove(self, source: str, actor: str, announcer: Announcer = Announcer.BY_PROXY) -> Ban | None:
        """Order the end of a source's ban, and return that ban. Raises: StateError."""
        ban = self.find(source)
        order = {"lift": source, "actor": actor, "at": datetime.now(UTC).timestamp(), "announcer": announcer}
        await self._order(source, order, announcer.life_s(_LIFT_LIFE_S))
        return ban

    async def _order(self, source: str, order: dict[str, object], life_s: float) -> None:
        await self._home_buckets.orders.put(key_of(source), json.dumps(order).encode(), ttl_s=life_s)


@dataclass(frozen=True, slots=True)
class _Lift:
    """An order to end the ban of a source."""

    source: str
    actor: str
    at: datetime
    """The time of the order; a younger ban stays."""

    @classmethod
    def read(cls, entry: Entry) -> "_Lift | None":
        """Return the order of an entry; None for anything else."""
        try:
            content = json.loads(entry.value)
            at = datetime.fromtimestamp(float(content["at"]), UTC) if "at" in content else datetime.now(UTC)
            return cls(str(content["lift"]), str(content["actor"]), at)
        except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
            return None


def _announcer(entry: Entry) -> Announcer:
    """Return the publisher of the event about an order; an older command leaves it to the proxy."""
    content: dict[str, object] = json.loads(entry.value)
    return Announcer.BY_COMMAND if content.get("announcer") == Announcer.BY_COMMAND else Announcer.BY_PROXY
