"""The recorders of running programs and forwards, from their lines to their storage."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Literal, Protocol, Self

import structlog

from proxy import metrics
from proxy.errors.stores import RecordingLost
from proxy.model import WindowSize
from proxy.recording import manifest as manifests
from proxy.recording.asciicast import AsciicastWriter
from proxy.recording.chain import Chain
from proxy.recording.manifest import Manifest
from proxy.recording.rules import Terms
from proxy.recording.sftplog import SftpLog
from proxy.recording.signing import SigningKey
from proxy.recording.spool import RecordingGap, Spool, SpoolContext

_log = structlog.get_logger("recording")

_LOST = "this session has to be recorded, and its recording can no longer be stored; it was ended"


@dataclass(frozen=True, slots=True)
class RecordingNotice:
    """A change of a recording that is published as an event."""

    what: Literal["interrupted", "lost", "closed"]
    """`interrupted`: storage is down, the program goes on. `lost`: the program was ended because of it."""
    manifest: Manifest
    complete: bool = True
    """For `closed`: whether everything is stored without a gap."""


Publish = Callable[[RecordingNotice], None]
"""A callback for notices; it returns soon and raises nothing."""


@dataclass(frozen=True, slots=True)
class Job:
    """The parts and terms of one recording."""

    context: SpoolContext
    key: SigningKey
    manifest: Manifest
    terms: Terms
    publish: Publish


class Recorder:
    """The recorder of one program or forward, as a context around it; it ends a program that must not go on.

    Under `refuse`, leaving the context raises RecordingLost when the recording could not be continued.
    """

    wants_input = False
    """Whether `input` has to be called."""

    def __init__(self, job: Job) -> None:
        self._began = time.monotonic()
        self._context = job.context
        self._key = job.key
        self._manifest = job.manifest
        self._terms = job.terms
        self._publish = job.publish
        self._chain = Chain(self.id, job.key)
        self._spool = Spool(
            job.context,
            job.manifest.place,
            self._chain,
            self,
            clock=self.clock,
            refuses=job.terms.on_failure == "refuse",
        )
        self._body: asyncio.Task[object] | None = None
        self._lost = False
        self._ended = False
        self._gaps = 0
        self._lost_bytes = 0
        self.end = ""
        """The end of the program, in words; set it before the context is left."""

    def clock(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def id(self) -> str:
        """Return the id of the recording."""
        return self._manifest.id

    @property
    def is_interrupted(self) -> bool:
        """Return whether lines are being left out now."""
        return self._spool.is_interrupted

    async def is_stored(self, timeout_s: float) -> bool:
        """Wait until everything so far is stored; return False after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._spool.stored.wait()
        except TimeoutError:
            return False
        return not self._lost

    # -------------------------------------------------------------------------- around the program

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        self.close()
        if self._lost and body is not None and body.uncancel() == 0:
            raise RecordingLost("storage of recordings failed", user_message=_LOST) from None

    def close(self) -> None:
        """End the recording; held lines are stored in the background."""
        if not self._ended:
            self._ended = True
            self._take(self._last_lines())
            self._spool.close()

    # ------------------------------------------------------------------------- what is recorded

    async def output(self, data: bytes | bytearray | memoryview, *, is_stderr: bool) -> None:
        """Record output before it is sent to the client; this waits while the buffer is full."""
        raise NotImplementedError

    async def input(self, data: bytes | bytearray | memoryview) -> None:
        """Record input from the client."""
        raise NotImplementedError

    def resize(self, window: WindowSize) -> None:
        """Record the terminal's new size."""

    def _last_lines(self) -> Iterable[bytes]:
        return ()

    def _gap_lines(self, gap: RecordingGap) -> Iterable[bytes]:
        """Yield the marker of a gap, and lines that make the following ones readable by themselves."""
        del gap
        return ()

    async def _room(self) -> None:
        await self._spool.room()
        if self._lost:
            # A cancellation of the program takes effect here, before more of its output is shown.
            await asyncio.sleep(0)

    def _take(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._spool.add(line)

    # ---------------------------------------------------------------------- the task that stores

    async def keep(self) -> None:
        """Store everything, from the first manifest to the last. It runs in a task of the process."""
        log = _log.bind(recording=self.id)
        metrics.RECORDINGS.labels(self._manifest.kind).inc()
        complete = await self._spool.retry_until_stored(lambda: self._put(self._manifest))
        if not self._manifest.format:
            self._spool.stored.set()
        complete = complete and await self._spool.run()
        final = self._final()
        if complete:
            complete = await self._spool.retry_until_stored(lambda: self._finish(final))
        if not complete:
            log.error("recording not completed: storage is down", blocks=final.blocks)
        metrics.RECORDINGS_ENDED.labels("complete" if complete and not self._gaps else "incomplete").inc()
        self._publish(RecordingNotice("closed", final, complete=complete and not self._gaps))

    async def _put(self, manifest: Manifest) -> None:
        content = manifests.write(manifest, self._key)
        await self._context.store.put_manifest(manifest.place, content)

    async def _finish(self, final: Manifest) -> None:
        await self._context.store.finish(final.place)
        await self._put(final)

    def _final(self) -> Manifest:
        ended_at = datetime.now(UTC)
        bytes_up, bytes_down = self._totals()
        days = self._terms.retention_days
        return self._manifest.model_copy(
            update={
                "ended_at": ended_at,
                "expires_at": None if days is None else ended_at + timedelta(days=days),
                "end": self.end,
                "blocks": self._chain.blocks,
                "size": self._chain.size,
                "last": self._chain.last,
                "gaps": self._gaps,
                "lost_bytes": self._lost_bytes,
                "bytes_up": bytes_up,
                "bytes_down": bytes_down,
            }
        )

    def _totals(self) -> tuple[int, int]:
        """Return the payload from and to the client, if this recorder counts it."""
        return 0, 0

    # ----------------------------------------------------------------------------- see StorageObserver

    def went_down(self, reason: str) -> None:
        """Log the outage and publish `interrupted`."""
        metrics.RECORDING_OUTAGES.inc()
        _log.warning("recording interrupted: storage is down", recording=self.id, reason=reason)
        self._publish(RecordingNotice("interrupted", self._manifest))

    def came_back(self) -> None:
        """Log the end of the outage."""
        _log.info("recording goes on: storage is back", recording=self.id)

    def gave_up(self, reason: str) -> None:
        """Publish `lost`, and end the program."""
        _log.error("program ended: it must not run unrecorded", recording=self.id, reason=reason)
        self._lost = True
        self._publish(RecordingNotice("lost", self._manifest))
        if self._body is not None:
            self._body.cancel()

    def resumed(self, gap: RecordingGap) -> None:
        """Add the marker of the gap."""
        self._gaps += 1
        self._lost_bytes += gap.lost_bytes
        metrics.RECORDING_LOST_BYTES.inc(gap.lost_bytes)
        _log.warning("recording has a gap", recording=self.id, lost_bytes=gap.lost_bytes)
        self._take(self._gap_lines(gap))


_JOIN_BYTES = 16 * 1024
_JOIN_S = 0.02


class TerminalRecorder(Recorder):
    """The recorder of a shell or command, with or without a terminal.

    Small pieces of output within 20 ms become one event: a terminal under load brings thousands a second, and
    an event costs as much as a thousand bytes.
    """

    def __init__(self, job: Job, *, header: bytes, has_terminal: bool) -> None:
        super().__init__(job)
        limit = None if has_terminal else job.context.settings.exec_output_bytes
        self._cast = AsciicastWriter(bulk_limit_bytes=limit)
        self._window: WindowSize | None = None
        self.wants_input = job.terms.input
        self._joined: list[bytes | bytearray | memoryview] = []
        self._joined_bytes = 0
        self._joined_stderr = False
        self._timer: asyncio.TimerHandle | None = None
        self._spool.add(header)

    async def output(self, data: bytes | bytearray | memoryview, *, is_stderr: bool) -> None:
        """Record output; small pieces are joined."""
        if self._ended:
            return  # our own text after the program's end
        if self._joined and is_stderr is not self._joined_stderr:
            self._flush()
        if len(data) >= _JOIN_BYTES:
            self._flush()
            await self._write(self._cast.output(self.clock(), data, is_stderr=is_stderr))
            return
        self._joined_stderr = is_stderr
        self._joined.append(data)
        self._joined_bytes += len(data)
        if self._joined_bytes >= _JOIN_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_JOIN_S, self._flush)
        if not self._spool.has_room:
            await self._room()

    async def input(self, data: bytes | bytearray | memoryview) -> None:
        """Record input, if the terms say so."""
        if not self._ended:
            self._flush()
            await self._write(self._cast.input(self.clock(), data))

    def resize(self, window: WindowSize) -> None:
        """Record the terminal's new size."""
        self._window = window
        if not self._ended:
            self._flush()
            self._spool.add(self._cast.resize(self.clock(), window))

    def _flush(self) -> None:
        """Write the joined pieces as one event."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._joined:
            data = b"".join(self._joined)
            self._joined.clear()
            self._joined_bytes = 0
            self._take(self._cast.output(self.clock(), data, is_stderr=self._joined_stderr))

    async def _write(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if not self._spool.has_room:
                await self._room()
            self._spool.add(line)

    def _last_lines(self) -> Iterable[bytes]:
        self._flush()
        yield from self._cast.break_off(self.clock())
        if self.end:
            yield self._cast.marker(self.clock(), self.end)

    def _gap_lines(self, gap: RecordingGap) -> Iterable[bytes]:
        yield from self._cast.break_off(self.clock())
        text = (
            f"gap: storage was down, nothing was recorded from {gap.began_s:.1f} s to {self.clock():.1f} s; "
            f"{gap.lost_bytes} bytes are missing"
        )
        yield self._cast.marker(self.clock(), text)
        if self._window is not None:
            yield self._cast.resize(self.clock(), self._window)


class SftpRecorder(Recorder):
    """The recorder of the sftp subsystem: operations, not contents."""

    wants_input = True

    def __init__(self, job: Job, *, header: bytes) -> None:
        super().__init__(job)
        self._sftp = SftpLog()
        self._spool.add(header)

    async def output(self, data: bytes | bytearray | memoryview, *, is_stderr: bool) -> None:
        """Record the server's answers."""
        if not (self._ended or is_stderr):
            self._take(self._sftp.from_server(self.clock(), data))
            await self._room()

    async def input(self, data: bytes | bytearray | memoryview) -> None:
        """Record the client's requests."""
        if not self._ended:
            self._take(self._sftp.from_client(self.clock(), data))
            await self._room()

    def _last_lines(self) -> Iterable[bytes]:
        return self._sftp.ended(self.clock())

    def _gap_lines(self, gap: RecordingGap) -> Iterable[bytes]:
        yield self._sftp.gap(self.clock(), gap.began_s, gap.lost_bytes)


class ForwardTraffic(Protocol):
    """Payload bytes that a forwarded connection has carried so far."""

    @property
    def from_client(self) -> int:
        """Return the bytes from the client."""

    @property
    def to_client(self) -> int:
        """Return the bytes to the client."""


class ForwardRecorder(Recorder):
    """The recorder of a forwarded connection, which has a manifest with totals and no body."""

    def __init__(self, job: Job, *, traffic: ForwardTraffic) -> None:
        super().__init__(job)
        self._traffic = traffic

    def _totals(self) -> tuple[int, int]:
        return self._traffic.from_client, self._traffic.to_client
