"""Recording of a program's bytes. Without a recording, none of this is between client and program."""

from collections.abc import Sequence

from proxy.access.relay import Outbound, ProgramStream
from proxy.model import Exit
from proxy.recording.recorder import Recorder
from proxy.upstream.frame_codec import Buffer
from proxy.upstream.frames import Notice, Output, StdoutEof


class RecordedOutbound:
    """An output that passes everything to a recorder first, so that nothing is shown unrecorded."""

    def __init__(self, outbound: Outbound, recorder: Recorder) -> None:
        self._outbound = outbound
        self._recorder = recorder

    async def write(self, data: Buffer, datatype: int | None = None) -> None:
        """Record and write, as Outbound.write; this waits for the recorder's buffer too."""
        await self._recorder.output(data, is_stderr=datatype is not None)
        await self._outbound.write(data, datatype)

    async def say(self, text: bytes, datatype: int | None = None) -> None:
        """Record and write our own text, as Outbound.say: it is on the screen as well."""
        await self._recorder.output(text, is_stderr=datatype is not None)
        await self._outbound.say(text, datatype)


class TappedProgram:
    """A program whose stdin is recorded."""

    def __init__(self, program: ProgramStream, recorder: Recorder) -> None:
        self._program = program
        self._recorder = recorder

    async def read(self) -> Output | StdoutEof | Notice | Exit:
        """Read the program's next output."""
        return await self._program.read()

    async def room(self, limit_bytes: int) -> int:
        """Wait for room in the program's stdin."""
        return await self._program.room(limit_bytes)

    async def write(self, pieces: Sequence[Buffer], size: int) -> None:
        """Record stdin, then write it, so that a request is recorded before any answer to it."""
        for piece in pieces:
            await self._recorder.input(piece)
        await self._program.write(pieces, size)

    async def write_eof(self) -> None:
        """Close the program's stdin."""
        await self._program.write_eof()


def tap(program: ProgramStream, recorder: Recorder) -> ProgramStream:
    """Return the program with its stdin recorded, if this recorder takes input."""
    return TappedProgram(program, recorder) if recorder.wants_input else program
