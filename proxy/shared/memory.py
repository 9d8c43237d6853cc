"""Buckets of one process, in memory."""

from proxy.errors.stores import StateConflict, StateRefused
from proxy.shared.bucket_cache import CachedBucket
from proxy.shared.buckets import Bucket, BucketSpec, Entry, check, shorter


class MemoryBuckets:
    """Buckets that end with this process; see Buckets."""

    def __init__(self) -> None:
        self._buckets: dict[str, MemoryBucket] = {}

    def open(self, spec: BucketSpec) -> Bucket:
        """See Buckets."""
        return self._buckets.setdefault(spec.name, MemoryBucket(spec))

    def start(self) -> None:
        """Do nothing; see Buckets."""

    async def close(self) -> None:
        """See Buckets."""
        for bucket in self._buckets.values():
            bucket.close()


class MemoryBucket(CachedBucket):
    """A bucket of one process; see Bucket. It is live at once, because there is no other writer."""

    def __init__(self, spec: BucketSpec) -> None:
        super().__init__(spec)
        self._live.set()
        self._revision = 0

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        check(self._spec, key, value)
        self._revision += 1
        if not self._cache.set(Entry(key, value, self._revision), shorter(ttl_s, self._spec.ttl_s)):
            raise StateRefused(f"{self.name}: full with {self._spec.max_entries} entries")
        return self._revision

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        check(self._spec, key, value)
        self._expect(key, revision)
        return await self.put(key, value, ttl_s=ttl_s)

    async def delete(self, key: str, revision: int | None = None) -> None:
        """See Bucket."""
        check(self._spec, key)
        if revision is not None:
            self._expect(key, revision)
        self._revision += 1
        self._cache.remove(key)

    def _expect(self, key: str, revision: int) -> None:
        entry = self._cache.get(key)
        if (entry.revision if entry else 0) != revision:
            raise StateConflict(f"{self.name}: {key} was changed by another writer")
