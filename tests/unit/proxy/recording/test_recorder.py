"""Recordings over a store that works, fails, hangs or is slow: what each rule makes of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.blueprints.schema import Blueprint
from proxy.errors.stores import RecordingLost, RecordingUnavailable
from proxy.model import (
    ConnId,
    Exec,
    Peer,
    ProgramSpec,
    Pty,
    Shell,
    Subsystem,
    WindowSize,
)
from proxy.recording.archive import Archive, VerificationResult
from proxy.recording.manifest import Manifest
from proxy.recording.recorder import Recorder, RecordingNotice
from proxy.recording.service import Recordings
from proxy.recording.signing import Keyring, SigningKey, load_or_create
from proxy.settings.recording import RecordingRule, RecordingSettings
from tests.fakes.recordings import FakeStore
from tests.fakes.visits import visit_of

SHELL = ProgramSpec(Shell(), pty=Pty("xterm", WindowSize(100, 30)))
ALICE = visit_of("alice+dev", peer=Peer(ConnId("c1"), "192.0.2.7", 50_022, "192.0.2.1", 22))
DEV = Blueprint(name="dev")
BLOCK = 4_096
FAST: dict[str, Any] = {
    "flush_interval_s": 0.02,
    "retry_interval_s": 0.02,
    "block_bytes": BLOCK,
    "buffer_bytes": 4 * BLOCK,
}
IMPATIENT: dict[str, Any] = {
    "write_timeout_s": 0.1,
    "refuse_after_s": 0.1,
    "open_timeout_s": 1,
    "close_timeout_s": 1,
    "max_delay_s": 0.1,
}
"""For storage that hangs; a busy machine would take healthy storage for such."""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return load_or_create(tmp_path_factory.mktemp("key") / "key")


class Carried:
    """What a forward carried."""

    from_client = 10
    to_client = 7


class World:
    """One process's recordings over a fake store."""

    def __init__(self, key: SigningKey, settings: RecordingSettings) -> None:
        self.store = FakeStore()
        self.news: list[RecordingNotice] = []
        self.keyring = Keyring([key.public])
        self.recordings = Recordings(
            settings, self.store, key, self.keyring, proxy_id="p1", publish=self.news.append
        )

    async def begin(self, spec: ProgramSpec = SHELL, program_id: str = "c1-1") -> Recorder:
        recorder = await self.recordings.program(ALICE, spec, DEV, program_id)
        assert recorder is not None
        return recorder

    async def ended(self, recording: str = "c1-1") -> tuple[Manifest, list[list[Any]], VerificationResult]:
        """Wait for the last manifest; give it, the lines and what is thought of them."""
        await self.recordings.close()
        archive = Archive(self.store, self.keyring)
        found = await archive.find(recording)
        lines = [json.loads(line) async for line in archive.lines(found.manifest)]
        return found.manifest, lines[1:], await archive.verify(found)


@asynccontextmanager
async def world(key: SigningKey, on_failure: str = "continue", **settings: Any) -> AsyncIterator[World]:
    rule = RecordingRule(on_failure=on_failure, input=settings.pop("input", False))  # type: ignore[arg-type]
    made = World(key, RecordingSettings(rules=(rule,), **{**FAST, **settings}))
    try:
        yield made
    finally:
        made.store.hangs = made.store.fails = False
        await made.recordings.close()


def shown(lines: list[list[Any]]) -> str:
    return "".join(data for _, code, data in lines if code == "o")


async def test_what_was_shown_is_stored_signed_and_whole(key: SigningKey) -> None:
    async with world(key) as here:
        recorder = await here.begin()
        async with recorder:
            await recorder.output("grüße".encode()[:4], is_stderr=False)
            await recorder.output("grüße".encode()[4:], is_stderr=False)
            recorder.resize(WindowSize(50, 12))
            recorder.end = "exit 3"
        manifest, lines, verdict = await here.ended()
    assert shown(lines) == "grüße"
    assert [data for _, code, data in lines if code in "rm"] == ["50x12", "exit 3"]
    assert verdict.state == "intact"
    assert manifest.end == "exit 3"
    assert manifest.gaps == 0
    assert [news.what for news in here.news] == ["closed"]
    assert here.news[0].complete


async def test_a_lot_goes_through_a_small_buffer_at_the_storages_pace(key: SigningKey) -> None:
    async with world(key) as here:
        here.store.slow_s = 0.005
        recorder = await here.begin()
        async with recorder:
            for _ in range(50):
                await recorder.output(b"x" * BLOCK, is_stderr=False)
        manifest, lines, verdict = await here.ended()
    assert len(shown(lines)) == 50 * BLOCK
    assert (verdict.state, manifest.gaps) == ("intact", 0)


@pytest.mark.parametrize("fault", ["fails", "hangs"])
async def test_continue_runs_on_marks_the_gap_and_goes_on_afterwards(key: SigningKey, fault: str) -> None:
    async with world(key, **IMPATIENT) as here:
        recorder = await here.begin()
        async with recorder:
            recorder.resize(WindowSize(90, 30))
            await recorder.output(b"before", is_stderr=False)
            setattr(here.store, fault, True)
            for _ in range(20):
                await recorder.output(b"y" * BLOCK, is_stderr=False)
            setattr(here.store, fault, False)
            async with asyncio.timeout(10):
                while recorder.is_interrupted:
                    await asyncio.sleep(0.01)
            await recorder.output(b"after", is_stderr=False)
        manifest, lines, verdict = await here.ended()
    text = shown(lines)
    assert text.startswith("before")
    assert text.endswith("after")
    assert len(text) < 20 * BLOCK
    assert manifest.gaps == 1
    assert manifest.lost_bytes > 0
    marks = [data for _, code, data in lines if code == "m"]
    assert any("gap" in mark and str(manifest.lost_bytes) in mark for mark in marks)
    assert [data for _, code, data in lines if code == "r"] == ["90x30", "90x30"]
    assert verdict.state == "intact"
    assert [news.what for news in here.news] == ["interrupted", "closed"]
    assert not here.news[-1].complete


async def test_continue_starts_a_program_while_storage_hangs(key: SigningKey) -> None:
    async with world(key, **IMPATIENT) as here:
        here.store.hangs = True
        async with asyncio.timeout(0.05):
            recorder = await here.begin()
            async with recorder:
                await recorder.output(b"seen", is_stderr=False)


@pytest.mark.parametrize("fault", ["fails", "hangs"])
async def test_refuse_starts_no_program_while_storage_is_down(key: SigningKey, fault: str) -> None:
    async with world(key, "refuse", **IMPATIENT) as here:
        setattr(here.store, fault, True)
        with pytest.raises(RecordingUnavailable, match="storage"):
            await here.begin()


@pytest.mark.parametrize("fault", ["fails", "hangs"])
async def test_refuse_ends_a_program_that_shows_nothing(key: SigningKey, fault: str) -> None:
    """Storage is asked only when there is something to store: a resize is."""
    async with world(key, "refuse", **IMPATIENT) as here:
        recorder = await here.begin()

        async def quiet_program() -> None:
            async with recorder:
                setattr(here.store, fault, True)
                recorder.resize(WindowSize(80, 25))
                await asyncio.sleep(30)

        with pytest.raises(RecordingLost):
            await quiet_program()
    assert "lost" in [news.what for news in here.news]


async def test_refuse_ends_a_program_whose_output_finds_no_room(key: SigningKey) -> None:
    async with world(
        key, "refuse", **{**IMPATIENT, "write_timeout_s": 60, "refuse_after_s": 60, "open_timeout_s": 30}
    ) as here:
        recorder = await here.begin()

        async def loud_program() -> None:
            async with recorder:
                here.store.hangs = True
                while True:
                    await recorder.output(b"z" * BLOCK, is_stderr=False)

        with pytest.raises(RecordingLost):
            await loud_program()


async def test_refuse_bears_a_short_outage(key: SigningKey) -> None:
    async with world(key, "refuse", refuse_after_s=60) as here:
        recorder = await here.begin()
        async with recorder:
            here.store.fails = True
            await recorder.output(b"held", is_stderr=False)
            before = here.store.calls
            while here.store.calls < before + 3:
                await asyncio.sleep(0.01)
            here.store.fails = False
        _, lines, verdict = await here.ended()
    assert shown(lines) == "held"
    assert verdict.state == "intact"


async def test_all_recordings_together_hold_no_more_than_their_budget(key: SigningKey) -> None:
    async with world(key, total_buffer_bytes=8 * BLOCK, **IMPATIENT) as here:
        here.store.hangs = True
        recorders = [await here.begin(program_id=f"c1-{n}") for n in range(8)]
        for recorder in recorders:
            await recorder.output(b"w" * 3 * BLOCK, is_stderr=False)
        assert here.recordings.held_bytes <= 8 * BLOCK + 3 * BLOCK + 8 * 600
        for recorder in recorders:
            recorder.close()
    assert here.recordings.held_bytes == 0


async def test_a_program_without_a_terminal_has_two_streams_and_a_limit(key: SigningKey) -> None:
    async with world(key, exec_output_bytes=100) as here:
        recorder = await here.begin(ProgramSpec(Exec("make")))
        async with recorder:
            await recorder.output(b"out\n", is_stderr=False)
            await recorder.output(b"err\n", is_stderr=True)
            await recorder.output(bytes(1_000), is_stderr=False)
            await recorder.output(b"x" * 1_000, is_stderr=False)
        manifest, lines, _ = await here.ended()
    assert [(code, data) for _, code, data in lines if code in "oem"] == [
        ("o", "out\n"),
        ("e", "err\n"),
        ("m", "2000 bytes of stdout are left out: beyond the limit"),
    ]
    assert (manifest.kind, manifest.command) == ("exec", "make")


async def test_input_is_recorded_only_when_asked_for(key: SigningKey) -> None:
    async with world(key) as here:
        recorder = await here.begin()
        assert not recorder.wants_input
        recorder.close()
    async with world(key, input=True) as here:
        recorder = await here.begin()
        assert recorder.wants_input
        async with recorder:
            await recorder.input(b"ls\r")
        _, lines, _ = await here.ended()
    assert [data for _, code, data in lines if code == "i"] == ["ls\r"]


async def test_sftp_is_listened_to_both_ways(key: SigningKey) -> None:
    async with world(key) as here:
        recorder = await here.begin(ProgramSpec(Subsystem("sftp")))
        async with recorder:
            await recorder.input(bytes.fromhex("0000000a 0d 00000001 00000001 61".replace(" ", "")))
            await recorder.output(
                bytes.fromhex("00000009 65 00000001 00000000".replace(" ", "")), is_stderr=False
            )
        manifest, lines, verdict = await here.ended()
    assert [line[1:] for line in lines if line[1] != "h"] == [["remove", {"path": "a", "status": "ok"}]]
    assert (manifest.format, verdict.state) == ("sftp-log-1", "intact")


async def test_a_forward_leaves_its_totals(key: SigningKey) -> None:
    async with world(key) as here:
        forward = await here.recordings.forward(ALICE, "db:5432", DEV, "c1-f1", Carried())
        assert forward is not None
        async with forward:
            assert here.store.bodies == {}
        manifest, _, verdict = await here.ended("c1-f1")
    assert (manifest.target, manifest.bytes_up, manifest.bytes_down) == ("db:5432", 10, 7)
    assert verdict.state == "intact"


async def test_a_process_that_ends_stores_what_it_has(key: SigningKey) -> None:
    async with world(key) as here:
        recorder = await here.begin()
        await recorder.output(b"last words", is_stderr=False)
        _, lines, verdict = await here.ended()
    assert shown(lines) == "last words"
    assert verdict.state == "intact"


async def test_nothing_is_recorded_without_a_rule(key: SigningKey, tmp_path: Path) -> None:
    here = World(key, RecordingSettings())
    assert await here.recordings.program(ALICE, SHELL, DEV, "c1-1") is None
    assert await here.recordings.forward(ALICE, "db:1", DEV, "c1-2", Carried()) is None
    await here.recordings.close()
    assert here.store.calls == 0
