"""Listening sockets of the workspace, and accepted connections that wait for a claim."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from shelld import aio
from shelld.errors import OpenCode, OpenError, open_code
from shelld.forwards import rules
from shelld.forwards.dial import NOTHING, check_path, unix_error
from shelld.forwards.reserved import Reserved
from shelld.launch.account import Account
from shelld.launch.fds import readable
from shelld.launch.launch import Launcher
from shelld.log import Log
from shelld.octets import bytes_of
from shelld.settings import ForwardSettings
from shelld.temp_dirs import PrivateDirectories
from shelld.values import MAX_SOCKET_PATH_BYTES

_log = Log("shelld.forwards.listen")
_BACKLOG = 128
MAX_UNCLAIMED = 128
"""Unclaimed connections of one listener; more wait in the kernel's backlog."""
_OUT_OF_FDS_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Arrival:
    """An accepted connection that waits for its claim."""

    connection_id: str
    host: str
    """Empty for a Unix path."""
    port: int


@dataclass(slots=True)
class Listener:
    """One bound address, on one or two sockets."""

    listener_id: str
    account: Account
    address: str
    """The bound host, or the path."""
    port: int = 0
    sockets: list[socket.socket] = field(default_factory=list)
    path: str = ""
    ssh_agent: bool = False
    arrivals: asyncio.Queue[Arrival] = field(default_factory=asyncio.Queue)
    unclaimed: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_UNCLAIMED))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    """An unclaimed connection."""

    connection: socket.socket
    listener: Listener
    expiry: asyncio.TimerHandle


class Listeners:
    """Every listener of this shelld. On the event loop's thread only."""

    def __init__(
        self,
        forward: ForwardSettings,
        runtime_dir: str,
        accept_timeout_s: float,
        launcher: Launcher,
        private: PrivateDirectories,
        home: str = "",
    ) -> None:
        """Take rules and directories; ssh-agent sockets are in `runtime_dir` if writable, else in `private`.

        Sockets may be bound in `home`, the workspace's own, wherever it lies.
        """
        self._home = home
        self._forward = forward
        self._runtime_dir = runtime_dir
        self._accept_timeout_s = accept_timeout_s
        self._launcher = launcher
        self._open: dict[str, Listener] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._private = private

    @contextlib.asynccontextmanager
    async def tcp(self, listener_id: str, host: str, port: int, account: Account) -> AsyncIterator[Listener]:
        """Listen on a TCP address while the context lasts; port 0 selects any free one.

        As with `sshd` and GatewayPorts no, a host that the rules do not permit becomes loopback.

        Raises: OpenError.
        """
        self._check_id(listener_id)
        hosts = self._hosts(host, port)
        if 0 < port < _first_unprivileged_port() and account.uid != 0:
            raise OpenError(OpenCode.PERMISSION, f"port {port} is for root alone")
        sockets = _bind_tcp(hosts, port)
        bound = sockets[0].getsockname()
        listener = Listener(listener_id, account, bound[0], bound[1], sockets)
        async with self._serving(listener):
            yield listener

    @contextlib.asynccontextmanager
    async def unix(
        self, listener_id: str, path: str, account: Account, reserved: Reserved = NOTHING
    ) -> AsyncIterator[Listener]:
        """Listen on a new Unix path of mode 0600 that belongs to the account, while the context lasts.

        An existing path, of any type, is in use: `sshd`'s StreamLocalBindUnlink no.

        Raises: OpenError.
        """
        self._check_id(listener_id)
        check_path(path)
        permitted = rules.may_use_path(self._forward.listen_unix, path)
        if not permitted or reserved.holds_path(path, self._home):
            raise OpenError(OpenCode.PROHIBITED, f"listening on {path} is not permitted in this workspace")
        try:
            if account.ids is None:
                made = bind_private(path)
            else:
                made = await self._launcher.bind(path, account.ids, backlog=_BACKLOG)
        except OSError as error:
            raise unix_error(error, path) from error
        async with self._serving(Listener(listener_id, account, path, sockets=[made], path=path)) as listener:
            yield listener

    @contextlib.asynccontextmanager
    async def ssh_agent(self, listener_id: str, name: str, account: Account) -> AsyncIterator[Listener]:
        """Listen on a socket called `name` that only the account can reach, while the context lasts.

        Raises: OpenError.
        """
        self._check_id(listener_id)
        if not name or name in {".", ".."} or "/" in name or "\0" in name:
            raise OpenError(OpenCode.INVALID, "an ssh-agent socket has a plain file name")
        path, made = self._bind_agent(name, account)
        listener = Listener(listener_id, account, path, sockets=[made], path=path, ssh_agent=True)
        async with self._serving(listener):
            yield listener

    def agent_socket(self, listener_id: str, account: Account) -> str:
        """Return the path of an open ssh-agent listener of `account`.

        Raises: KeyError.
        """
        listener = self._open[listener_id]
        if not listener.ssh_agent or listener.account.name != account.name:
            raise KeyError(listener_id)
        return listener.path

    def account_of(self, connection_id: str) -> str:
        """Return the name of the account whose listener accepted a connection.

        Raises: OpenError NOT_FOUND, as `claim` does.
        """
        waiting = self._waiting.get(connection_id)
        if waiting is None:
            raise OpenError(OpenCode.NOT_FOUND, "no such connection waits to be accepted")
        return waiting.listener.account.name

    def claim(self, connection_id: str) -> socket.socket:
        """Return an accepted connection; the caller closes it.

        Raises: OpenError NOT_FOUND when it was claimed, has expired, or never existed.
        """
        waiting = self._waiting.pop(connection_id, None)
        if waiting is None:
            raise OpenError(OpenCode.NOT_FOUND, "no such connection waits to be accepted")
        waiting.expiry.cancel()
        waiting.listener.unclaimed.release()
        return waiting.connection

    # ------------------------------------------------------------------------------- serving

    @contextlib.asynccontextmanager
    async def _serving(self, listener: Listener) -> AsyncIterator[Listener]:
        self._open[listener.listener_id] = listener
        listener.tasks = [
            aio.spawn(self._accept(listener, made), name=f"listen {listener.address}")
            for made in listener.sockets
        ]
        try:
            yield listener
        finally:
            del self._open[listener.listener_id]
            # A task of its own: the socket must be removed even when this call is cancelled twice.
            await asyncio.shield(aio.spawn(self._close(listener), name=f"close {listener.address}"))

    async def _accept(self, listener: Listener, made: socket.socket) -> None:
        while True:
            await listener.unclaimed.acquire()
            connection = await _next_connection(made)
            connection_id = secrets.token_hex(16)
            loop = asyncio.get_running_loop()
            expiry = loop.call_later(self._accept_timeout_s, self._expire, connection_id)
            self._waiting[connection_id] = _Waiting(connection, listener, expiry)
            host, port = _peer(connection)
            listener.arrivals.put_nowait(Arrival(connection_id, host, port))

    def _expire(self, connection_id: str) -> None:
        _log.info("connection was not claimed in time")
        with contextlib.suppress(OpenError):
            self.claim(connection_id).close()

    async def _close(self, listener: Listener) -> None:
        await aio.end(listener.tasks)
        for made in listener.sockets:
            made.close()
        if listener.path:
            await self._unlink(listener)
        for connection_id, waiting in list(self._waiting.items()):
            if waiting.listener is listener:
                self.claim(connection_id).close()

    async def _unlink(self, listener: Listener) -> None:
        try:
            if listener.ssh_agent or listener.account.ids is None:
                os.unlink(bytes_of(listener.path))
            else:
                await self._launcher.unlink(listener.path, listener.account.ids)
        except OSError as error:
            if error.errno != errno.ENOENT:
                _log.warning("socket not removed", reason=error.strerror)

    # ------------------------------------------------------------------------------- binding

    def _check_id(self, listener_id: str) -> None:
        if not listener_id or listener_id in self._open:
            raise OpenError(OpenCode.INVALID, "a listener needs an id of its own")

    def _hosts(self, host: str, port: int) -> list[str]:
        """Return the numeric addresses to bind; the first one must succeed."""
        parsed = [rules.parse_tcp(text) for text in self._forward.listen_tcp]
        if host not in rules.LOOPBACK_NAMES and rules.may_bind(parsed, host, port):
            return ["0.0.0.0", "::"] if host in {"", "*"} else [host]  # noqa: S104 - the rules permit it
        if rules.may_bind(parsed, "localhost", port):
            return [host] if host in {"127.0.0.1", "::1"} else ["127.0.0.1", "::1"]
        raise OpenError(OpenCode.PROHIBITED, f"listening on port {port} is not permitted in this workspace")

    def _bind_agent(self, name: str, account: Account) -> tuple[str, socket.socket]:
        for directory in (self._runtime_dir, ""):
            try:
                path = os.path.join(directory or self._private.of(account), name)
                if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
                    continue
                _remove_stale(path)
                made = bind_private(path)
            except OSError as error:
                if directory and error.errno != errno.EADDRINUSE:
                    continue  # not writable, or missing: use the private directory
                raise unix_error(error, name) from error
            if account.ids is not None:
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
            return path, made
        raise OpenError(OpenCode.INVALID, "the ssh-agent socket's name is too long")


def bind_private(path: str) -> socket.socket:
    """Bind and listen on a Unix path that has mode 0600 from its creation on.

    Raises: OSError; EADDRINUSE when the path exists.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    before = os.umask(0o177)
    try:
        made.bind(bytes_of(path))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _remove_stale(path: str) -> None:
    """Remove a socket of a killed shelld: it has a name of shelld's, and no process answers there."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _bind_tcp(hosts: list[str], port: int) -> list[socket.socket]:
    """Bind every host to one port. Only the first must succeed: IPv6 may be off.

    Raises: OpenError.
    """
    sockets: list[socket.socket] = []
    for host in hosts:
        made = None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
            )[0]
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(_BACKLOG)
        except OSError as error:
            if made is not None:
                made.close()
            if not sockets:
                raise _bind_error(error, host, port) from error
            continue
        sockets.append(made)
        port = made.getsockname()[1]
    return sockets


def _bind_error(error: OSError, host: str, port: int) -> OpenError:
    if isinstance(error, socket.gaierror):
        return OpenError(OpenCode.INVALID, f"{host} is not an address of this workspace")
    return OpenError(open_code(error.errno), f"cannot listen on {host} port {port}: {error.strerror}")


def _first_unprivileged_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


async def _next_connection(made: socket.socket) -> socket.socket:
    while True:
        try:
            connection, _ = made.accept()
        except BlockingIOError:
            await readable(made.fileno())
        except ConnectionError:
            continue  # gone before it was accepted
        except OSError as error:
            _log.warning("accept failed", reason=error.strerror)
            await asyncio.sleep(_OUT_OF_FDS_PAUSE_S)  # otherwise it would fail in a busy loop
        else:
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection


def _peer(connection: socket.socket) -> tuple[str, int]:
    try:
        address = connection.getpeername()
    except OSError:
        return "", 0
    return ("", 0) if connection.family == socket.AF_UNIX else (str(address[0]), int(address[1]))
