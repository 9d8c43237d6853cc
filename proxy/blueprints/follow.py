"""Following of a remote source in the background, so that logins never wait for it."""

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
    """The last good set, stored for a start during an outage of the source."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Snapshot | None:
        """Return the stored set; None if there is none."""
        try:
            kept = json.loads(self._file.read_bytes())
            files = {str(name): str(text).encode() for name, text in kept["files"].items()}
            return Snapshot(files, str(kept["revision"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, snapshot: Snapshot) -> None:
        """Replace the stored set; a directory that cannot be written is only logged."""
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
    """Read the source for the first time; use the last good set if that fails.

    Raises: BlueprintSourceFailed, BlueprintInvalid when there is no last good set.
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
    """The task that offers the contents of a source to a catalog every `refresh_s` seconds."""

    def __init__(self, source: Source, catalog: Catalog, last_good: LastGood, refresh_s: float) -> None:
        self._source = source
        self._catalog = catalog
        self._last_good = last_good
        self._refresh_s = refresh_s
        self._offered = catalog.current().revision
        self._owner = TaskOwner("blueprints")

    def start(self) -> None:
        """Start following."""
        self._owner.spawn(self._follow(), name="follow")

    async def refresh(self) -> None:
        """Fetch once, and use a new set if it is good; a failure is logged."""
        try:
            snapshot = await self._source.fetch()
        except FairleadError as exc:  # every kind of failure may end by the next round
            _log.warning("blueprints not refreshed", why=str(exc), revision=self._catalog.current().revision)
            return
        if snapshot.revision == self._offered:
            return
        self._offered = snapshot.revision  # so that a broken set is logged once, not every minute
        if self._catalog.offer(snapshot):
            await asyncio.to_thread(self._last_good.write, snapshot)

    async def close(self) -> None:
        """Stop following."""
        await self._owner.close()

    async def _follow(self) -> None:
        while True:
            # Replicas that started together should not fetch together for ever.
            await asyncio.sleep(self._refresh_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            await self.refresh()
