"""Shared state: NATS if it is configured, else a file under `home`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.process.parts import running
from proxy.settings import Settings
from proxy.shared.buckets import Buckets
from proxy.shared.file import FileBuckets


@asynccontextmanager
async def open_buckets(settings: Settings) -> AsyncIterator[Buckets]:
    """Hold the configured buckets, for the proxy and for commands. Neither kind is waited for."""
    async with running(_buckets(settings)) as buckets:
        yield buckets


def _buckets(settings: Settings) -> Buckets:
    events = settings.events
    if not events.urls:
        return FileBuckets(settings.shared_file, timeout_s=events.ack_timeout_s)
    from proxy.shared.nats import NatsBuckets  # nats-py is slow to import, and most laptops have no NATS

    return NatsBuckets(events, proxy_id=settings.proxy_id)
