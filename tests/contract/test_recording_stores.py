"""What every store of recordings promises, over a directory and over an S3-compatible server."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.recording.directory import DirectoryStore
from proxy.recording.manifest import Place
from proxy.recording.objects import ObjectStore
from proxy.recording.store import RecordingStore, StorageError
from tests.contract.s3server import names, s3_server, settings_for, silent_server

PLACE = Place("2026-02-03", "c1-1", "asciicast-2")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RecordingStore:
    if request.param == "directory":
        return DirectoryStore(tmp_path / "recordings")
    prefix = f"{tmp_path.name}/deep/"  # one bucket for all tests
    return ObjectStore(settings_for(request.getfixturevalue("endpoint"), tmp_path, prefix), timeout_s=10)


async def body(store: RecordingStore, place: Place = PLACE) -> bytes:
    return b"".join([piece async for piece in store.read(place)])


async def test_a_body_grows_block_by_block_and_can_be_read_meanwhile(store: RecordingStore) -> None:
    assert await body(store) == b""
    written = b""
    for number in range(1, 13):
        block = b"%d\n" % number * number
        await store.append(PLACE, number, len(written), block)
        written += block
        assert await body(store) == written
    await store.finish(PLACE)
    await store.finish(PLACE)
    assert await body(store) == written


async def test_a_block_may_be_stored_twice(store: RecordingStore) -> None:
    await store.append(PLACE, 1, 0, b"one\n")
    for _ in range(2):
        await store.append(PLACE, 2, 4, b"two\n")
    assert await body(store) == b"one\ntwo\n"


async def test_a_large_block_is_whole(store: RecordingStore) -> None:
    block = bytes(range(256)) * 4_096 * 6
    await store.append(PLACE, 1, 0, block)
    assert await body(store) == block


async def test_manifests_are_replaced_found_and_listed(store: RecordingStore) -> None:
    assert await store.days() == []
    assert await store.ids(PLACE.day) == []
    assert await store.manifest(PLACE.day, PLACE.id) is None
    for place in (PLACE, Place("2026-02-03", "c1-2", ""), Place("2026-02-04", "d1-1", "sftp-log-1")):
        await store.put_manifest(place, b"begun, and a long text")
        await store.put_manifest(place, place.id.encode())
        if place.format:
            await store.append(place, 1, 0, b"body")
    assert await store.days() == ["2026-02-03", "2026-02-04"]
    assert await store.ids("2026-02-03") == ["c1-1", "c1-2"]
    assert await store.ids("2026-02-03", "c1-2") == ["c1-2"]
    assert await store.manifest("2026-02-04", "d1-1") == b"d1-1"


async def test_a_deleted_recording_leaves_nothing_and_no_other(store: RecordingStore) -> None:
    other = Place(PLACE.day, "c1-10", "asciicast-2")  # begins alike
    for place in (PLACE, other):
        await store.put_manifest(place, b"{}")
        for number in range(1, 4):
            await store.append(place, number, (number - 1) * 2, b"x\n")
    await store.delete(PLACE)
    await store.delete(PLACE)
    assert await store.ids(PLACE.day) == ["c1-10"]
    assert await body(store) == b""
    assert await body(store, other) == b"x\n" * 3
    await store.delete(other)
    assert await store.days() == []


async def test_what_is_in_the_bucket_is_what_the_documentation_says(endpoint: str, tmp_path: Path) -> None:
    store = ObjectStore(settings_for(endpoint, tmp_path, "layout/"), timeout_s=10)
    await store.put_manifest(PLACE, b"{}")
    await store.append(PLACE, 1, 0, b"x")
    mine = [name for name in names(endpoint, tmp_path) if name.startswith("layout/")]
    assert mine == ["layout/2026-02-03/c1-1.json", "layout/2026-02-03/c1-1/00000001"]


async def test_a_bucket_that_is_not_there_is_a_storage_error(endpoint: str, tmp_path: Path) -> None:
    settings = settings_for(endpoint, tmp_path).model_copy(update={"bucket": "another"})
    store = ObjectStore(settings, timeout_s=10)
    with pytest.raises(StorageError):
        await store.put_manifest(PLACE, b"{}")


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with silent_server() as silent:
        store = ObjectStore(settings_for(silent, tmp_path), timeout_s=0.3)
        began = time.monotonic()
        with pytest.raises(StorageError):
            await store.append(PLACE, 1, 0, b"x")
        assert time.monotonic() - began < 30, "it was not the server's patience that ended it"


async def test_nobody_at_the_address_is_a_storage_error(tmp_path: Path) -> None:
    store = ObjectStore(settings_for("http://127.0.0.1:1", tmp_path), timeout_s=5)
    with pytest.raises(StorageError):
        await store.ids("2026-02-03")
