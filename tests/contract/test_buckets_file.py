"""What only a file can do to a bucket: outlive its process, be written by another one, and be damaged."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.errors.stores import StateUnavailable
from proxy.shared.buckets import Bucket, BucketSpec
from proxy.shared.file import FileBuckets
from tests.strictness import unclosed

PATIENCE_S = 30
SPEC = BucketSpec("things")
Opened = Callable[[], FileBuckets]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Opened]:
    made: list[FileBuckets] = []

    def make() -> FileBuckets:
        made.append(FileBuckets(tmp_path / "home" / "shared.db", timeout_s=5))
        made[-1].start()
        return made[-1]

    yield make
    for buckets in made:
        await buckets.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def live(buckets: FileBuckets) -> Bucket:
    bucket = buckets.open(SPEC)
    async with asyncio.timeout(PATIENCE_S):
        await bucket.live()
    return bucket


async def test_it_outlives_its_process(process: Opened, tmp_path: Path) -> None:
    first = process()
    bucket = await live(first)
    await bucket.put("kept", b"1")
    await bucket.put("ended", b"1", ttl_s=0.01)
    await bucket.put("removed", b"1")
    await bucket.delete("removed")
    await first.close()
    await asyncio.sleep(0.02)
    second = await live(process())
    assert [entry.key for entry in second.entries()] == ["kept"]
    assert (tmp_path / "home" / "shared.db").stat().st_mode & 0o777 == 0o600


async def test_another_process_is_heard(process: Opened) -> None:
    one, other = await live(process()), await live(process())
    await one.put("key", b"1")
    async with asyncio.timeout(PATIENCE_S):
        while (entry := other.get("key")) is None:
            await asyncio.sleep(0.01)
        await other.delete("key", entry.revision)
        while one.get("key") is not None:
            await asyncio.sleep(0.01)


async def test_a_damaged_file_is_said_to_be_one(process: Opened, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "shared.db").write_bytes(b"no database" * 1_000)
    bucket = process().open(SPEC)
    with pytest.raises(StateUnavailable):
        await bucket.put("key", b"1")
    assert not bucket.is_live
    assert bucket.get("key") is None


async def test_a_damaged_file_is_closed_again(process: Opened, tmp_path: Path) -> None:
    """An open connection that nobody can reach would be reported in whichever test runs next."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "shared.db").write_bytes(b"no database" * 1_000)
    with unclosed() as found:
        buckets = process()
        with pytest.raises(StateUnavailable):
            await buckets.open(SPEC).put("key", b"1")
        await buckets.close()
    assert found == []
