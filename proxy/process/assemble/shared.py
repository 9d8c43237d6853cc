"""Shared state: NATS if it is configured, else a file under `home`."""

from proxy.settings import Settings
from proxy.shared.buckets import Buckets
from proxy.shared.file import FileBuckets


def open_buckets(settings: Settings) -> Buckets:
    """Return the configured buckets, not started yet; for the proxy and for commands."""
    events = settings.events
    if not events.urls:
        return FileBuckets(settings.shared_file, timeout_s=events.ack_timeout_s)
    from proxy.shared.nats import (
        NatsBuckets,  # nats-py is slow to import, and most laptops have no NATS
    )

    return NatsBuckets(events, proxy_id=settings.proxy_id)
