"""Where the pages of other replicas are: each tells, for as long as it runs, in a bucket that all share."""

import asyncio
from contextlib import suppress

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StateError
from proxy.http.handover import tag_of
from proxy.settings.onboarding import check_peer_url
from proxy.shared.buckets import Bucket, Buckets, BucketSpec

_log = structlog.get_logger("confirm")

_SPEC = BucketSpec("pages", max_entries=1_000)
_LIFE_S = 60.0
_TELL_S = 20.0
_RETRY_S = 2.0


class PageRegistry:
    """See identity.peers.Peers."""

    def __init__(self, buckets: Buckets, *, proxy_id: str, url: str) -> None:
        """`url` is where this replica's page is reached by the others."""
        self.own = tag_of(proxy_id)
        self._url = url
        self._bucket: Bucket = buckets.open(_SPEC)
        self._tasks = TaskOwner("replicas")

    def start(self) -> None:
        """Begin to tell; waits for nothing."""
        self._tasks.spawn(self._tell(), name="tell")

    async def close(self) -> None:
        """Tell that this replica is no more."""
        await self._tasks.close()
        with suppress(StateError):
            await self._bucket.delete(self.own)

    def page_of(self, tag: str) -> str | None:
        """See Peers. What others put into the bucket is not followed unless it is a plain URL."""
        entry = self._bucket.get(tag)
        if entry is None:
            return None
        with suppress(ValueError):
            return check_peer_url(entry.value.decode())
        return None

    async def _tell(self) -> None:
        is_told = True
        while True:
            await self._bucket.live()
            try:
                await self._bucket.put(self.own, self._url.encode(), ttl_s=_LIFE_S)
                is_told, pause_s = True, _TELL_S
            except StateError as exc:
                if is_told:  # once an outage
                    _log.warning("the other replicas cannot be told where the page is", reason=str(exc))
                is_told, pause_s = False, _RETRY_S
            await asyncio.sleep(pause_s)
