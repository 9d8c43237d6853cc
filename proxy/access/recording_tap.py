"""The one place where a recording touches the road of the bytes; without one, nothing of this is on it."""

from collections.abc import Sequence

from proxy.access.relay import Outbound, ProgramStream
from proxy.model import Exit
from proxy.recording.recorder import Recorder
from proxy.upstream.frame_codec import Buffer
from proxy.upstream.frames import Notice, Output, StdoutEof


class RecordedOutbound:
    """What goes to the client, once a recorder has it: nothing is shown that was not taken down."""

    def __init__(self, outbound: Outbound, recorder: Recorder) -> None:
        self._outbound = outbound
        self._recorder = recorder

    async def write(self, data: Buffer, datatype: int | None = None) -> None:
        """See Outbound. Waits for the recorder's buffer too, as long as its storage keeps up."""
        await self._recorder.output(data, is_stderr=datatype is not None)
        await self._outbound.write(data, datatype)

    async def say(self, text: bytes, datatype: int | None = None) -> None:
        """See Outbound. What we say is on the screen as well."""
        await self._recorder.output(text, is_stderr=datatype is not None)
        await self._outbound.say(text, datatype)


class TappedProgram:
    """A program whose stdin a recorder hears as well."""

    def __init__(self, program: ProgramStream, recorder: Recorder) -> None:
        self._program = program
        self._recorder = recorder

    async def read(self) -> Output | StdoutEof | Notice | Exit:
        """See Program."""
        return await self._program.read()

    async def room(self, limit_bytes: int) -> int:
        """See Program."""
        return await self._program.room(limit_bytes)

    async def write(self, pieces: Sequence[Buffer], size: int) -> None:
        """See Program. The recorder hears a request before anything can answer it."""
        for piece in pieces:
            await self._recorder.input(piece)
        await self._program.write(pieces, size)

    async def write_eof(self) -> None:
        """See Program."""
        await self._program.write_eof()


def tap(program: ProgramStream, recorder: Recorder) -> ProgramStream:
    """Let the recorder hear stdin, if it wants to."""
    return TappedProgram(program, recorder) if recorder.wants_input else program
