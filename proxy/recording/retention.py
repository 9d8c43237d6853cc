"""Deletion of expired recordings: the oldest days first, in bounded batches, by every replica."""

import asyncio
import random
from datetime import UTC, datetime

import structlog

from proxy.recording.manifest import Place, read
from proxy.recording.signing import Keyring
from proxy.recording.store import RecordingStore, StorageError
from proxy.settings.recording import RecordingSettings

_log = structlog.get_logger("recording")


class Sweeper:
    """The deletion task: it checks `sweep_batch_size` recordings every `sweep_interval_s` seconds.

    Each batch continues where the last one stopped.
    """

    def __init__(self, store: RecordingStore, settings: RecordingSettings, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self._settings = settings
        self._last = ("", "")
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Delete until stopped."""
        while not await self._stopped_within(self._settings.sweep_interval_s * random.uniform(0.5, 1)):  # noqa: S311
            try:
                await self.sweep(datetime.now(UTC))
            except StorageError as exc:
                _log.warning("expired recordings not looked for", reason=str(exc))

    def stop(self) -> None:
        """Stop soon."""
        self._stopping.set()

    async def sweep(self, now: datetime) -> int:
        """Delete those of the next batch that expired before `now`; return their number.

        Raises: StorageError.
        """
        deleted = seen = 0
        for day in await self._store.days():
            if day < self._last[0]:
                continue
            for recording in await self._store.ids(day):
                if (day, recording) <= self._last:
                    continue
                if seen >= self._settings.sweep_batch_size:
                    return deleted
                seen += 1
                self._last = (day, recording)
                deleted += await self._delete_if_expired(day, recording, now)
        self._last = ("", "")
        return deleted

    async def _delete_if_expired(self, day: str, recording: str, now: datetime) -> bool:
        raw = await self._store.manifest(day, recording)
        found = read(raw, self._keyring) if raw is not None else None
        # A manifest that was tampered with is evidence, and no reason to delete anything.
        if found is None or not found.trusted:
            return False
        if (expires_at := found.manifest.expires_at) is None or expires_at > now:
            return False
        await self._store.delete(Place(day, recording, found.manifest.format))
        _log.info("recording deleted: expired", recording=recording, day=day)
        return True

    async def _stopped_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True
