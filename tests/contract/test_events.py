"""What every Bus promises, run on the one in this process and on NATS with and without JetStream."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.events import schema, subjects
from proxy.events.inprocess import InProcessBus
from proxy.events.natsbus import NatsBus
from proxy.events.publisher import Bus, Gap, Message, Subscription
from proxy.settings.events import EventsSettings
from tests.contract.natsserver import NatsServer

PATIENCE_S = 30
QUEUE_SIZE = 4

MakeBus = Callable[[], Bus]


@pytest.fixture(params=["in-process", "nats-core", "nats-stream"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[NatsServer | None]:
    if kind == "in-process":
        yield None
        return
    server = NatsServer(tmp_path / "nats", jetstream=kind == "nats-stream")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bus(server: NatsServer | None) -> AsyncIterator[Bus]:
    bus: Bus = (
        InProcessBus(proxy_id="p1", subscription_queue_size=QUEUE_SIZE)
        if server is None
        else NatsBus(EventsSettings(urls=(server.url,), subscription_queue_size=QUEUE_SIZE), proxy_id="p1")
    )
    bus.start()
    yield bus
    await bus.close(PATIENCE_S)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def listening(bus: Bus, pattern: str) -> Subscription:
    subscription = bus.subscribe(pattern)
    async with asyncio.timeout(PATIENCE_S):
        await subscription.live()
        assert await anext(subscription) == Gap(None)
    return subscription


async def heard(subscription: Subscription) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        item = await anext(subscription)
    assert isinstance(item, Message)
    return item.subject, json.loads(item.data)


async def all_published(bus: Bus, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while bus.counters.published < count:
            await asyncio.sleep(0.01)


async def test_a_failed_authentication_arrives_as_documented(bus: Bus) -> None:
    subscription = await listening(bus, subjects.AUTH_FAILED)
    bus.publish(
        schema.AuthFailed(
            id="01890a5d-ac96-774b-bcce-b302099a8057",
            time=datetime(2026, 2, 3, 4, 5, 6, 789_999, tzinfo=UTC),
            user="alice",
            client_address="2001:db8::7",
            client_port=50_022,
            client_version="OpenSSH_9.2",
            connection_id="c1",
            methods=("publickey", "keyboard-interactive"),
            reasons=("key_unknown", "login.refused"),
            fingerprints=("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",),
        )
    )
    assert await heard(subscription) == (
        "fairlead.auth.failed",
        {
            "specversion": "1.0",
            "id": "01890a5d-ac96-774b-bcce-b302099a8057",
            "source": "/fairlead/proxy/p1",
            "type": "fairlead.auth.failed",
            "time": "2026-02-03T04:05:06.789Z",
            "datacontenttype": "application/json",
            "subject": "alice",
            "data": {
                "user": "alice",
                "client_address": "2001:db8::7",
                "client_port": 50_022,
                "client_version": "OpenSSH_9.2",
                "connection_id": "c1",
                "methods": ["publickey", "keyboard-interactive"],
                "reasons": ["key_unknown", "login.refused"],
                "fingerprints": ["SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"],
                "proxy_id": "p1",
            },
        },
    )


async def test_every_event_arrives_on_its_subject_with_its_fields(bus: Bus) -> None:
    subscription = await listening(bus, subjects.ALL)
    for subject, payload in subjects.TABLE.items():
        event = payload(user="bob")
        bus.publish(event)
        arrived, envelope = await heard(subscription)
        assert arrived == envelope["type"] == subject
        assert (envelope["id"], envelope["subject"]) == (event.id, "bob")
        names = {item.name for item in fields(payload)} - {"id", "time"}
        assert set(envelope["data"]) == names | {"proxy_id"}


async def test_wildcards_are_those_of_nats(bus: Bus) -> None:
    patterns = ("fairlead.user.*", "fairlead.*.locked", "fairlead.*.*", "fairlead.>", "fairlead.user.locked")
    subscriptions = {pattern: await listening(bus, pattern) for pattern in patterns}
    deaf = [await listening(bus, pattern) for pattern in ("fairlead.*", "fairlead.user.locked.>")]
    sent = (schema.AuthFailed(), schema.UserLocked(user="a"), schema.UserUnlocked(user="a"))
    for event in sent:
        bus.publish(event)
    wanted = {
        "fairlead.user.*": ["fairlead.user.locked", "fairlead.user.unlocked"],
        "fairlead.*.locked": ["fairlead.user.locked"],
        "fairlead.*.*": ["fairlead.auth.failed", "fairlead.user.locked", "fairlead.user.unlocked"],
        "fairlead.>": ["fairlead.auth.failed", "fairlead.user.locked", "fairlead.user.unlocked"],
        "fairlead.user.locked": ["fairlead.user.locked"],
    }
    for pattern, expected in wanted.items():
        assert [(await heard(subscriptions[pattern]))[0] for _ in expected] == expected
    for subscription in (*subscriptions.values(), *deaf):  # and nothing more
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(subscription)


@pytest.mark.parametrize(
    "pattern",
    ["", "fairlead", ">", "*.user.locked", "other.>", "fairlead.>.x", "fairlead..x", "fairlead.a b"],
)
async def test_a_pattern_that_is_none_of_ours_is_an_error(bus: Bus, pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        bus.subscribe(pattern)


async def test_a_slow_reader_misses_the_oldest_and_is_told(bus: Bus) -> None:
    slow, fast = await listening(bus, subjects.ALL_USER), await listening(bus, subjects.ALL_USER)
    names = [f"user-{number}" for number in range(10)]
    for name in names:
        bus.publish(schema.UserLocked(user=name))
        assert (await heard(fast))[1]["subject"] == name
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(slow) == Gap(len(names) - QUEUE_SIZE)
    assert [(await heard(slow))[1]["subject"] for _ in range(QUEUE_SIZE)] == names[-QUEUE_SIZE:]
    assert bus.counters.dropped == 0


async def test_a_closed_subscription_ends_its_reader_and_no_other(bus: Bus) -> None:
    closed, other = await listening(bus, subjects.ALL), await listening(bus, subjects.ALL)
    reader = asyncio.create_task(anext(closed, None))
    await asyncio.sleep(0)
    closed.close()
    closed.close()
    assert await reader is None
    bus.publish(schema.UserLocked(user="a"))
    assert (await heard(other))[0] == "fairlead.user.locked"
    assert [item async for item in closed] == []


async def test_an_event_that_cannot_be_rendered_costs_nothing_else(bus: Bus) -> None:
    class Unknown(schema.Event):
        """Without a row in the table."""

    subscription = await listening(bus, subjects.ALL)
    bus.publish(Unknown(user="a"))
    bus.publish(schema.UserLocked(user="b"))
    assert (await heard(subscription))[1]["subject"] == "b"
    await all_published(bus, 1)
    assert (bus.counters.published, bus.counters.failed) == (1, 1)


async def test_closing_delivers_what_waits_and_ends_every_reader(bus: Bus) -> None:
    subscription = await listening(bus, subjects.ALL)
    reader = asyncio.create_task(_drain(subscription))
    for number in range(3):
        bus.publish(schema.UserLocked(user=f"user-{number}"))
    await bus.close(PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        await reader
    assert (bus.counters.published, bus.counters.dropped, bus.pending) == (3, 0, 0)
    bus.publish(schema.UserLocked(user="late"))
    assert (bus.counters.published, bus.counters.dropped, bus.pending) == (3, 1, 0)
    assert [item async for item in bus.subscribe(subjects.ALL)] == []
    await bus.close(PATIENCE_S)


async def _drain(subscription: Subscription) -> None:
    async for _ in subscription:
        pass
