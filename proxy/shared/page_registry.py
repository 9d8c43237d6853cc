"""A registry of the replicas' pages: each running replica keeps its URL in a shared bucket."""

import asyncio
from contextlib import suppress

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StateError
from proxy.http.handover import tag_of
from proxy.settings.urls import check_peer_url
from proxy.shared.buckets import Bucket, Buckets, BucketSpec

_log = structlog.get_logger("confirm")

_SPEC = BucketSpec("pages", max_entries=1_000)
_LIFE_S = 60.0
_PUBLISH_EVERY_S = 20.0
_RETRY_S = 2.0


class PageRegistry:
    """The registry of one replica; see http.handover.ReplicaPages."""

    def __init__(self, buckets: Buckets, *, proxy_id: str, url: str) -> None:
        """Take the buckets and `url`, at which the other replicas reach this replica's page."""
        self.own = tag_of(proxy_id)
        self._url = url
        self._bucket: Bucket = buckets.open(_SPEC)
        self._tasks = TaskOwner("replicas")

    def start(self) -> None:
        """Start to publish the URL; does not wait."""
        self._tasks.spawn(self._publish(), name="publish")

    async def close(self) -> None:
        """Remove this replica's URL."""
        await self._tasks.close()
        with suppress(StateError):
            await self._bucket.delete(self.own)

    def page_of(self, tag: str) -> str | None:
        """See ReplicaPages.

        A URL in the bucket is used only if it is a plain one, because others can write there.
        """
        entry = self._bucket.get(tag)
        if entry is None:
            return None
        with suppress(ValueError):
            return check_peer_url(entry.value.decode())
        return None

    async def _publish(self) -> None:
        is_published = True
        while True:
            await self._bucket.live()
            try:
                await self._bucket.put(self.own, self._url.encode(), ttl_s=_LIFE_S)
                is_published, pause_s = True, _PUBLISH_EVERY_S
            except StateError as exc:
                if is_published:  # logged once per outage
                    _log.warning("the other replicas cannot learn where the page is", reason=str(exc))
                is_published, pause_s = False, _RETRY_S
            await asyncio.sleep(pause_s)
