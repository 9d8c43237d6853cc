"""Bans that all replicas share: one entry per source, which ends with the ban.

Past bans are counted beside it.
"""

import asyncio
import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog

from proxy.addresses import source_of
from proxy.aio import TaskOwner
from proxy.errors.stores import StateError, StateRefused
from proxy.shared.buckets import Bucket, Buckets, BucketSpec, Entry, Watch

_log = structlog.get_logger("protection")

RETRY_S = 1.0
FOR_EVER_S = 10 * 365 * 86_400.0
"""Seconds of a ban that an operator sets without an end: ten years."""


@dataclass(frozen=True, slots=True)
class Ban:
    """A banned source."""

    source: str
    """The source as `addresses.source_of` names it."""
    since: datetime
    until: datetime
    reasons: tuple[str, ...]
    """Words of docs/events.md, of the last failure before the ban; or what an operator wrote."""
    actor: str
    """Who decided: `rule:failures`, or the operator as `cli:<OS user>`."""
    offences: int = 0
    """Earlier bans of this source that are remembered."""

    @property
    def is_order(self) -> bool:
        """Return whether an operator decided; then no key of a known user is an exception."""
        return not self.actor.startswith("rule:")

    def seconds_left(self, now: datetime) -> float:
        """Return the seconds until the ban ends; negative after its end."""
        return (self.until - now).total_seconds()

    def to_json(self) -> bytes:
        """Encode the ban for `from_json`."""
        return json.dumps(
            {
                "source": self.source,
                "since": self.since.timestamp(),
                "until": self.until.timestamp(),
                "reasons": self.reasons,
                "actor": self.actor,
                "offences": self.offences,
            }
        ).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self | None:
        """Decode a ban of `to_json`.

        None for anything else, because other programs may write to the bucket.
        """
        try:
            fields = json.loads(data)
            return cls(
                source=str(fields["source"]),
                since=datetime.fromtimestamp(float(fields["since"]), UTC),
                until=datetime.fromtimestamp(float(fields["until"]), UTC),
                reasons=tuple(str(reason) for reason in fields["reasons"]),
                actor=str(fields["actor"]),
                offences=int(fields["offences"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
            return None


def key_of(source: str) -> str:
    """Return the bucket key of a source; bucket keys may not contain a colon."""
    return source.replace(":", "_")


class Bans:
    """The bans in force now. A look-up costs one dictionary access; a change takes effect here at once.

    A ban that cannot be shared now takes effect here all the same, and is shared later.
    """

    def __init__(self, buckets: Buckets, *, max_sources: int, memory_s: float) -> None:
        self._bans: Bucket = buckets.open(BucketSpec("bans", max_entries=max_sources))
        self._past: Bucket = buckets.open(BucketSpec("offences", max_entries=max_sources, ttl_s=memory_s))
        self._max_sources = max_sources
        self._unshared: dict[str, Ban] = {}
        self._lifted: dict[str, datetime] = {}
        self._tasks = TaskOwner("bans")

    async def live(self) -> None:
        """Return when the bans of the other replicas are known."""
        await self._bans.live()
        await self._past.live()

    async def close(self) -> None:
        """Stop the tasks of this object."""
        await self._tasks.close()

    def find(self, source: str) -> Ban | None:
        """Return the ban of a source that is in force now, or None."""
        if (ban := self._unshared.get(source)) is None:
            entry = self._bans.get(key_of(source))
            ban = None if entry is None else Ban.from_json(entry.value)
        return ban if ban is not None and self._holds(ban, datetime.now(UTC)) else None

    def _holds(self, ban: Ban, now: datetime) -> bool:
        lifted_at = self._lifted.get(ban.source)
        return ban.seconds_left(now) > 0 and (lifted_at is None or ban.since > lifted_at)

    @property
    def unshared(self) -> Mapping[str, Ban]:
        """Return the bans in force here that are not shared yet, by source."""
        return self._unshared

    def all(self) -> list[Ban]:
        """Return every ban, in the order of their ends."""
        found = {ban.source: ban for ban in _read(self._bans.entries())} | self._unshared
        now = datetime.now(UTC)
        return sorted((ban for ban in found.values() if self._holds(ban, now)), key=lambda ban: ban.until)

    def offences(self, source: str) -> int:
        """Return the number of bans of a source that are remembered."""
        entry = self._past.get(key_of(source))
        return int(entry.value) if entry is not None and entry.value.isdigit() else 0

    def begin(self, ban: Ban) -> None:
        """Ban from now on, and share the ban as soon as possible."""
        if len(self._unshared) < self._max_sources:
            self._unshared[ban.source] = ban
            self._tasks.spawn(self._share(ban), name="share")

    async def _share(self, ban: Ban) -> None:
        try:
            while self._unshared.get(ban.source) is ban and ban.seconds_left(datetime.now(UTC)) > 0:
                try:
                    await self.add(ban)
                except StateRefused as exc:
                    _log.warning("ban cannot be shared", source=ban.source, reason=str(exc))
                    await asyncio.sleep(max(0.0, ban.seconds_left(datetime.now(UTC))))
                except StateError:  # the connection logs it
                    await asyncio.sleep(RETRY_S)
                else:
                    return
        finally:
            if self._unshared.get(ban.source) is ban:
                del self._unshared[ban.source]

    def lift(self, source: str, at: datetime | None = None) -> None:
        """End the ban of a source here at once, and on the other replicas as soon as possible.

        `at` is the time of the decision, now by default; a ban that began later holds.
        """
        if len(self._lifted) < self._max_sources:
            at = self._lifted[source] = at or datetime.now(UTC)
            if (unshared := self._unshared.get(source)) is not None and unshared.since <= at:
                del self._unshared[source]
            self._tasks.spawn(self._share_lift(source, at), name="share lift")

    async def _share_lift(self, source: str, at: datetime) -> None:
        try:
            while self._lifted.get(source) == at and self._is_from_before(source, at):
                try:
                    await self.remove(source)
                except StateError:
                    await asyncio.sleep(RETRY_S)
                else:
                    return
        finally:
            if self._lifted.get(source) == at:
                del self._lifted[source]

    def _is_from_before(self, source: str, at: datetime) -> bool:
        """Return whether no ban of a source is younger than `at`."""
        entry = self._bans.get(key_of(source))
        ban = self._unshared.get(source) or (None if entry is None else read(entry))
        return ban is None or ban.since <= at

    async def add(self, ban: Ban) -> None:
        """Ban on every replica. Raises: StateError."""
        key, left_s = key_of(ban.source), ban.seconds_left(datetime.now(UTC))
        await self._bans.put(key, ban.to_json(), ttl_s=max(0.001, left_s))
        await self._past.put(key, str(ban.offences + 1).encode())

    async def remove(self, source: str) -> Ban | None:
        """End the ban of a source and forget its past; return that ban, if any.

        Raises: StateError.
        """
        ban = self.find(source)
        self._unshared.pop(source, None)
        await self._bans.delete(key_of(source))
        await self._past.delete(key_of(source))
        return ban

    def watch(self) -> Watch:
        """Return a watch of every change; decode its entries with `read`."""
        return self._bans.watch()


def read(entry: Entry) -> Ban | None:
    """Decode an entry of a watch."""
    return Ban.from_json(entry.value)


def _read(entries: Iterable[Entry]) -> list[Ban]:
    return [ban for entry in entries if (ban := read(entry)) is not None]


def order(address: str, length_s: float, reason: str, actor: str) -> Ban:
    """Return the ban that an operator requests. Raises: ValueError for text that is no address."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"{address!r} is not an IPv4 or IPv6 address") from None
    source = source_of(address)
    now = datetime.now(UTC)
    return Ban(source, now, now + timedelta(seconds=length_s), (reason,) if reason else (), actor)
