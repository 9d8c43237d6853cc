"""What every Bucket promises, run on those of this process, of this machine and of a real NATS."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.errors.stores import StateConflict, StateRefused
from proxy.events.publisher import Gap
from proxy.settings.events import EventsSettings
from proxy.shared.buckets import MAX_VALUE_BYTES, Bucket, Buckets, BucketSpec, Change, Entry, Watch
from proxy.shared.file import FileBuckets
from proxy.shared.memory import MemoryBuckets
from proxy.shared.nats import NatsBuckets
from tests.contract.natsserver import NatsServer

PATIENCE_S = 30
SPEC = BucketSpec("things", max_entries=8, watch_size=4)


@pytest.fixture(params=["memory", "file", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[NatsServer | None]:
    if kind != "nats":
        yield None
        return
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def buckets(kind: str, server: NatsServer | None, tmp_path: Path) -> AsyncIterator[Buckets]:
    buckets: Buckets
    if server is not None:
        buckets = NatsBuckets(EventsSettings(urls=(server.url,)), proxy_id="p1")
    elif kind == "file":
        buckets = FileBuckets(tmp_path / "shared.db", timeout_s=PATIENCE_S)
    else:
        buckets = MemoryBuckets()
    buckets.start()
    yield buckets
    await buckets.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def bucket(buckets: Buckets) -> Bucket:
    return await opened(buckets, SPEC)


async def opened(buckets: Buckets, spec: BucketSpec) -> Bucket:
    bucket = buckets.open(spec)
    async with asyncio.timeout(PATIENCE_S):
        await bucket.live()
    assert bucket.is_live
    return bucket


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def heard(watch: Watch) -> Change | Gap:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(watch)


async def test_what_was_written_is_read_at_once(bucket: Bucket) -> None:
    assert bucket.get("a.b") is None
    revision = await bucket.put("a.b", b"one")
    assert bucket.get("a.b") == Entry("a.b", b"one", revision)
    second = await bucket.put("a.b", b"\x00\xff")
    assert second > revision
    assert bucket.get("a.b") == Entry("a.b", b"\x00\xff", second)
    await bucket.put("c", b"")
    assert {entry.key for entry in bucket.entries()} == {"a.b", "c"}
    assert [entry.key for entry in bucket.entries("a.")] == ["a.b"]
    await bucket.delete("a.b")
    await bucket.delete("never-there")
    assert [entry.key for entry in bucket.entries()] == ["c"]


async def test_only_the_first_of_two_wins(bucket: Bucket) -> None:
    first = await bucket.update("key", b"made", 0)
    with pytest.raises(StateConflict):
        await bucket.update("key", b"made too", 0)
    second = await bucket.update("key", b"changed", first)
    with pytest.raises(StateConflict):
        await bucket.update("key", b"changed too", first)
    with pytest.raises(StateConflict):
        await bucket.delete("key", first)
    assert bucket.get("key") == Entry("key", b"changed", second)
    await bucket.delete("key", second)
    assert await bucket.update("key", b"made again", 0) > second


async def test_many_at_once_never_lose_a_step(bucket: Bucket) -> None:
    async def count_one() -> None:
        while True:
            entry = bucket.get("counter")
            value, revision = (int(entry.value), entry.revision) if entry else (0, 0)
            try:
                await bucket.update("counter", str(value + 1).encode(), revision)
            except StateConflict:
                await asyncio.sleep(0)
            else:
                return

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(count_one() for _ in range(20)))
    entry = bucket.get("counter")
    assert entry is not None
    assert entry.value == b"20"


async def test_an_entry_ends_when_it_should(bucket: Bucket) -> None:
    watch = bucket.watch()
    assert await heard(watch) == Gap(None)
    await bucket.put("short", b"1", ttl_s=0.3)
    await bucket.put("long", b"1", ttl_s=600)
    await bucket.put("kept", b"1", ttl_s=0.3)
    await bucket.put("kept", b"2")
    seen = [await heard(watch) for _ in range(3)]
    assert {change.key for change in seen if isinstance(change, Change)} == {"short", "long", "kept"}
    assert await heard(watch) == Change("short", None)
    assert {entry.key for entry in bucket.entries()} == {"long", "kept"}
    assert await bucket.update("short", b"again", 0)


async def test_a_bucket_may_end_everything_in_it(buckets: Buckets) -> None:
    bucket = await opened(buckets, BucketSpec("brief", ttl_s=0.5))
    await bucket.put("a", b"1")
    await bucket.put("b", b"1", ttl_s=600)
    await until(lambda: not bucket.entries())


async def test_a_reader_hears_of_what_it_asked_for(bucket: Bucket) -> None:
    watch = bucket.watch("users.")
    assert await heard(watch) == Gap(None)
    await bucket.put("other", b"1")
    revision = await bucket.put("users.a", b"1")
    assert await heard(watch) == Change("users.a", Entry("users.a", b"1", revision))
    await bucket.delete("users.a")
    assert await heard(watch) == Change("users.a", None)


async def test_a_slow_reader_hears_the_last_of_a_key_and_of_too_many_a_gap(bucket: Bucket) -> None:
    watch = bucket.watch()
    assert await heard(watch) == Gap(None)
    for number in range(20):
        revision = await bucket.put("key", str(number).encode())
    assert await heard(watch) == Change("key", Entry("key", b"19", revision))
    for number in range(SPEC.watch_size + 1):
        await bucket.put(f"key{number}", b"1")
    assert await heard(watch) == Gap(None)
    assert len(bucket.entries()) == SPEC.watch_size + 2


async def test_a_watch_ends_when_it_is_closed_and_with_its_bucket(buckets: Buckets) -> None:
    bucket = await opened(buckets, SPEC)
    watch, other = bucket.watch(), bucket.watch()
    watch.close()
    watch.close()
    with pytest.raises(StopAsyncIteration):
        await heard(watch)
    assert await heard(other) == Gap(None)
    await buckets.close()
    with pytest.raises(StopAsyncIteration):
        await heard(other)


@pytest.mark.parametrize("key", ["", ".a", "a.", "a..b", "a b", "a*", ">", "ä", "a\n", "k" * 300])
async def test_a_key_that_is_none_is_refused(bucket: Bucket, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        await bucket.put(key, b"")


async def test_what_is_too_much_is_refused(bucket: Bucket) -> None:
    with pytest.raises(StateRefused):
        await bucket.put("large", b"x" * (MAX_VALUE_BYTES + 1))
    await bucket.put("large", b"x" * MAX_VALUE_BYTES)
    for number in range(SPEC.max_entries - 1):
        await bucket.put(f"key{number}", b"1")
    with pytest.raises(StateRefused):
        await bucket.put("one-more", b"1")
    await bucket.put("large", b"smaller")
    await bucket.delete("large")
    await bucket.put("one-more", b"1")


async def test_buckets_of_one_name_are_one(buckets: Buckets) -> None:
    bucket = await opened(buckets, SPEC)
    other = await opened(buckets, BucketSpec("others"))
    await bucket.put("key", b"1")
    again = buckets.open(SPEC).get("key")
    assert again is not None
    assert again.value == b"1"
    assert other.get("key") is None
