"""The values that the other parts are assembled from: settings, health page, events, shared state."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy.events.inprocess import InProcessBus
from proxy.events.publisher import Bus
from proxy.process.assemble.shared import open_buckets
from proxy.process.health import Health
from proxy.settings import Settings
from proxy.shared.buckets import Buckets


@dataclass(frozen=True, slots=True)
class Common:
    """The values that any part may use."""

    settings: Settings
    """All of them; a part passes only its own section on."""
    health: Health
    """Each part adds its own values to it."""
    bus: Bus
    buckets: Buckets


@asynccontextmanager
async def open_common(settings: Settings) -> AsyncIterator[Common]:
    """Hold the common values. No server is waited for."""
    health = Health(settings.health)
    async with open_bus(settings) as bus, open_buckets(settings) as buckets:
        counters = bus.counters
        health.add_counter(
            "fairlead_events",
            "Events by what became of them; see docs/events.md.",
            {
                "published": lambda: counters.published,
                "dropped": lambda: counters.dropped,
                "failed": lambda: counters.failed,
            },
        )
        yield Common(settings, health, bus, buckets)


@asynccontextmanager
async def open_bus(settings: Settings) -> AsyncIterator[Bus]:
    """Hold NATS if it is configured, else a bus inside the process. Events are flushed on leaving."""
    events = settings.events
    bus: Bus
    if events.urls:
        from proxy.events.natsbus import NatsBus  # nats-py is slow to import, and most laptops have no NATS

        bus = NatsBus(events, proxy_id=settings.proxy_id)
    else:
        bus = InProcessBus(proxy_id=settings.proxy_id, subscription_queue_size=events.subscription_queue_size)
    bus.start()
    try:
        yield bus
    finally:
        await bus.close(events.close_timeout_s)
