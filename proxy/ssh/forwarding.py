"""Forwarded connections and their channels: `direct-tcpip`, `direct-streamlocal` and `-R`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import asyncssh

from proxy.access import forward
from proxy.access.forward import ClientRefused, Opening
from proxy.access.relay import ChannelTraffic, Inbound, Outbound
from proxy.errors import FairleadError, user_sentence
from proxy.errors.programs import OpenFailed, OpenFailedKind, Refused
from proxy.model import Target, TcpTarget, UnixTarget, Visit
from proxy.octets import bytes_of
from proxy.sessions.live import LiveProgram, NoTraffic
from proxy.sessions.records import End, EndReason, Kind
from proxy.ssh.served import Served
from proxy.upstream.client import Link
from proxy.upstream.frame_codec import Buffer
from proxy.upstream.frames import Accepted


class ForwardSession(asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """The SSH end of one forwarded connection. Either side may have opened the channel."""

    def __init__(self, served: Served, kind: Kind, target: str = "") -> None:
        self._served = served
        self._inbound = Inbound(served.relay.buffer_bytes)
        self._outbound = Outbound(served.conn.writable)
        self._chan: Any = None
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._kind = kind
        self._target = target
        self._record: LiveProgram | None = None

    def warn(self, sentence: str) -> None:
        """Do nothing: a forwarded connection cannot show text to the user."""

    def end(self, sentence: str, end: End) -> None:
        """Close both sides."""
        self._served.log.info("forward ended from outside", reason=sentence)
        if self._record is not None:
            self._record.ended(end)
        if self._chan is not None:
            self._chan.abort()
        if self._task is not None:
            self._task.cancel()

    def connection_made(self, chan: Any) -> None:
        """Attach the channel to both buffers."""
        self._chan = chan
        self._inbound.attach(chan)
        self._outbound.attach(chan)

    def session_started(self) -> None:
        """Continue the opening that waits for the client's confirmation."""
        self._started.set()

    def data_received(self, data: Buffer, datatype: int | None) -> None:
        """Store data of the client."""
        if datatype is None:
            self._inbound.feed(data)

    def eof_received(self) -> bool:
        """Record the EOF of the client, and keep the channel open for the other direction."""
        self._inbound.feed_eof()
        return True  # half-close: the other direction goes on

    def pause_writing(self) -> None:
        """Stop writing while the channel's send buffer is full."""
        self._outbound.gate.shut()

    def resume_writing(self) -> None:
        """Continue writing."""
        self._outbound.gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake all waiting tasks: the channel is closed."""
        del exc
        self._outbound.gate.open()
        self._started.set()
        self._inbound.leave()

    def begin(self) -> LiveProgram:
        """Open the record. From now on `end` can end the forward."""
        traffic = ChannelTraffic(self._inbound, self._outbound)
        self._record = self._served.live.begin(self._kind, traffic, self, target=self._target)
        return self._record

    async def carry(
        self, record: LiveProgram, opening: Opening, open_client_end: Callable[[], Awaitable[None]]
    ) -> None:
        """Forward the connection from its opening to the close of the channel. Raises: as `forward.carry`."""
        try:
            await forward.carry(
                opening, open_client_end, record=record, inbound=self._inbound, outbound=self._outbound
            )
        finally:
            if self._chan is not None:
                self._chan.close()

    def dial(self, visit: Visit, target: Target) -> "asyncio.Future[None]":
        """Open the workspace's end, and forward bytes once the channel is confirmed.

        The future is done when the connection is open, or has its FairleadError. It is cancelled when `end`
        was called or the client ended first.
        """
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = self._served.tasks.spawn(self._dial(visit, target, opened), name="forward")
        return opened

    async def _dial(self, visit: Visit, target: Target, opened: "asyncio.Future[None]") -> None:
        async with AsyncExitStack() as turn:

            async def open_client_end() -> None:
                await turn.aclose()
                if not opened.done():
                    opened.set_result(None)
                await self._started.wait()

            try:
                await turn.enter_async_context(self._served.openings.dial())
                record = self.begin()
                await self.carry(record, self._served.gateway.dial(visit, target, record), open_client_end)
            except FairleadError as exc:
                if not opened.done():
                    opened.set_exception(exc)
                else:
                    self._served.log.debug("forward ended", code=exc.code, reason=str(exc))
            finally:
                opened.cancel()


async def dial(served: Served, target: Target) -> ForwardSession:
    """Connect from inside the workspace. The channel is confirmed only when that connection is open.

    Raises: asyncssh.ChannelOpenError with the reason that the workspace reported.
    """
    session = ForwardSession(served, Kind.FORWARD, str(target))
    try:
        await session.dial(served.visit, target)
    except FairleadError as exc:
        served.log.info("forward refused", target=str(target), code=exc.code, reason=str(exc))
        raise channel_open_error(exc, served.conn_id) from exc
    except asyncio.CancelledError:
        if (me := asyncio.current_task()) is not None and me.cancelling():
            raise
        # Only the dial was cancelled, not this task. asyncssh would leave the channel without an answer.
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "ended before it was open") from None
    return session


def channel_open_error(exc: FairleadError, reference: str) -> asyncssh.ChannelOpenError:
    """Return the open failure with the code of RFC 4254 §5.1 and the text that `ssh` prints."""
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
    """A `-R` listener in the workspace. Each connection to it becomes a channel to the client."""

    def __init__(self, served: Served, bind: TcpTarget | UnixTarget, spelling: str) -> None:
        super().__init__()
        self._served = served
        self._bind = bind
        self._spelling = spelling
        self._port = 0
        self._task: asyncio.Task[None] | None = None
        self._ordered: End | None = None

    @classmethod
    async def open(
        cls,
        served: Served,
        bind: TcpTarget | UnixTarget,
        spelling: str,
        closed: Callable[[], None],
    ) -> "RemoteListener | None":
        """Bind in the workspace. Return None, and log the reason, when that fails.

        `spelling` is the host or path as the client wrote it, because the client finds its forward by it.
        The reason is not sent: RFC 4254 §7.1 has no text in the refusal of a global request.
        """
        listener = cls(served, bind, spelling)
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        listener._task = served.tasks.spawn(listener._serve(served.visit, bound), name=f"listen {bind}")
        listener._task.add_done_callback(lambda _: closed())
        try:
            listener._port = await bound
        except FairleadError as exc:
            served.log.info("listener refused", bind=str(bind), code=exc.code, reason=str(exc))
            return None
        return listener

    def get_port(self) -> int:
        """Return the bound TCP port; 0 for a Unix socket."""
        return self._port

    def close(self) -> None:
        """Unbind. Connections that are already open go on."""
        if self._task is not None:
            self._task.cancel()

    def warn(self, sentence: str) -> None:
        """Do nothing: a listener cannot show text to the user."""

    def end(self, sentence: str, end: End) -> None:
        """Unbind by order of an operator or a limit."""
        self._served.log.info("listener ended from outside", bind=str(self._bind), reason=sentence)
        self._ordered = end
        self.close()

    async def wait_closed(self) -> None:
        """Wait until the listener has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _serve(self, visit: Visit, bound: "asyncio.Future[int]") -> None:
        served = self._served
        await served.openings.begin()
        record = served.live.begin(Kind.LISTEN, NoTraffic(), self, target=str(self._bind))
        try:
            listening = served.gateway.listen(visit, self._bind, served.new_listener_id())
            async with listening as (listener, link):
                if not bound.done():
                    bound.set_result(listener.port)
                async for accepted in listener.accepted():
                    served.tasks.spawn(self._forward(visit, link, accepted), name="forwarded")
        except FairleadError as exc:
            record.ended(End(EndReason.FAILED, f"{exc.code}: {exc}"))
            if not bound.done():
                bound.set_exception(exc)
            else:
                served.log.info("listener lost", bind=str(self._bind), reason=str(exc))
        finally:
            record.ended(self._ordered or End(EndReason.CLOSED))
            bound.cancel()

    async def _forward(self, visit: Visit, link: Link, accepted: Accepted) -> None:
        served, bind = self._served, str(self._bind)
        await served.openings.begin()
        if not served.has_room:
            served.log_no_room(bind)
            return  # not claimed, so that the workspace closes it
        session = ForwardSession(served, Kind.FORWARDED, bind)
        record = session.begin()
        opening = served.gateway.accept_recorded(visit, link, accepted.connection_id, bind, record)
        try:
            await session.carry(record, opening, lambda: self._open_channel(session, accepted))
        except ClientRefused as exc:
            served.log.info("client refused a forwarded connection", bind=bind, reason=str(exc))
        except FairleadError as exc:
            served.log.info("forwarded connection lost", bind=bind, reason=str(exc))

    async def _open_channel(self, session: ForwardSession, accepted: Accepted) -> None:
        """Open a channel to the client for the connection. Raises: ClientRefused."""
        conn = self._served.conn
        with client_refusals():
            if isinstance(self._bind, TcpTarget):
                tcp = conn.create_tcp_channel()
                port = self._bind.port or self._port
                await tcp.accept(
                    lambda: session, self._spelling, port, accepted.peer_host, accepted.peer_port
                )
            else:
                unix = conn.create_unix_channel()
                await unix.accept(lambda: session, bytes_of(self._spelling))  # type: ignore[arg-type]


@contextmanager
def client_refusals() -> Iterator[None]:
    """Turn a client's refusal of a channel into ClientRefused."""
    try:
        yield
    except asyncssh.ChannelOpenError as exc:
        raise ClientRefused(exc.reason) from exc
