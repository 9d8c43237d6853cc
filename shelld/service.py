"""The six calls: decode a request, hand it to who knows, encode what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from protos.shelld.v1 import shelld_pb2 as pb
from shelld import __version__, wire
from shelld.account import Accounts
from shelld.errors import StartCode, StartError
from shelld.log import Log
from shelld.program import Input
from shelld.pty import PtySpec
from shelld.registry import LimitReached, Registry
from shelld.settings import Settings
from shelld.start import ProgramSpec, Starter
from shelld.token import Caller

_log = Log("shelld.service")

VERSION = pb.Version(major=1, minor=0)
FEATURES = ("sftp", "tcp-forward", "streamlocal-forward", "ssh-agent")


@dataclass(frozen=True, slots=True)
class Service:
    """The behaviours of the service, without transport or authentication."""

    settings: Settings
    accounts: Accounts
    registry: Registry
    starter: Starter

    def behaviours(self) -> dict[str, wire.Behaviour]:
        """Return one coroutine a method, by the method's name."""
        return {
            "Handshake": self.handshake,
            "Run": self.run,
        }

    async def handshake(
        self, request: pb.HandshakeRequest, _context: wire.Context, _caller: Caller
    ) -> pb.HandshakeReply:
        """Compare versions and names, tell limits."""
        if request.version.major != VERSION.major:
            raise wire.Mismatch(
                f"shelld speaks version {VERSION.major} of the protocol, the caller version {request.version.major}"
            )
        if request.workspace and request.workspace != self.settings.workspace:
            raise wire.Mismatch(f"this is workspace {self.settings.workspace}, not {request.workspace}")
        return pb.HandshakeReply(
            version=VERSION,
            workspace=self.settings.workspace,
            features=FEATURES,
            max_frame_bytes=wire.MAX_FRAME_BYTES,
            build=f"shelld {__version__}",
        )

    async def run(self, _request: None, context: wire.Context, caller: Caller) -> None:
        """Run one program."""
        self._refuse_when_draining()
        frames = wire.Frames(context)
        try:
            with self.registry.program():
                await self._run(context, caller, frames)
        except StartError as error:
            await frames.send(wire.start_failed(error))
        except LimitReached as error:
            await frames.send(wire.start_failed(StartError(StartCode.RESOURCES, str(error))))

    async def _run(self, context: wire.Context, caller: Caller, frames: wire.Frames) -> None:
        spec = _program_spec(await wire.read(context))
        self._check_account(caller, spec.account)
        program = await self.starter.start(spec)
        try:
            self.registry.enter(program)
            await frames.send(pb.RunOutput(started=pb.Started(pid=program.pid, tty=program.tty)))
            ended = await program.converse(self._receiver(context), _RunOutput(frames, self.registry))
            await frames.send(wire.exit_frame(ended))
        finally:
            self.registry.leave(program)
            program.close()

    def _receiver(self, context: wire.Context) -> Callable[[], Awaitable[Input | None]]:
        async def receive() -> Input | None:
            frame = await wire.read(context)
            if frame is None:
                return None
            self.registry.touch()
            return wire.run_input(frame)

        return receive

    def _check_account(self, caller: Caller, account: str) -> None:
        used = account or self.accounts.own.name
        if caller.account and caller.account != used:
            raise wire.Unauthenticated("token for another account")

    def _refuse_when_draining(self) -> None:
        if self.registry.draining:
            raise wire.Unavailable("this shelld is stopping")


class _RunOutput:
    """A program's output as frames."""

    def __init__(self, frames: wire.Frames, registry: Registry) -> None:
        self._frames = frames
        self._registry = registry

    async def stdout(self, data: bytes) -> None:
        self._registry.touch()
        await self._frames.send(wire.bulk(wire.STDOUT_FIELD, data))

    async def stderr(self, data: bytes) -> None:
        self._registry.touch()
        await self._frames.send(wire.bulk(wire.STDERR_FIELD, data))

    async def stdout_eof(self) -> None:
        await self._frames.send(pb.RunOutput(stdout_eof=pb.Eof()))


def _program_spec(frame: Any) -> ProgramSpec:
    """Raises: StartError INVALID."""
    if not isinstance(frame, pb.RunInput) or frame.WhichOneof("frame") != "start":
        raise StartError(StartCode.INVALID, "the first frame must be a start frame")
    start = frame.start
    kind = start.WhichOneof("kind")
    if kind is None:
        raise StartError(StartCode.INVALID, "the start frame names neither shell, command nor subsystem")
    pty = None
    if start.HasField("pty"):
        pty = PtySpec(start.pty.term, wire.window(start.pty.window), dict(start.pty.modes))
    client = start.client
    return ProgramSpec(
        kind=kind,
        text="" if kind == "shell" else getattr(start, kind),
        env=dict(start.env),
        pty=pty,
        account=start.account,
        ssh_agent=start.ssh_agent,
        client=(client.host, client.port, client.server_host, client.server_port)
        if start.HasField("client")
        else None,
        program_id=start.program_id,
    )
