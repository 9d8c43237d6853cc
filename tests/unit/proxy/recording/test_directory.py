"""The directory: modes, a body that grows and is whole after a failure, manifests whole or not at all."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from proxy.recording.directory import DirectoryStore
from proxy.recording.manifest import Place
from proxy.recording.store import StorageError
from proxy.recording.threads import Threads

PLACE = Place("2026-02-03", "c1-1", "asciicast-2")


async def body(store: DirectoryStore, place: Place = PLACE) -> bytes:
    return b"".join([piece async for piece in store.read(place)])


async def test_a_body_grows_and_gets_its_name_at_the_end(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "deep" / "recordings")
    assert await body(store) == b""
    await store.append(PLACE, 1, 0, b"one\n")
    await store.append(PLACE, 2, 4, b"two\n")
    day = tmp_path / "deep" / "recordings" / PLACE.day
    assert [path.name for path in day.iterdir()] == ["c1-1.cast.part"]
    assert await body(store) == b"one\ntwo\n"
    await store.finish(PLACE)
    await store.finish(PLACE)
    assert [path.name for path in day.iterdir()] == ["c1-1.cast"]
    assert await body(store) == b"one\ntwo\n"


async def test_only_the_owner_may_look(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        store = DirectoryStore(tmp_path / "recordings")
        await store.append(PLACE, 1, 0, b"x")
        await store.put_manifest(PLACE, b"{}")
    finally:
        os.umask(previous)
    for path in (tmp_path / "recordings").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((tmp_path / "recordings").stat().st_mode) == 0o700


async def test_a_block_written_again_replaces_what_a_failure_left(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await store.append(PLACE, 1, 0, b"one\n")
    part = tmp_path / PLACE.day / "c1-1.cast.part"
    part.write_bytes(b"one\ntw")  # as a full disk leaves it
    await store.append(PLACE, 2, 4, b"two\n")
    await store.append(PLACE, 2, 4, b"two\n")
    assert await body(store) == b"one\ntwo\n"


async def test_a_body_that_was_taken_away_is_not_begun_in_the_middle(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await store.append(PLACE, 1, 0, b"one\n")
    await store.delete(PLACE)
    with pytest.raises(StorageError):
        await store.append(PLACE, 2, 4, b"two\n")


async def test_manifests_are_listed_by_day_and_deleted_with_their_day(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    other = Place("2026-02-04", "c2-1", "")
    for place in (PLACE, other):
        await store.put_manifest(place, b"long before")
        await store.put_manifest(place, b"{}")
    assert await store.days() == ["2026-02-03", "2026-02-04"]
    assert await store.ids("2026-02-03", "c1") == ["c1-1"]
    assert await store.ids("2026-02-03", "c2") == []
    assert await store.manifest("2026-02-03", "c1-1") == b"{}"
    assert await store.manifest("2026-02-03", "c9") is None
    await store.delete(PLACE)
    await store.delete(PLACE)
    assert await store.days() == ["2026-02-04"]


@pytest.mark.parametrize("name", ["../etc", "a/b", ".hidden", "a\0b"])
async def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    store = DirectoryStore(tmp_path / "in")
    with pytest.raises(StorageError):
        await store.manifest("2026-02-03", name)
    with pytest.raises(StorageError):
        await store.ids(name if name != "a\0b" else "../x")


async def test_calls_that_hang_hold_up_no_more_than_the_queue() -> None:
    threads = Threads("test", count=1, queue_size=1)
    began, release = threading.Event(), threading.Event()

    def hang() -> int:
        began.set()
        release.wait()
        return 7

    running = asyncio.ensure_future(threads.run(hang))
    while not began.is_set():
        await asyncio.sleep(0.01)
    waiting = asyncio.ensure_future(threads.run(hang))
    await asyncio.sleep(0)
    try:
        with pytest.raises(StorageError):
            await threads.run(hang)
    finally:
        release.set()
    assert await asyncio.gather(running, waiting) == [7, 7]
    threads.close()
