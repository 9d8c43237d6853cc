"""Sockets of the front: accept, the header of a load balancer, TLS from files that may change."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from proxy import proxyprotocol
from proxy.addresses import is_in, split_address
from proxy.aio import TaskOwner
from proxy.errors import SettingsError
from proxy.http.listening import open_sockets
from proxy.proxyprotocol import HeaderInvalid
from proxy.settings.web import WebSettings, WebTlsSettings
from proxy.web.connection import ClientConnection
from proxy.web.front import Front

_log = structlog.get_logger("web")

_OUT_OF_FILES_S = 0.2
"""Accepting rests for so long after it failed, for want of file descriptors mostly."""
_PEEK_S = 0.02
_MAX_HEADER_BYTES = 2_048

IsBanned = Callable[[str], bool]


class Certificates:
    """The TLS context in use; made anew when its files change."""

    def __init__(self, settings: WebTlsSettings) -> None:
        """Load the files. Raises: SettingsError when they cannot be used."""
        assert settings.cert is not None
        assert settings.key is not None
        self._cert, self._key = settings.cert, settings.key
        self._check_s = settings.check_s
        self._seen = self._signature()
        try:
            self.context = _context(self._cert, self._key)
        except (OSError, ssl.SSLError) as exc:
            raise SettingsError(f"web.tls: {self._cert}, {self._key}: {exc}") from None

    async def follow(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(self._check_s)
            self.look()

    def look(self) -> None:
        """Load the files when they are others; a pair that cannot be used is logged and changes nothing."""
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.context = _context(self._cert, self._key)
        except (OSError, ssl.SSLError) as exc:
            _log.error(
                "certificate not reloaded, the last good one stays", file=str(self._cert), reason=str(exc)
            )
        else:
            _log.info("certificate reloaded", file=str(self._cert))

    def _signature(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stat(file) for file in (self._cert, self._key))


def _stat(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key)
    return context


class Listener:
    """The sockets that accept connections for a front until closed."""

    def __init__(self, settings: WebSettings, front: Front, is_banned: IsBanned) -> None:
        """Load the files of TLS where it is wanted. Raises: SettingsError when they cannot be used."""
        self._settings = settings
        self._front = front
        self._is_banned = is_banned
        self._balancers = settings.proxy_networks
        self._certificates = None if settings.tls.cert is None else Certificates(settings.tls)
        self._tasks = TaskOwner("web-accept")
        self._sockets: list[socket.socket] = []

    def start(self, sockets: list[socket.socket]) -> None:
        """Accept on sockets that listen; they are closed by `close`."""
        self._sockets = sockets
        for one in sockets:
            one.setblocking(False)
            one.listen(self._settings.backlog)
            self._tasks.spawn(self._accept(one), name="accept")
        if self._certificates is not None:
            self._tasks.spawn(self._certificates.follow(), name="certificates")

    async def close(self) -> None:
        """Accept no more; connections stay."""
        await self._tasks.close()
        for one in self._sockets:
            one.close()
        self._sockets = []

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as exc:
                _log.warning("cannot accept", reason=exc.strerror or str(exc))
                await asyncio.sleep(_OUT_OF_FILES_S)
                continue
            is_balancer = is_in(peer[0], self._balancers)
            if is_balancer or self._is_welcome(peer[0]):
                self._tasks.spawn(self._enter(accepted, peer[0], is_balancer=is_balancer), name="connection")
            else:
                accepted.close()

    def _is_welcome(self, address: str) -> bool:
        is_counted = not is_in(address, self._front.trusted)
        return self._front.has_room(address, is_counted=is_counted) and not self._is_banned(address)

    async def _enter(self, accepted: socket.socket, address: str, *, is_balancer: bool) -> None:
        """Read the bytes before HTTP, then hand the connection to the front."""
        settings = self._settings
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if is_balancer:
                async with asyncio.timeout(settings.proxy_header_s):
                    address = await self._client_of(accepted) or address
                if not self._is_welcome(address):
                    accepted.close()
                    return
            tls = None if self._certificates is None else self._certificates.context
            is_counted = not is_in(address, self._front.trusted)
            connection = ClientConnection(self._front, address, settings.scheme_spoken, is_counted=is_counted)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else settings.head_s,
            )
        except (OSError, ValueError, TimeoutError, HeaderInvalid) as exc:
            _log.debug("connection refused", client=address, reason=str(exc) or type(exc).__name__)
            accepted.close()
        except BaseException:
            accepted.close()
            raise

    async def _client_of(self, accepted: socket.socket) -> str:
        """Take a PROXY header off a connection; gives the client's address, empty for the balancer's own.

        Not a byte behind the header is taken, so that TLS finds its own. Raises: HeaderInvalid, OSError.
        """
        seen = -1
        while True:
            await _readable(accepted)
            data = accepted.recv(_MAX_HEADER_BYTES, socket.MSG_PEEK)
            if not data:
                raise ConnectionResetError("closed before the PROXY header")
            if (header := proxyprotocol.parse(data, _MAX_HEADER_BYTES)) is not None:
                accepted.recv(header.size)
                return "" if header.addresses is None else header.addresses.client[0]
            if len(data) == seen:
                await asyncio.sleep(_PEEK_S)
            seen = len(data)


async def _readable(one: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(one, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(one)


async def bind(settings: WebSettings) -> list[socket.socket]:
    """Listen on `web.listen`, and on the other loopback address where browsers may take a name for that.

    Raises: SettingsError naming the address.
    """
    host, port = split_address(settings.listen)
    try:
        return await open_sockets(host, port)
    except OSError as exc:
        raise SettingsError(f"web.listen: cannot listen on {settings.listen}: {exc.strerror or exc}") from exc
