"""The web front alone: a road of plain TCP to apps of this machine, without gateway, gRPC and workspace."""

import argparse
import asyncio
from collections.abc import Iterable
from typing import cast

import uvloop

from proxy.errors.programs import OpenFailed, OpenFailedKind
from proxy.model import TcpTarget
from proxy.settings.web import WebSettings
from proxy.userstring import UserString
from proxy.web.front import Front
from proxy.web.gate import Asked, Pass, Verdict
from proxy.web.listening import Listener, bind
from proxy.web.opening import DirectOpener
from proxy.web.origins import Origins
from proxy.web.road import Address, Buffer, Receiver, Wire
from proxy.web.upstream import Pool


class _TcpWire(asyncio.Protocol):
    """A TCP connection as a Wire."""

    def __init__(self, receiver: Receiver, buffer_bytes: int) -> None:
        self._receiver = receiver
        self._buffer_bytes = buffer_bytes
        self._transport: asyncio.Transport
        self.data_received = receiver.data_received  # type: ignore[method-assign]
        self.connection_lost = receiver.connection_lost  # type: ignore[method-assign]
        self.pause_writing = receiver.pause_writing  # type: ignore[method-assign]
        self.resume_writing = receiver.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._buffer_bytes)

    def eof_received(self) -> bool:
        return bool(self._receiver.eof_received())

    def write(self, data: Buffer) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(pieces)

    def write_eof(self) -> None:
        if not self._transport.is_closing():
            self._transport.write_eof()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        self._transport.abort()


class TcpRoad:
    """Leads to ports of this machine."""

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self.opened = 0
        """Connections that were made so far."""

    async def open(self, address: Address, receiver: Receiver) -> Wire:
        """Connect to a port on 127.0.0.1. Raises: OpenFailed."""
        target = address.target
        assert isinstance(target, TcpTarget)
        wire = _TcpWire(receiver, self._buffer_bytes)
        try:
            await asyncio.get_running_loop().create_connection(lambda: wire, "127.0.0.1", target.port)
        except OSError as exc:
            raise OpenFailed(OpenFailedKind.REFUSED, exc.strerror or str(exc)) from exc
        self.opened += 1
        return wire


class OneApp:
    """A gate that sends every request to one port."""

    def __init__(self, port: int) -> None:
        target = TcpTarget("127.0.0.1", port)
        self._verdict = Pass(Address("alice", UserString("alice", "dev"), target), is_public=True)

    def at_once(self, asked: Asked) -> Verdict:
        """Let everything pass."""
        del asked
        return self._verdict

    async def decide(self, asked: Asked) -> Verdict:
        """Let everything pass."""
        return self.at_once(asked)


async def serve(listen: str, app_port: int) -> None:
    """Serve `app.localhost` until cancelled; prints the port."""
    settings = WebSettings(listen=listen, max_connections_per_address=100_000, max_connections=100_000)
    sockets = await bind(settings)
    port = int(sockets[0].getsockname()[1])
    origins = Origins("http", "localhost", port)
    road = TcpRoad(settings.buffer_bytes)
    front = Front(settings, origins, OneApp(app_port), DirectOpener(Pool(road, settings)))
    front.start()
    listener = Listener(settings, front, lambda address: False)
    listener.start(sockets)
    print(port, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Run the front as a process of its own, so that its CPU can be counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--app", type=int, required=True)
    args = parser.parse_args()
    uvloop.run(serve(args.listen, args.app))


if __name__ == "__main__":
    main()
