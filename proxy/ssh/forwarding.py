"""Channels that carry one connection: `direct-tcpip`, `direct-streamlocal`, `-R` and their kin."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncssh

from proxy.errors import FairleadError, user_sentence
from proxy.errors.programs import OpenFailed, OpenFailedKind, Refused
from proxy.model import Principal, Target, TcpTarget, UnixTarget
from proxy.octets import bytes_of
from proxy.sessions.live import LiveProgram, NoTraffic
from proxy.sessions.records import End, EndReason, Kind
from proxy.ssh.relay import ChannelTraffic, Inbound, Outbound, relay_connection
from proxy.upstream.bulk import Buffer
from proxy.upstream.client import Link
from proxy.upstream.frames import Accepted
from proxy.upstream.streams import Connection

if TYPE_CHECKING:
    from proxy.ssh.connection import ClientConnection

_listener_ids = itertools.count(1)


def new_listener_id(owner: "ClientConnection") -> str:
    """Name a listener uniquely within its workspace, whichever proxy asks."""
    return f"{owner.shared.settings.proxy_id}-{owner.conn_id}-{next(_listener_ids)}"


class Dialled(asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """The SSH end of one carried connection, whichever side opened the channel."""

    def __init__(self, owner: "ClientConnection", kind: Kind, target: str = "") -> None:
        self._owner = owner
        self._inbound = Inbound(owner.shared.settings.relay.buffer_bytes)
        self._outbound = Outbound(owner.conn.writable)
        self._chan: Any = None
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._kind = kind
        self._target = target
        self._traffic = ChannelTraffic(self._inbound, self._outbound)
        self._record: LiveProgram | None = None

    def warn(self, sentence: str) -> None:
        """There is no place for words on a connection that carries somebody else's bytes."""

    def end(self, sentence: str, end: End) -> None:
        """Close both sides."""
        self._owner.log.info("forward ended from outside", reason=sentence)
        self._ended(end)
        if self._chan is not None:
            self._chan.abort()
        if self._task is not None:
            self._task.cancel()

    def connection_made(self, chan: Any) -> None:
        self._chan = chan
        self._inbound.attach(chan)
        self._outbound.attach(chan)

    def session_started(self) -> None:
        self._started.set()

    def data_received(self, data: Buffer, datatype: int | None) -> None:
        if datatype is None:
            self._inbound.feed(data)

    def eof_received(self) -> bool:
        self._inbound.feed_eof()
        return True  # half-close: the other direction goes on

    def pause_writing(self) -> None:
        self._outbound.gate.shut()

    def resume_writing(self) -> None:
        self._outbound.gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._outbound.gate.open()
        self._started.set()
        self._inbound.leave()

    def carry(self, principal: Principal, target: Target) -> "asyncio.Future[None]":
        """Open the upstream connection in its turn, and carry bytes once the channel stands.

        The future is done when the connection is open, or has its FairleadError; it is cancelled when an
        order from outside, or the end of the client, came first.
        """
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = self._owner.tasks.spawn(self._carry(principal, target, opened), name="forward")
        return opened

    async def _carry(self, principal: Principal, target: Target, opened: "asyncio.Future[None]") -> None:
        gateway = self._owner.shared.gateway
        try:
            async with AsyncExitStack() as stack:
                async with self._owner.openings.dial():
                    dialling = gateway.dial(principal, target, self.begin().id, self._traffic)
                    connection, link = await stack.enter_async_context(dialling)
                if not opened.done():
                    opened.set_result(None)
                await self._started.wait()
                await relay_connection(connection, self._inbound, self._outbound, link.max_frame_bytes)
                self._ended(End(EndReason.CLOSED))
        except FairleadError as exc:
            self.failed(exc)
            if not opened.done():
                opened.set_exception(exc)
            else:
                self._owner.log.debug("forward ended", code=exc.code, reason=str(exc))
        finally:
            self._ended(End(EndReason.LEFT))
            opened.cancel()
            if self._chan is not None:
                self._chan.close()

    def begin(self) -> LiveProgram:
        """Open the record, which can be ended by an order from then on."""
        self._record = self._owner.live.begin(self._kind, self._traffic, self, target=self._target)
        return self._record

    def _ended(self, end: End) -> None:
        if self._record is not None:
            self._record.ended(end)

    def recorded(self, principal: Principal) -> AbstractAsyncContextManager[None]:
        """Record what is carried inside, when a rule says so; raises what `Gateway.recorded` does."""
        assert self._record is not None
        gateway = self._owner.shared.gateway
        return gateway.recorded(principal, self._target, self._record.id, self._traffic)

    async def carry_open(self, connection: Connection, link: Link) -> None:
        """Carry bytes of a connection that stands, until both directions have ended.

        Raises: UpstreamError when the peer or the link breaks it.
        """
        try:
            await relay_connection(connection, self._inbound, self._outbound, link.max_frame_bytes)
            self._ended(End(EndReason.CLOSED))
        finally:
            self._chan.close()

    def failed(self, exc: FairleadError | asyncssh.ChannelOpenError) -> None:
        """Note that the connection could not be had, or broke."""
        if isinstance(exc, FairleadError):
            reason = EndReason.REFUSED if isinstance(exc, Refused) else EndReason.FAILED
            self._ended(End(reason, f"{exc.code}: {exc}"))
        else:
            self._ended(End(EndReason.FAILED, f"the client refused it: {exc.reason}"))


async def dial(owner: "ClientConnection", principal: Principal, target: Target) -> Dialled:
    """Connect from inside the workspace; the channel is confirmed only when that stands.

    Raises: asyncssh.ChannelOpenError with what the workspace reported.
    """
    session = Dialled(owner, Kind.FORWARD, str(target))
    try:
        await session.carry(principal, target)
    except FairleadError as exc:
        owner.log.info("forward refused", target=str(target), code=exc.code, reason=str(exc))
        raise channel_open_error(exc, owner.conn_id) from exc
    except asyncio.CancelledError:
        if (me := asyncio.current_task()) is not None and me.cancelling():
            raise
        # Not this task: the dial was ended, and asyncssh would keep the channel without an answer.
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "ended before it was open") from None
    return session


def channel_open_error(exc: FairleadError, reference: str) -> asyncssh.ChannelOpenError:
    """Choose the reason code of RFC 4254 §5.1 and the words that `ssh` prints after it."""
    prohibited = isinstance(exc, Refused) or (
        isinstance(exc, OpenFailed) and exc.kind is OpenFailedKind.PROHIBITED
    )
    if prohibited:
        code = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
    elif isinstance(exc, OpenFailed) and exc.kind is OpenFailedKind.RESOURCES:
        code = asyncssh.OPEN_RESOURCE_SHORTAGE
    else:
        code = asyncssh.OPEN_CONNECT_FAILED
    text = exc.user_message if isinstance(exc, OpenFailed) else user_sentence(exc, reference)
    return asyncssh.ChannelOpenError(code, text)


class RemoteListener(asyncssh.SSHListener):
    """A `-R` listener in the workspace; each connection to it becomes a channel to the client."""

    def __init__(self, owner: "ClientConnection", bind: TcpTarget | UnixTarget, spelling: str) -> None:
        super().__init__()
        self._owner = owner
        self._bind = bind
        self._spelling = spelling
        self._port = 0
        self._task: asyncio.Task[None] | None = None
        self._ordered: End | None = None

    @classmethod
    async def open(
        cls,
        owner: "ClientConnection",
        principal: Principal,
        bind: TcpTarget | UnixTarget,
        spelling: str,
        closed: Callable[[], None],
    ) -> "RemoteListener | None":
        """Bind in the workspace; None when that fails, for the reason that is logged.

        `spelling` is the host or path as the client wrote it, by which it finds its forward again.
        RFC 4254 §7.1 has no words for a refused global request.
        """
        listener = cls(owner, bind, spelling)
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        listener._task = owner.tasks.spawn(listener._serve(principal, bound), name=f"listen {bind}")
        listener._task.add_done_callback(lambda _: closed())
        try:
            listener._port = await bound
        except FairleadError as exc:
            owner.log.info("listener refused", bind=str(bind), code=exc.code, reason=str(exc))
            return None
        return listener

    def get_port(self) -> int:
        return self._port

    def close(self) -> None:
        """Unbind; connections that are already carried go on."""
        if self._task is not None:
            self._task.cancel()

    def warn(self, sentence: str) -> None:
        """There is no place for words on a listener."""

    def end(self, sentence: str, end: End) -> None:
        """Unbind by an order from outside."""
        self._owner.log.info("listener ended from outside", bind=str(self._bind), reason=sentence)
        self._ordered = end
        self.close()

    async def wait_closed(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _serve(self, principal: Principal, bound: "asyncio.Future[int]") -> None:
        gateway = self._owner.shared.gateway
        await self._owner.openings.begin()
        record = self._owner.live.begin(Kind.LISTEN, NoTraffic(), self, target=str(self._bind))
        try:
            listening = gateway.listen(principal, self._bind, new_listener_id(self._owner))
            async with listening as (listener, link):
                if not bound.done():
                    bound.set_result(listener.port)
                async for accepted in listener.accepted():
                    self._owner.tasks.spawn(self._forward(principal, link, accepted), name="forwarded")
        except FairleadError as exc:
            record.ended(End(EndReason.FAILED, f"{exc.code}: {exc}"))
            if not bound.done():
                bound.set_exception(exc)
            else:
                self._owner.log.info("listener lost", bind=str(self._bind), reason=str(exc))
        finally:
            record.ended(self._ordered or End(EndReason.CLOSED))
            bound.cancel()

    async def _forward(self, principal: Principal, link: Link, accepted: Accepted) -> None:
        conn = self._owner.conn
        await self._owner.openings.begin()
        if not self._owner.has_room:
            self._owner.log_no_room(str(self._bind))
            return  # it is not claimed, and the workspace closes it
        session = Dialled(self._owner, Kind.FORWARDED, str(self._bind))
        session.begin()
        try:
            accepting = self._owner.shared.gateway.accept(principal, link, accepted.connection_id)
            async with session.recorded(principal), accepting as connection:
                if isinstance(self._bind, TcpTarget):
                    port = self._bind.port or self._port
                    tcp = conn.create_tcp_channel()
                    await tcp.accept(
                        lambda: session, self._spelling, port, accepted.peer_host, accepted.peer_port
                    )
                else:
                    unix = conn.create_unix_channel()
                    await unix.accept(lambda: session, bytes_of(self._spelling))  # type: ignore[arg-type]
                await session.carry_open(connection, link)
        except asyncssh.ChannelOpenError as exc:
            session.failed(exc)
            self._owner.log.info(
                "client refused a forwarded connection", bind=str(self._bind), reason=exc.reason
            )
        except FairleadError as exc:
            session.failed(exc)
            self._owner.log.info("forwarded connection lost", bind=str(self._bind), reason=str(exc))
