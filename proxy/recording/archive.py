"""Reading of stored recordings: search, verification, and their lines in order."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from proxy.errors.stores import RecordingError, RecordingNotFound
from proxy.recording.chain import Verifier, line_splitter
from proxy.recording.lines import MAX_LINE_BYTES
from proxy.recording.manifest import Manifest, Signed, read
from proxy.recording.signing import Keyring
from proxy.recording.store import RecordingStore, StorageError

State = Literal["intact", "unfinished", "truncated", "changed", "unsigned"]
"""`unfinished`: without an end. It still runs, or the proxy was killed, or the end was removed."""


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The result of a verification."""

    state: State
    detail: str
    blocks: int
    """Number of valid blocks from the beginning."""
    size: int

    @property
    def is_sound(self) -> bool:
        """Return whether no tampering was found."""
        return self.state in ("intact", "unfinished")


@dataclass(slots=True)
class Listing:
    """Some recordings, the newest first."""

    found: list[Signed]
    unreadable: list[str]
    """Ids of recordings with a damaged manifest: one bad file hides no other."""


class Archive:
    """The recordings of a store."""

    def __init__(self, store: RecordingStore, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring

    async def newest(self, *, day: str = "", user: str = "", limit: int) -> Listing:
        """Return up to `limit` recordings, the newest first.

        Raises: RecordingError when the store does not answer.
        """
        listing = Listing([], [])
        try:
            for one in [day] if day else reversed(await self._store.days()):
                of_day = await self._of_day(one, listing)
                listing.found += [each for each in of_day if not user or each.manifest.user == user]
                if len(listing.found) >= limit:
                    break
        except StorageError as exc:
            raise _unreadable(exc) from exc
        del listing.found[limit:]
        return listing

    async def find(self, recording: str) -> Signed:
        """Return the recording with this id, or with an id that alone begins so.

        Raises: RecordingNotFound, RecordingError.
        """
        try:
            for day in reversed(await self._store.days()):
                ids = await self._store.ids(day, recording)
                if len(ids) > 1 and recording not in ids:
                    raise RecordingNotFound(f"{recording} may be any of: {', '.join(ids[:20])}")
                if ids:
                    return await self._read(day, recording if recording in ids else ids[0])
        except StorageError as exc:
            raise _unreadable(exc) from exc
        raise RecordingNotFound(f"there is no recording {recording}")

    async def lines(self, manifest: Manifest) -> AsyncIterator[bytes]:
        """Yield the lines of a body with their ends, unverified.

        Raises: RecordingError.
        """
        ready: deque[bytes] = deque()
        feed = line_splitter(ready.append, MAX_LINE_BYTES)
        try:
            async for piece in self._store.read(manifest.place):
                feed(piece)
                while ready:
                    yield ready.popleft()
        except StorageError as exc:
            raise _unreadable(exc) from exc
        feed(b"")
        while ready:
            yield ready.popleft()

    async def verify(self, found: Signed) -> VerificationResult:
        """Verify the chain from the first line to the last, and compare it with the manifest.

        Raises: RecordingError.
        """
        manifest = found.manifest
        verifier = Verifier(manifest.id, self._keyring, found.key)
        async for line in self.lines(manifest):
            verifier.feed(line)
        state, detail = _judge(found, verifier, known_key=self._keyring.find(found.key) is not None)
        return VerificationResult(state, detail, verifier.blocks, verifier.size)

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def _of_day(self, day: str, listing: Listing) -> list[Signed]:
        read = []
        for recording in await self._store.ids(day):
            try:
                read.append(await self._read(day, recording))
            except RecordingError:
                listing.unreadable.append(recording)
        return sorted(read, key=lambda each: each.manifest.started_at, reverse=True)

    async def _read(self, day: str, recording: str) -> Signed:
        raw = await self._store.manifest(day, recording)
        found = None if raw is None else read(raw, self._keyring)
        if found is None or found.manifest.id != recording:
            raise RecordingError(f"the manifest of recording {recording} of {day} cannot be read")
        return found


def _judge(found: Signed, verifier: Verifier, *, known_key: bool) -> tuple[State, str]:
    manifest = found.manifest
    if known_key and not found.trusted:
        return "changed", "the manifest is not what was signed"
    if verifier.broken is not None:
        broken = verifier.broken
        return "changed", f"block {broken.block} (up to line {broken.line}) does not hold: {broken.reason}"
    if manifest.ended_at is None:
        tail = f", and {verifier.open_bytes} bytes that nothing vouches for" if verifier.open_bytes else ""
        return "unfinished", f"it still runs, or its end was never stored: {verifier.blocks} blocks{tail}"
    if verifier.blocks < manifest.blocks:
        return "truncated", f"{manifest.blocks} blocks were stored, {verifier.blocks} are there"
    if verifier.open_bytes or (verifier.blocks, verifier.last) != (manifest.blocks, _last(manifest)):
        return "changed", f"something was added behind block {min(verifier.blocks, manifest.blocks)}"
    if not known_key:
        return "unsigned", f"the chain holds, but {found.key} is no key that is trusted here"
    gaps = f"; {manifest.gaps} gaps were marked while storage was down" if manifest.gaps else ""
    return "intact", f"{verifier.blocks} blocks, {verifier.size} bytes{gaps}"


def _last(manifest: Manifest) -> str:
    return manifest.last or "0" * 64


def _unreadable(exc: StorageError) -> RecordingError:
    return RecordingError(f"the store of recordings cannot be read: {exc}")
