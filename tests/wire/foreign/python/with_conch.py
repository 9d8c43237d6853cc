"""The rows by Twisted Conch."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.conch.ssh import (
    channel,
    common,
    connection,
    filetransfer,
    forwarding,
    keys,
    session,
    transport,
    userauth,
)
from twisted.internet import defer, protocol, reactor, threads
from twisted.python import failure

from tests.wire.foreign.python import rows

AT = rows.arguments()


class Transport(transport.SSHClientTransport):
    """A client that takes any host key and counts key exchanges."""

    exchanges = 0

    def verifyHostKey(self, _key: bytes, _fingerprint: str) -> "defer.Deferred[int]":
        self.exchanges += 1
        return defer.succeed(1)

    def connectionSecure(self) -> None:
        self.requestService(Login(AT.user.encode(), Connection()))


class Login(userauth.SSHUserAuthClient):
    """Authentication by the key of the test."""

    def getPublicKey(self) -> Any:
        return None if self.lastAuth == b"publickey" else keys.Key.fromFile(AT.key).public()

    def getPrivateKey(self) -> Any:
        return defer.succeed(keys.Key.fromFile(AT.key))


class Connection(connection.SSHConnection):
    """A connection that runs the rows as soon as it is there."""

    def serviceStarted(self) -> None:
        super().serviceStarted()
        defer.ensureDeferred(run_all(self)).addBoth(finish)

    def channel_forwarded_tcpip(self, window: int, packet: int, _data: bytes) -> Any:
        return Returned(remoteWindow=window, remoteMaxPacket=packet)


class Channel(channel.SSHChannel):
    """A channel that collects what comes; `done` fires with itself when it is closed."""

    name = b"session"

    def __init__(self, name: bytes = b"session", **options: Any) -> None:
        self.name = name
        super().__init__(**options)
        self.out = self.err = b""
        self.status: int | None = None
        self.opened: defer.Deferred[Channel] = defer.Deferred()
        self.done: defer.Deferred[Channel] = defer.Deferred()
        self._awaited: list[tuple[bytes, defer.Deferred[None]]] = []

    def channelOpen(self, _data: bytes) -> None:
        self.opened.callback(self)

    def openFailed(self, reason: Any) -> None:
        self.opened.errback(failure.Failure(reason))

    def dataReceived(self, data: bytes) -> None:
        self.out += data
        for words, shown in [pair for pair in self._awaited if pair[0] in self.out]:
            self._awaited.remove((words, shown))
            shown.callback(None)

    def extReceived(self, _kind: int, data: bytes) -> None:
        self.err += data

    def request_exit_status(self, data: bytes) -> bool:
        self.status = int.from_bytes(data, "big")
        return True

    def eofReceived(self) -> None:
        if self.name == b"direct-tcpip":
            self.loseConnection()

    def closed(self) -> None:
        self.done.callback(self)

    def shows(self, words: bytes) -> "defer.Deferred[None]":
        shown: defer.Deferred[None] = defer.Deferred()
        self._awaited.append((words, shown))
        return shown


class Returned(channel.SSHChannel):
    """A forwarded connection on which everything goes back."""

    name = b"forwarded-tcpip"

    def dataReceived(self, data: bytes) -> None:
        self.write(data)

    def eofReceived(self) -> None:
        self.loseConnection()


async def opened(conn: Connection, made: Channel, data: bytes = b"") -> Channel:
    made.conn = conn
    conn.openChannel(made, data)
    return await made.opened


async def run(conn: Connection, command: bytes, data: bytes = b"") -> dict[str, Any]:
    made = await opened(conn, Channel())
    await conn.sendRequest(made, b"exec", common.NS(command), wantReply=True)
    made.write(data)
    conn.sendEOF(made)
    await made.done
    return {"out": made.out.decode(), "err": made.err.decode(), "status": made.status}


async def pty(conn: Connection) -> dict[str, Any]:
    made = await opened(conn, Channel())
    wanted = session.packRequest_pty_req(b"vt100", (33, 91, 0, 0), b"")
    await conn.sendRequest(made, b"pty-req", wanted, wantReply=True)
    await conn.sendRequest(made, b"shell", b"", wantReply=True)
    shown = made.shows(b"33 91")
    made.write(b"stty size\n")
    await shown
    conn.sendRequest(made, b"window-change", session.packRequest_window_change((40, 120, 0, 0)))
    made.write(rows.SIZE_TWICE.encode())
    await made.done
    return {"shown": made.out.decode(), "status": made.status}


async def sftp(conn: Connection) -> filetransfer.FileTransferClient:
    made = await opened(conn, Channel())
    await conn.sendRequest(made, b"subsystem", common.NS(b"sftp"), wantReply=True)
    client = filetransfer.FileTransferClient()
    client.makeConnection(made)
    made.dataReceived = client.dataReceived
    return client


async def symlink(conn: Connection) -> dict[str, Any]:
    client = await sftp(conn)
    # Sent as the draft says, to every server; OpenSSH takes the target first.
    await client.makeLink(rows.TARGET.encode(), AT.file("link").encode())
    target = os.fsdecode(await client.readLink(AT.file("link").encode()))
    return {"target": target, "note": "the program swaps the arguments, as for `sshd`"}


async def transfer(conn: Connection) -> dict[str, Any]:
    client = await sftp(conn)
    data = Path(AT.file("payload")).read_bytes()
    creating = filetransfer.FXF_WRITE | filetransfer.FXF_CREAT | filetransfer.FXF_TRUNC
    put = await client.openFile(AT.file("put").encode(), creating, {})
    for start in range(0, len(data), 32_768):
        await put.writeChunk(start, data[start : start + 32_768])
    await put.close()
    source = await client.openFile(AT.file("put").encode(), filetransfer.FXF_READ, {})
    got = b""
    while len(got) < len(data):
        got += await source.readChunk(len(got), 32_768)
    await source.close()
    Path(AT.file("got")).write_bytes(got)
    return {}


async def local_forward(conn: Connection) -> dict[str, Any]:
    target = forwarding.packOpen_direct_tcpip(("127.0.0.1", AT.echo_port), ("127.0.0.1", 1))
    made = await opened(conn, Channel(b"direct-tcpip"), target)
    made.write(AT.piece())
    conn.sendEOF(made)
    await made.done
    return {"digest": rows.digest(made.out)}


async def remote_forward(conn: Connection) -> dict[str, Any]:
    wanted = forwarding.packGlobal_tcpip_forward(("127.0.0.1", 0))
    bound = int.from_bytes(await conn.sendGlobalRequest(b"tcpip-forward", wanted, wantReply=True), "big")
    heard = await threads.deferToThread(rows.through, bound, b"hello")
    listened = forwarding.packGlobal_tcpip_forward(("127.0.0.1", bound))
    await conn.sendGlobalRequest(b"cancel-tcpip-forward", listened, wantReply=True)
    return {"heard": heard.decode()}


async def rekey(conn: Connection) -> dict[str, Any]:
    """Exchange keys anew, after which Conch asks for a service again."""
    before = conn.transport.exchanges
    conn.transport.sendKexInit()
    done = await run(conn, b"echo after")
    return {"out": done["out"], "exchanges": conn.transport.exchanges - before}


async def keepalive(conn: Connection) -> dict[str, Any]:
    for _ in range(3):
        answer = conn.sendGlobalRequest(b"keepalive@openssh.com", b"", wantReply=True)
        await answer.addErrback(lambda refused: refused.trap(Exception))  # "no such request" is an answer
    return await run(conn, b"echo kept")


ROWS: dict[str, Callable[[Connection], Awaitable[dict[str, Any]]]] = {
    "exec": lambda conn: run(conn, rows.COMMAND.encode(), b"out\n"),
    "pty": pty,
    "symlink": symlink,
    "transfer": transfer,
    "local_forward": local_forward,
    "remote_forward": remote_forward,
    "keepalive": keepalive,
    "rekey": rekey,
}


async def run_all(conn: Connection) -> None:
    rows.tell("login", {"note": "it knows no AEAD cipher and no `-etm` MAC: `ssh.macs` lets it in"})
    for row, made in ROWS.items():
        try:
            answer = defer.ensureDeferred(made(conn)).addTimeout(rows.PATIENCE_S, reactor)
            rows.tell(row, await answer)
        except Exception as exc:
            rows.told(row, exc)


def finish(outcome: Any) -> None:
    if isinstance(outcome, failure.Failure):
        outcome.printTraceback()
    reactor.stop()


def main() -> None:
    protocol.ClientCreator(reactor, Transport).connectTCP("127.0.0.1", AT.port)
    reactor.run()


if __name__ == "__main__":
    main()
