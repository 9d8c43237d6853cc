"""One terminal of a browser: a shell in the workspace, with the record and the limits of an SSH connection.

The road of the program is that of SSH (`access.program`): it is recorded, warned, ended and counted there.
"""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from proxy.access.gateway import Gateway
from proxy.access.program import ProgramContext, ProgramRequest, ProgramRun
from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.model import ConnId, Exit, Pty, Visit, WindowSize
from proxy.sessions.limits import ConnectionLimits
from proxy.sessions.live import LiveConnection
from proxy.sessions.records import End, EndReason
from proxy.sessions.tracker import Tracker
from proxy.settings.connection import ConnectionSettings
from proxy.settings.sessions import SessionSettings
from proxy.web.frames import MAX_REASON_BYTES, POLICY_VIOLATION
from proxy.web.session_records import CLIENT_TYPE
from proxy.web.terminal import messages
from proxy.web.terminal.channel import TerminalChannel
from proxy.web.terminal.messages import MessageInvalid, Open, Resize, Shown

_log = structlog.get_logger("terminal")

TERM = "xterm-256color"
_ENV = {"COLORTERM": "truecolor", "LC_CTYPE": "C.UTF-8"}
"""What the emulator can do. A browser has no locale of the workspace; its characters are UTF-8."""
_OPEN_S = 15.0
"""Time for the first message."""
_GOODBYE_S = 5.0
"""Time for the last message to a page that reads nothing."""


@dataclass(frozen=True, slots=True)
class TerminalParts:
    """The parts of the process that a terminal needs."""

    gateway: Gateway
    tracker: Tracker
    connection: ConnectionSettings
    sessions: SessionSettings
    max_sessions_per_user: int


class TerminalSession:
    """The controls of one terminal; `serve` is its life."""

    def __init__(
        self, parts: TerminalParts, visit: Visit, client: str, socket: web.WebSocketResponse
    ) -> None:
        """Take a WebSocket that is open; `client` is the address of the browser."""
        conn_id = ConnId(secrets.token_hex(8))
        peer = replace(visit.principal.client, conn_id=conn_id, host=client)
        self._visit = replace(visit, principal=replace(visit.principal, client=peer))
        self._parts = parts
        self._socket = socket
        self._channel = TerminalChannel(socket)
        self._tasks = TaskOwner(conn_id)
        self._log = _log.bind(conn=conn_id, user=visit.actor.name)
        self._run: ProgramRun | None = None
        self._ordered: tuple[str, End] | None = None
        self._has_ended = False
        """The program has."""

    # ------------------------------------------------------------------- from operators and limits

    def warn(self, sentence: str) -> None:
        """Show a sentence in the terminal."""
        if self._run is not None:
            self._run.warn(sentence)

    def end(self, sentence: str, end: End) -> None:
        """End the terminal; the page shows the sentence."""
        if self._ordered is None:
            self._ordered = sentence, end
            self._tasks.spawn(self._close(WSCloseCode.POLICY_VIOLATION, sentence), name="close")

    async def _close(self, code: int, reason: str) -> None:
        text = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._socket.close(code=code, message=text)

    # -------------------------------------------------------------------------------- the life

    async def serve(self) -> None:
        """Start the program that the page asks for, and carry its bytes until either end is gone."""
        try:
            size = await self._opened()
            if size is not None:
                await self._live_with(size)
        except MessageInvalid as exc:
            self._log.info("terminal broken off", reason=str(exc))
            await self._close(WSCloseCode.PROTOCOL_ERROR, f"{exc}")
        finally:
            await self._tasks.close()

    async def _opened(self) -> WindowSize | None:
        """Wait for the first message; None when the page is gone. Raises: MessageInvalid."""
        try:
            said = await self._socket.receive(timeout=_OPEN_S)
        except TimeoutError:
            raise MessageInvalid("the first message did not come in time") from None
        if said.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return None
        opened = messages.read(said.data) if said.type is WSMsgType.TEXT else None
        if not isinstance(opened, Open):
            raise MessageInvalid("the first message is not open")
        return opened.size

    async def _live_with(self, size: WindowSize) -> None:
        visit, parts = self._visit, self._parts
        user = visit.actor.name
        if sum(one.user == user for one in parts.tracker.live) >= parts.max_sessions_per_user:
            await self._close(WSCloseCode.TRY_AGAIN_LATER, "too many connections of yours are open")
            return
        self._log.info("terminal opened", client=visit.principal.client.host)
        live = parts.tracker.open(visit, "", self, client_type=CLIENT_TYPE)
        limits = ConnectionLimits(live)
        end = End(EndReason.BUG)
        try:
            self._tasks.spawn(self._place(live, limits), name="place")
            left = await self._carry(live, size)
            end = self._ordered[1] if self._ordered is not None else left
        except MessageInvalid as exc:
            end = End(EndReason.FAILED, str(exc))
            raise
        except asyncio.CancelledError:
            end = End(EndReason.SHUTDOWN)
            raise
        finally:
            limits.stop()
            live.ended(end)
            self._log.info("terminal closed", reason=end.reason.value)

    async def _place(self, live: LiveConnection, limits: ConnectionLimits) -> None:
        """Look up workspace and blueprint for the record and for the limits, as for an SSH connection."""
        workspace = blueprint = ""
        with suppress(FairleadError):  # the user reads the error in the terminal
            workspace, blueprint, _ = await self._parts.gateway.place(self._visit)
        live.placed(workspace, blueprint)
        actor = self._visit.actor
        limits.apply(self._parts.sessions.limit_of(actor.name, actor.restricting_groups, blueprint))

    async def _carry(self, live: LiveConnection, size: WindowSize) -> End:
        """Run the program until it or the page ends; return the reason. Raises: MessageInvalid."""
        parts, channel = self._parts, self._channel
        context = ProgramContext(
            conn_id=self._visit.principal.client.conn_id,
            visit=self._visit,
            live=live,
            gateway=parts.gateway,
            limits=parts.connection,
            tasks=self._tasks,
            log=self._log,
        )
        request = ProgramRequest(env=dict(_ENV), pty=Pty(TERM, size))
        run = self._run = ProgramRun(context, request, channel.inbound, channel.outbound)
        sending = self._tasks.spawn(self._send(), name="send")
        program = self._tasks.spawn(self._live_program(run, sending), name="program")
        try:
            return await self._read(run)
        finally:
            channel.closed()
            if not self._has_ended:
                run.client_left()
                program.cancel()
            await asyncio.wait([program])

    async def _send(self) -> None:
        with suppress(ConnectionError):  # the reader of the same socket sees the same end
            await self._channel.send()

    async def _live_program(self, run: ProgramRun, sending: "asyncio.Task[None]") -> None:
        """Run the program, then report its end behind its last output."""
        end: Exit = await run.run()
        self._has_ended = True
        sending.cancel()
        await asyncio.wait([sending])
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._socket.send_str(messages.ended(end))
        await self._close(WSCloseCode.OK, "")

    async def _read(self, run: ProgramRun) -> End:
        """Take messages of the page until it is gone, or the program has ended. Raises: MessageInvalid."""
        while True:
            said = await self._socket.receive()
            match said.type:
                case WSMsgType.BINARY:
                    self._channel.received(said.data)
                case WSMsgType.TEXT:
                    self._take(messages.read(said.data), run)
                case WSMsgType.CLOSE if said.data == POLICY_VIOLATION:  # of the front, in the page's place
                    return End(EndReason.REVOKED, said.extra or "")
                case WSMsgType.ERROR if not self._has_ended:
                    return End(EndReason.LOST)
                case _:
                    return End(EndReason.LEFT)

    def _take(self, said: Open | Resize | Shown, run: ProgramRun) -> None:
        match said:
            case Resize(size):
                run.resize(size)
            case Shown(total):
                self._channel.shown(total)
            case Open():
                raise MessageInvalid("the terminal is open already")
