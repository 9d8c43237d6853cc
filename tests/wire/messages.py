"""A table of every message that a client may send: asyncssh's handlers, and all numbers from 1 to 255.

A handler is found by number (RFC 4250 §4.1.2), or by a name within a message: global requests, channel types
and channel requests. `rows()` has one well-formed message for each handler and an empty one for each other
number.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from asyncssh import auth, kex
from asyncssh.packet import Boolean, Byte, NameList, String, UInt32

from proxy.ssh import listener
from proxy.ssh.asyncssh_ext.channels import SessionChannel
from proxy.ssh.asyncssh_ext.connection import ServerConnection

GLOBAL_REQUEST, CHANNEL_OPEN, CHANNEL_REQUEST = 80, 90, 98
DISCONNECT, CHANNEL_DATA = 1, 94
_NUMBERS_OF_CHANNELS = range(93, 128)


class Handler(NamedTuple):
    """What asyncssh looks up: a number, and a name where the message has one."""

    number: int
    name: str = ""

    def __str__(self) -> str:
        return f"{self.number} {self.name}".strip()


@dataclass(frozen=True)
class Row:
    """One message."""

    handler: Handler
    payload: bytes

    def __str__(self) -> str:
        return str(self.handler)


def handlers() -> set[Handler]:
    """Enumerate what the server of this project and the asyncssh below it react to."""
    tables = [ServerConnection._packet_handlers, SessionChannel._packet_handlers]
    tables += [kex._kex_handlers[name.encode()][0]._packet_handlers for name in _key_exchanges()]
    tables += [handler._packet_handlers for handler in auth._server_auth_handlers.values()]
    numbers = {Handler(number) for table in tables for number in table}
    named = {Handler(GLOBAL_REQUEST, name) for name in _names(ServerConnection, "_global_request")}
    named |= {Handler(CHANNEL_OPEN, name) for name in _names(ServerConnection, "_open") if name != "channel"}
    named |= {Handler(CHANNEL_REQUEST, name) for name in _names(SessionChannel, "_request")}
    return numbers | named


def _key_exchanges() -> list[str]:
    return [name for name in listener._KEY_EXCHANGES if name.encode() in kex.get_kex_algs()]


def _names(owner: type, suffix: str) -> Iterator[str]:
    """Give the names of RFC 4250 and of OpenSSH that methods `_process_NAME_SUFFIX` stand for."""
    for method in dir(owner):
        if found := re.fullmatch(f"_process_(.+){suffix}", method):
            yield found[1].replace("_at_", "@").replace("_dot_", ".").replace("_", "-")


def rows(channel: int = 0) -> list[Row]:
    """Return the table; `channel` is the server's number of a channel of the sender."""
    table = [Row(handler, make(channel)) for handler, make in _WELL_FORMED.items()]
    known = {row.handler.number for row in table}
    table += [
        Row(Handler(number), UInt32(channel) if number in _NUMBERS_OF_CHANNELS else b"")
        for number in range(1, 256)
        if number not in known
    ]
    return sorted(table, key=lambda row: row.handler)


def _request(name: str, *arguments: bytes) -> "tuple[Handler, Callable[[int], bytes]]":
    handler = Handler(CHANNEL_REQUEST, name)
    body = String(name) + Boolean(True) + b"".join(arguments)
    return handler, lambda channel: UInt32(channel) + body


def _global(name: str, *arguments: bytes) -> "tuple[Handler, Callable[[int], bytes]]":
    body = String(name) + Boolean(True) + b"".join(arguments)
    return Handler(GLOBAL_REQUEST, name), lambda _: body


def _open(name: str, *arguments: bytes) -> "tuple[Handler, Callable[[int], bytes]]":
    body = String(name) + UInt32(9) + UInt32(65_536) + UInt32(32_768) + b"".join(arguments)
    return Handler(CHANNEL_OPEN, name), lambda _: body


def _plain(number: int, *parts: bytes) -> "tuple[Handler, Callable[[int], bytes]]":
    body = b"".join(parts)
    return Handler(number), lambda _: body


def _channel(number: int, *parts: bytes) -> "tuple[Handler, Callable[[int], bytes]]":
    body = b"".join(parts)
    return Handler(number), lambda channel: UInt32(channel) + body


_NONE = NameList([b"none"])
_ADDRESS = String("127.0.0.1") + UInt32(1)  # nobody listens on port 1

_WELL_FORMED: dict[Handler, Callable[[int], bytes]] = dict(
    [
        _plain(DISCONNECT, UInt32(11), String("bye"), String("")),
        _plain(2, String("x")),
        _plain(3, UInt32(0)),
        _plain(4, Boolean(True), String("x"), String("")),
        _plain(5, String("ssh-userauth")),
        _plain(6, String("ssh-userauth")),
        _plain(7, UInt32(1), String("x"), String("y")),
        _plain(20, bytes(16), *[_NONE] * 10, Boolean(False), UInt32(0)),
        _plain(21),
        *(_plain(number, String(bytes(32))) for number in (30, 31, 32, 33)),
        _plain(34, UInt32(2_048), UInt32(2_048), UInt32(8_192)),
        _plain(50, String("alice+dev"), String("ssh-connection"), String("none")),
        _plain(51, NameList([b"none"]), Boolean(False)),
        _plain(52),
        _plain(53, String("x"), String("")),
        _plain(61, UInt32(0)),
        *(_plain(number, String("x")) for number in (63, 65, 66)),
        _plain(GLOBAL_REQUEST, String("nothing@example.com"), Boolean(True)),
        _global("tcpip-forward", String("127.0.0.1"), UInt32(0)),
        _global("cancel-tcpip-forward", String("127.0.0.1"), UInt32(1)),
        _global("streamlocal-forward@openssh.com", String("/nowhere/at/all")),
        _global("cancel-streamlocal-forward@openssh.com", String("/nowhere/at/all")),
        _global("keepalive@openssh.com"),
        _global("hostkeys-prove-00@openssh.com", String("x")),
        _global("no-more-sessions@openssh.com"),
        _plain(81),
        _plain(82),
        _plain(CHANNEL_OPEN, String("nothing"), UInt32(9), UInt32(9), UInt32(9)),
        _open("session"),
        _open("direct-tcpip", _ADDRESS, _ADDRESS),
        _open("direct-streamlocal@openssh.com", String("/nowhere/at/all"), String(""), UInt32(0)),
        _open("forwarded-tcpip", _ADDRESS, _ADDRESS),
        _open("forwarded-streamlocal@openssh.com", String("/nowhere/at/all"), String("")),
        _open("auth-agent@openssh.com"),
        _open("x11", _ADDRESS),
        _open("tun@openssh.com", UInt32(1), UInt32(0)),
        _channel(91, UInt32(9), UInt32(65_536), UInt32(32_768)),
        _channel(92, UInt32(1), String("x"), String("")),
        _channel(93, UInt32(1)),
        _channel(CHANNEL_DATA, String("x")),
        _channel(95, UInt32(1), String("x")),
        _channel(96),
        _channel(97),
        _channel(CHANNEL_REQUEST, String("nothing"), Boolean(True)),
        _request("pty-req", String("xterm"), *[UInt32(80)] * 4, String("")),
        _request("x11-req", Boolean(False), String("MIT-MAGIC-COOKIE-1"), String("00"), UInt32(0)),
        _request("env", String("LANG"), String("C")),
        _request("shell"),
        _request("exec", String("true")),
        _request("subsystem", String("sftp")),
        _request("window-change", *[UInt32(80)] * 4),
        _request("xon-xoff", Boolean(True)),
        _request("signal", String("CONT")),
        _request("break", UInt32(0)),
        _request("exit-status", UInt32(0)),
        _request("exit-signal", String("TERM"), Boolean(False), String(""), String("")),
        _request("auth-agent-req@openssh.com"),
        _request("keepalive@openssh.com"),
        _request("eow@openssh.com"),
        _channel(99),
        _channel(100),
        _plain(192, String("PING!")),
    ]
)


def framed(row: Row) -> bytes:
    """Return a row as a packet of a connection without keys (RFC 4253 §6)."""
    body = Byte(row.handler.number) + row.payload
    padding = -(5 + len(body)) % 8
    padding += 8 if padding < 4 else 0
    return UInt32(1 + len(body) + padding) + Byte(padding) + body + bytes(padding)
