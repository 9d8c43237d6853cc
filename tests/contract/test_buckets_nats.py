"""What only NATS can do to a bucket: be shared, die, fall silent, forget, and refuse."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import StreamConfig

from proxy.errors.stores import StateConflict, StateError, StateRefused, StateUnavailable
from proxy.events.publisher import Gap
from proxy.settings.events import EventsSettings
from proxy.shared.buckets import Bucket, BucketSpec, Change, Entry, Watch
from proxy.shared.nats import NatsBuckets
from tests.contract.natsserver import NatsServer, free_port

PATIENCE_S = 60
SPEC = BucketSpec("things")

Replica = Callable[..., Bucket]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def replica(server: NatsServer) -> AsyncIterator[Replica]:
    """The bucket as one more proxy sees it."""
    made: list[NatsBuckets] = []

    def make(spec: BucketSpec = SPEC, url: str = server.url, **settings: Any) -> Bucket:
        values = {"reconnect_wait_s": 0.02, "reconnect_wait_max_s": 0.2} | settings
        buckets = NatsBuckets(EventsSettings(urls=(url,), **values), proxy_id=f"p{len(made)}")
        made.append(buckets)
        buckets.start()
        return buckets.open(spec)

    yield make
    for buckets in made:
        await buckets.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def live(*buckets: Bucket) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for bucket in buckets:
            await bucket.live()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def heard(watch: Watch) -> Change | Gap:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(watch)


def values(bucket: Bucket) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in bucket.entries()}


async def test_what_one_writes_all_know(replica: Replica) -> None:
    one, other = replica(), replica()
    await live(one, other)
    watch = other.watch()
    assert await heard(watch) == Gap(None)
    revision = await one.put("key", b"1")
    assert await heard(watch) == Change("key", Entry("key", b"1", revision))
    await other.update("key", b"2", revision)
    with pytest.raises(StateConflict):
        await one.update("key", b"3", revision)
    await one.delete("key")
    await until(lambda: other.get("key") is None)
    late = replica()
    await live(late)
    assert values(late) == {}


async def test_only_one_of_two_replicas_makes_an_entry(replica: Replica) -> None:
    buckets = [replica(), replica()]
    await live(*buckets)
    for number in range(20):
        wins = await asyncio.gather(
            *(bucket.update(f"key{number}", b"", 0) for bucket in buckets), return_exceptions=True
        )
        assert sorted(isinstance(win, StateConflict) for win in wins) == [False, True]


async def test_a_server_that_dies_takes_nothing_that_was_known(server: NatsServer, replica: Replica) -> None:
    one, other = replica(), replica()
    await live(one, other)
    await one.put("kept", b"1")
    await one.put("removed", b"1")
    await until(lambda: len(values(other)) == 2)
    watch = other.watch()
    assert await heard(watch) == Gap(None)
    server.kill()
    await until(lambda: not one.is_live and not other.is_live)
    assert values(other) == {"kept": b"1", "removed": b"1"}
    for act in (one.put("k", b""), one.update("k", b"", 0), one.delete("kept")):
        with pytest.raises(StateUnavailable):
            await act
    server.start()
    await live(one, other)
    assert await heard(watch) == Gap(None)
    await one.delete("removed")
    assert await heard(watch) == Change("removed", None)


async def test_what_changed_meanwhile_is_found_out(server: NatsServer, replica: Replica) -> None:
    one = replica()
    await live(one)
    await one.put("removed", b"1")
    await one.put("changed", b"1")
    watch = one.watch()
    assert await heard(watch) == Gap(None)
    server.kill()
    await until(lambda: not one.is_live)
    server.start()
    client = await nats.connect(server.url)
    store = await client.jetstream().key_value("fairlead_things")
    await store.delete("removed")
    await store.put("changed", b"2")
    await store.put("added", b"1")
    await client.close()
    await live(one)
    await until(lambda: values(one) == {"changed": b"2", "added": b"1"})
    assert await heard(watch) == Gap(None)


async def test_the_tools_of_nats_read_it(server: NatsServer, replica: Replica) -> None:
    one = replica()
    await live(one)
    await one.put("a.b", b"1", ttl_s=600)
    await one.put("gone", b"1")
    await one.delete("gone")
    client = await nats.connect(server.url)
    store = await client.jetstream().key_value("fairlead_things")
    assert (await store.get("a.b")).value == b"1"
    assert await store.keys() == ["a.b"]
    await client.close()


async def test_a_server_that_is_not_there_delays_nobody(replica: Replica) -> None:
    bucket = replica(url=f"nats://127.0.0.1:{free_port()}")
    await asyncio.sleep(0)
    assert bucket.get("key") is None
    with pytest.raises(StateUnavailable):
        await bucket.put("key", b"")


async def test_a_server_that_falls_silent_is_given_up(server: NatsServer, replica: Replica) -> None:
    bucket = replica(ack_timeout_s=0.3, keepalive_interval_s=0.3)
    await live(bucket)
    await bucket.put("key", b"1")
    server.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StateUnavailable):
            await bucket.put("key", b"2")
        await until(lambda: not bucket.is_live)
        assert bucket.get("key")
    finally:
        server.send_signal(signal.SIGCONT)
    await live(bucket)
    await until(lambda: values(bucket)["key"] in (b"1", b"2"))  # it may have been done all the same


async def test_a_quiet_bucket_stays_live(replica: Replica) -> None:
    bucket = replica(keepalive_interval_s=0.3)
    await live(bucket)
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert bucket.is_live


async def test_a_bucket_that_is_taken_away_is_made_again(server: NatsServer, replica: Replica) -> None:
    bucket = replica(keepalive_interval_s=0.3)
    await live(bucket)
    await bucket.put("key", b"1")
    client = await nats.connect(server.url)
    await client.jetstream().delete_stream("KV_fairlead_things")
    await client.close()
    await until(lambda: not bucket.entries())
    await live(bucket)
    assert await bucket.put("key", b"2")


async def test_whoever_stops_waiting_breaks_nothing(replica: Replica) -> None:
    bucket = replica()
    await live(bucket)
    for delay in range(10):
        task = asyncio.ensure_future(bucket.put(f"key{delay}", b"1"))
        await asyncio.sleep(delay / 2_000)
        task.cancel()
        await asyncio.wait([task])
        assert bucket.is_live
    assert await bucket.put("key", b"2")
    assert bucket.is_live


async def test_entries_end_on_a_server_that_cannot_end_them(server: NatsServer, replica: Replica) -> None:
    """As NATS before 2.11."""
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    await jetstream.add_stream(
        StreamConfig(
            name="KV_fairlead_things",
            subjects=["$KV.fairlead_things.>"],
            max_msgs_per_subject=1,
            allow_rollup_hdrs=True,
            allow_direct=True,
        )
    )
    store = await jetstream.key_value("fairlead_things")
    one, other = replica(), replica()
    await live(one, other)
    await one.put("key", b"1", ttl_s=0.5)
    await until(lambda: other.get("key"))
    await until(lambda: not one.get("key") and not other.get("key"))

    async def is_gone() -> bool:
        try:
            await store.get("key")
        except nats.js.errors.KeyNotFoundError:
            return True
        return False

    async with asyncio.timeout(PATIENCE_S):
        while not await is_gone():
            await asyncio.sleep(0.01)
    await client.close()


async def test_what_is_not_permitted_is_refused(tmp_path: Path, replica: Replica) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    users = [
        {"user": "all", "password": "x"},
        {"user": "some", "password": "x", "permissions": {"publish": {"deny": ["$KV.>"]}}},
    ]
    guarded = NatsServer(tmp_path / "guarded", config={"authorization": {"users": users}})
    guarded.start()
    try:
        login = {"password_file": password, "ack_timeout_s": 0.5}
        free, bound = (replica(url=guarded.url, user=user, **login) for user in ("all", "some"))
        await live(free, bound)
        await free.put("key", b"1")
        await until(lambda: values(bound) == {"key": b"1"})
        with pytest.raises(StateRefused):
            await bound.put("key", b"2")
        assert bound.is_live
        assert values(free) == {"key": b"1"}
    finally:
        guarded.kill()


async def test_a_bucket_that_strangers_fill_stays_bounded(replica: Replica) -> None:
    large, small = replica(), replica(BucketSpec("things", max_entries=5))
    await live(large, small)
    for number in range(20):
        await large.put(f"key{number}", b"1")
    with pytest.raises(StateError):
        await small.put("one-more", b"1")
    assert len(small.entries()) == 5
