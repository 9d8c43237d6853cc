"""Looking at what is kept: found, listed, judged; one damaged recording hides no other."""

import base64
import gzip
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.errors.stores import RecordingError, RecordingNotFound
from proxy.recording import manifest as manifests
from proxy.recording.archive import Archive
from proxy.recording.chain import Chain
from proxy.recording.directory import DirectoryStore
from proxy.recording.lines import event_line, header_line
from proxy.recording.manifest import Manifest
from proxy.recording.page import page
from proxy.recording.retention import Sweeper
from proxy.recording.signing import Keyring, SigningKey, load_or_create
from proxy.settings.recording import RecordingSettings
from tests.fakes.recordings import a_shell

BEGAN = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return load_or_create(tmp_path_factory.mktemp("key") / "key")


class Kept:
    """A directory with recordings in it."""

    def __init__(self, root: Path, key: SigningKey) -> None:
        self.root = root
        self.key = key
        self.store = DirectoryStore(root)
        self.archive = Archive(self.store, Keyring([key.public]))

    async def add(self, recording: str = "c1-1", **facts: object) -> Manifest:
        """Store a recording of three blocks."""
        chain = Chain(recording, self.key)
        manifest = a_shell(recording, started_at=BEGAN)
        lines = header_line({"version": 2, "width": 80, "height": 24})
        for number in range(1, 4):
            lines += event_line(number, "o", f"block {number} </script><b>&\r\n")
            offset = chain.size
            await self.store.append(manifest.place, number, offset, chain.seal(lines, number))
            lines = b""
        closed = {
            "ended_at": BEGAN + timedelta(minutes=1),
            "blocks": chain.blocks,
            "size": chain.size,
            "last": chain.last,
        }
        manifest = manifest.model_copy(update=closed | facts)
        await self.store.put_manifest(manifest.place, manifests.write(manifest, self.key))
        if manifest.ended_at:
            await self.store.finish(manifest.place)
        return manifest

    def file(self, name: str) -> Path:
        return self.root / "2026-02-03" / name

    async def state(self, recording: str = "c1-1") -> str:
        verdict = await self.archive.verify(await self.archive.find(recording))
        assert verdict.is_sound == (verdict.state in ("intact", "unfinished"))
        return f"{verdict.state}: {verdict.detail}"


@pytest.fixture
def kept(tmp_path: Path, key: SigningKey) -> Kept:
    return Kept(tmp_path / "recordings", key)


async def test_a_whole_recording_is_intact(kept: Kept) -> None:
    await kept.add()
    assert (await kept.state()).startswith("intact: 3 blocks")


async def test_a_changed_byte_is_told_with_its_block(kept: Kept) -> None:
    await kept.add()
    file = kept.file("c1-1.cast")
    file.write_bytes(file.read_bytes().replace(b"block 2", b"block 7"))
    assert "changed: block 2" in await kept.state()


async def test_a_missing_end_is_told(kept: Kept) -> None:
    await kept.add()
    file = kept.file("c1-1.cast")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-2]))
    assert await kept.state() == "truncated: 3 blocks were stored, 2 are there"
    file.write_bytes(b"".join(lines[:-1])[:-3])
    assert (await kept.state()).startswith("truncated")
    file.unlink()
    assert await kept.state() == "truncated: 3 blocks were stored, 0 are there"


async def test_something_added_is_told(kept: Kept) -> None:
    await kept.add()
    with kept.file("c1-1.cast").open("ab") as out:
        out.write(event_line(9, "o", "forged"))
    assert "changed: something was added" in await kept.state()


async def test_a_manifest_that_was_changed_is_told(kept: Kept) -> None:
    await kept.add()
    file = kept.file("c1-1.json")
    file.write_bytes(file.read_bytes().replace(b"192.0.2.7", b"192.0.2.8"))
    assert await kept.state() == "changed: the manifest is not what was signed"


async def test_one_without_an_end_is_unfinished(kept: Kept) -> None:
    await kept.add(ended_at=None)
    assert (await kept.state()).startswith("unfinished")


async def test_one_that_somebody_else_signed_is_not_ours(kept: Kept, tmp_path: Path) -> None:
    theirs = Kept(kept.root, load_or_create(tmp_path / "other"))
    await theirs.add()
    assert (await kept.state()).startswith("unsigned")


async def test_one_is_found_by_its_id_or_the_beginning_that_is_its_own(kept: Kept) -> None:
    await kept.add("c1-1")
    await kept.add("c1-10")
    await kept.add("d2-1")
    assert (await kept.archive.find("c1-1")).manifest.id == "c1-1"
    assert (await kept.archive.find("d2")).manifest.id == "d2-1"
    with pytest.raises(RecordingNotFound, match="c1-1, c1-10"):
        await kept.archive.find("c1")
    with pytest.raises(RecordingNotFound, match="no recording"):
        await kept.archive.find("x")


async def test_a_damaged_manifest_hides_no_other(kept: Kept) -> None:
    await kept.add("c1-1")
    await kept.add("c1-2", user="bob", started_at=BEGAN + timedelta(hours=1))
    await kept.add("c1-3")
    kept.file("c1-3.json").write_bytes(b"\0 not json")
    listing = await kept.archive.newest(limit=10)
    assert [one.manifest.id for one in listing.found] == ["c1-2", "c1-1"]
    assert listing.unreadable == ["c1-3"]
    assert [one.manifest.id for one in (await kept.archive.newest(user="alice", limit=10)).found] == ["c1-1"]
    assert len((await kept.archive.newest(limit=1)).found) == 1
    with pytest.raises(RecordingError, match="cannot be read"):
        await kept.archive.find("c1-3")


async def test_a_page_holds_everything_and_nothing_printed_ends_its_script(kept: Kept) -> None:
    manifest = await kept.add(command="echo '</script>'", user_string="alice+<b>")
    verdict = await kept.archive.verify(await kept.archive.find(manifest.id))
    text = "".join([piece async for piece in page(manifest, verdict, kept.archive.lines(manifest))])
    (data,) = re.findall(r"<script class=part[^>]*>([^<]*)</script>", text)
    assert "block 3 </script><b>&" in gzip.decompress(base64.b64decode(data)).decode()
    assert text.count("<script") == text.count("</script>") == 2
    assert "alice+&lt;b&gt;" in text
    assert "default-src 'none'" in text
    assert "intact" in text


async def test_what_expired_is_deleted_in_batches_and_the_rest_stays(kept: Kept) -> None:
    now = BEGAN + timedelta(days=10)
    for number in range(6):
        await kept.add(f"old-{number}", expires_at=now - timedelta(seconds=1))
    await kept.add("keep-1", expires_at=now + timedelta(seconds=1))
    await kept.add("keep-2")
    tampered = await kept.add("tampered", expires_at=now + timedelta(days=9))
    raw = kept.file("tampered.json").read_bytes()
    kept.file("tampered.json").write_bytes(raw.replace(b"2026-02-22", b"2026-02-04"))
    assert tampered.expires_at
    sweeper = Sweeper(kept.store, RecordingSettings(sweep_batch_size=4), Keyring([kept.key.public]))
    deleted = [await sweeper.sweep(now) for _ in range(3)]
    assert sum(deleted) == 6
    assert max(deleted) <= 4
    assert await kept.store.ids("2026-02-03") == ["keep-1", "keep-2", "tampered"]
    assert {path.name for path in kept.file("").iterdir()} == {
        *("keep-1.cast", "keep-1.json", "keep-2.cast", "keep-2.json", "tampered.cast", "tampered.json")
    }
