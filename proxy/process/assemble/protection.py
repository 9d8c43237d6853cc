"""Protection before the login: bans that replicas share, the hook, the guard of every listener."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from proxy.process.assemble.common import Common
from proxy.process.parts import closing, running
from proxy.protection.bans import Bans
from proxy.protection.guard import Guard
from proxy.protection.home_bans import HomeBans
from proxy.protection.hook import Hook


@asynccontextmanager
async def open_guard(common: Common) -> AsyncIterator[Guard]:
    """Hold the guard; bans of other replicas and of the last run apply as soon as they are read."""
    settings, bus, buckets = common.settings, common.bus, common.buckets
    rules, events = settings.protection.bans, settings.events
    most = rules.max_sources
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        bans = await enter(closing(Bans(buckets, max_sources=most, memory_s=rules.memory_s)))
        if events.urls:
            file, timeout_s = settings.shared_file, events.ack_timeout_s
            await enter(running(HomeBans(file, bans, bus, timeout_s=timeout_s, max_sources=most)))
        await enter(running(Hook(rules, bans)))
        guard = Guard(settings.protection, bans, bus)
        _add_values(common, guard)
        yield guard


def _add_values(common: Common, guard: Guard) -> None:
    health = common.health
    health.add_gauge(
        "fairlead_connections_unauthenticated",
        "SSH connections that are not logged in.",
        lambda: guard.unauthenticated,
    )
    health.add_gauge("fairlead_bans", "Addresses that are banned now.", lambda: guard.banned)
    health.add_counter(
        "fairlead_connections_refused",
        "Connections not heard, by why; see docs/protection.md.",
        {word: partial(guard.refused.__getitem__, word) for word in guard.refused},
    )
