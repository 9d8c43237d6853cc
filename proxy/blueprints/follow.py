"""Follows a source that takes a while to ask, beside the road of logins, which it never holds up."""

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from proxy.aio import TaskOwner
from proxy.blueprints.catalog import Catalog
from proxy.blueprints.sources import Snapshot, Source
from proxy.errors import FairleadError
from proxy.errors.blueprints import BlueprintInvalid, BlueprintSourceFailed

_log = structlog.get_logger("blueprints")


class LastGood:
    """The last set that was taken into use, kept for a start at which the source does not answer."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Snapshot | None:
        """Give what was kept, or None."""
        try:
            kept = json.loads(self._file.read_bytes())
            files = {str(name): str(text).encode() for name, text in kept["files"].items()}
            return Snapshot(files, str(kept["revision"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, snapshot: Snapshot) -> None:
        """Replace what was kept; a directory that cannot be written to only costs the precaution."""
        content = {
            "revision": snapshot.revision,
            "files": {name: data.decode(errors="replace") for name, data in snapshot.files.items()},
        }
        fresh = self._file.with_name(self._file.name + ".new")
        try:
            fresh.write_text(json.dumps(content), encoding="utf-8")
            fresh.replace(self._file)
        except OSError as exc:
            _log.warning("blueprints not kept for the next start", why=exc.strerror)


async def first_catalog(source: Source, last_good: LastGood, metadata: Mapping[str, Any]) -> Catalog:
    """Read the source for the first time; what was last good stands in for one that cannot be used.

    Raises: BlueprintSourceFailed, BlueprintInvalid when nothing stands in.
    """
    try:
        snapshot = await source.fetch()
        catalog = Catalog(snapshot, metadata)
    except (BlueprintSourceFailed, BlueprintInvalid) as exc:
        kept = await asyncio.to_thread(last_good.read)
        if kept is None:
            raise
        _log.error("blueprints not read, those of the last time serve", why=str(exc), revision=kept.revision)
        return Catalog(kept, metadata)
    _log.info("blueprints read", names=sorted(catalog.current().definitions), revision=snapshot.revision)
    await asyncio.to_thread(last_good.write, snapshot)
    return catalog


class Follower:
    """Offers a catalog what its source holds, as often as `refresh_s` says."""

    def __init__(self, source: Source, catalog: Catalog, last_good: LastGood, refresh_s: float) -> None:
        self._source = source
        self._catalog = catalog
        self._last_good = last_good
        self._refresh_s = refresh_s
        self._offered = catalog.current().revision
        self._owner = TaskOwner("blueprints")

    def start(self) -> None:
        """Begin to follow."""
        self._owner.spawn(self._follow(), name="follow")

    async def refresh(self) -> None:
        """Ask once, and take what is new into use when it is good; a failure is told in the log."""
        try:
            snapshot = await self._source.fetch()
        except FairleadError as exc:  # whatever it is, the next time may be better
            _log.warning("blueprints not refreshed", why=str(exc), revision=self._catalog.current().revision)
            return
        if snapshot.revision == self._offered:
            return
        self._offered = snapshot.revision  # a broken one is told once, not every minute
        if self._catalog.offer(snapshot):
            await asyncio.to_thread(self._last_good.write, snapshot)

    async def close(self) -> None:
        """Stop following."""
        await self._owner.close()

    async def _follow(self) -> None:
        while True:
            # Replicas that started together should not ask together for ever.
            await asyncio.sleep(self._refresh_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            await self.refresh()
