"""Connections from the workspace to TCP and Unix targets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from shelld import aio
from shelld.errors import OpenCode, OpenError, open_code
from shelld.forwards import rules
from shelld.forwards.reserved import Reserved
from shelld.launch.account import Account
from shelld.launch.launch import Launcher, LaunchError
from shelld.octets import bytes_of
from shelld.settings import ForwardSettings
from shelld.values import MAX_SOCKET_PATH_BYTES

_STAGGER_S = 0.25
"""RFC 8305 section 5: the recommended delay before the next address is tried beside the last."""
_RESOLVERS = 32
NOTHING = Reserved()

Resolved = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


@dataclass(frozen=True, slots=True)
class Dialer:
    """Connections that the forward rules permit."""

    forward: ForwardSettings
    timeout_s: float
    launcher: Launcher
    home: str = ""
    """The workspace's home; sockets in it may be dialled wherever it lies."""
    # Own threads: a dead name server must not fill the pool that all calls share.
    _resolvers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")
    )

    async def tcp(self, host: str, port: int, reserved: Reserved = NOTHING) -> socket.socket:
        """Connect to a name or address; of several addresses the first that answers is used.

        Each address is checked against the rules before the connection, which goes to exactly that address.

        Raises: OpenError.
        """
        if not host or "\0" in host or not 0 < port < 65536:
            raise OpenError(OpenCode.INVALID, "a TCP target needs a host and a port of 1 to 65535")
        where = f"{host[:255]} port {port}"
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._tcp(host, port, where, reserved)
        except TimeoutError:
            raise OpenError(
                OpenCode.TIMED_OUT, f"{where} did not answer within {self.timeout_s:g} s"
            ) from None

    async def _tcp(self, host: str, port: int, where: str, reserved: Reserved) -> socket.socket:
        found = await self._resolve(host, port)
        parsed = [rules.parse_tcp(text) for text in self.forward.tcp]
        allowed = [entry for entry in found if rules.may_dial(parsed, host, entry[4][0], port)]
        allowed = [entry for entry in allowed if not reserved.holds_address(entry[0], entry[4])]
        if not allowed:
            raise OpenError(OpenCode.PROHIBITED, f"forwarding to {where} is not permitted in this workspace")
        try:
            made = await _race(interleave(allowed))
        except OSError as error:
            raise OpenError(open_code(error.errno), f"{where}: {os.strerror(error.errno or 0)}") from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    async def _resolve(self, host: str, port: int) -> list[Resolved]:
        def look_up(flags: int) -> list[Resolved]:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))  # type: ignore[arg-type]

        with contextlib.suppress(socket.gaierror, UnicodeError):
            return look_up(socket.AI_NUMERICHOST)  # no thread where no name server is needed
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._resolvers, look_up, socket.AI_ADDRCONFIG if host != "localhost" else 0
            )
        except (socket.gaierror, UnicodeError) as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
            raise OpenError(OpenCode.UNREACHABLE, f"{host[:255]}: {reason}") from None

    async def unix(self, path: str, account: Account, reserved: Reserved = NOTHING) -> socket.socket:
        """Connect to a Unix path with the account's permissions.

        Raises: OpenError.
        """
        check_path(path)
        if not rules.may_use_path(self.forward.unix, path) or reserved.holds_path(path, self.home):
            raise OpenError(OpenCode.PROHIBITED, f"forwarding to {path} is not permitted in this workspace")
        return await self.app_socket(path, account)

    async def app_socket(self, path: str, account: Account) -> socket.socket:
        """Connect to a Unix path that the blueprint declares, without regard to the rules for forwards.

        Raises: OpenError.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                if account.ids is None and (made := _connect_at_once(path)) is not None:
                    return made
                return await self.launcher.connect(path, account.ids, timeout_s=self.timeout_s)
        except TimeoutError:
            raise OpenError(
                OpenCode.TIMED_OUT, f"{path} did not answer within {self.timeout_s:g} s"
            ) from None
        except OSError as error:
            raise unix_error(error, path) from error


def check_path(path: str) -> None:
    """Refuse text that cannot be the path of a socket.

    Raises: OpenError INVALID.
    """
    if not path.startswith("/") or "\0" in path:
        raise OpenError(OpenCode.INVALID, "a socket path must be absolute")
    if len(bytes_of(path)) > MAX_SOCKET_PATH_BYTES:
        raise OpenError(OpenCode.INVALID, f"a socket path has at most {MAX_SOCKET_PATH_BYTES} bytes")


def unix_error(error: OSError, path: str) -> OpenError:
    """Return the error with a sentence for a failed connect or bind of a Unix path."""
    stage = f" ({error.stage})" if isinstance(error, LaunchError) and not error.errno else ""
    code = OpenCode.TIMED_OUT if error.errno == errno.EAGAIN else open_code(error.errno)
    return OpenError(code, f"{path}: {error.strerror or error}{stage}")


def _connect_at_once(path: str) -> socket.socket | None:
    """Connect without waiting; None when the listener's backlog is full.

    Not `loop.sock_connect`: it treats the EAGAIN of a full backlog as a connection in progress.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.connect(bytes_of(path))
    except BlockingIOError:
        made.close()
        return None
    except OSError:
        made.close()
        raise
    return made


def interleave(found: Sequence[Resolved]) -> list[Resolved]:
    """Order addresses so that families alternate, the first answer's family first: RFC 8305 section 4."""
    if not found:
        return []
    first = [entry for entry in found if entry[0] == found[0][0]]
    other = [entry for entry in found if entry[0] != found[0][0]]
    ordered = []
    for position in range(max(len(first), len(other))):
        ordered.extend(first[position : position + 1])
        ordered.extend(other[position : position + 1])
    return ordered


async def _race(addresses: Sequence[Resolved]) -> socket.socket:
    """Try addresses in order, each shortly after the one before, or at once when that one failed.

    Raises: OSError of the first address when none answers.
    """
    attempts: list[asyncio.Task[socket.socket | OSError]] = []
    waiting = list(addresses)
    winner: socket.socket | None = None
    try:
        while winner is None and (waiting or not all(attempt.done() for attempt in attempts)):
            if waiting:
                attempts.append(aio.spawn(_attempt(waiting.pop(0)), name="dial attempt"))
            running = [attempt for attempt in attempts if not attempt.done()]
            if running:
                patience_s = _STAGGER_S if waiting else None
                await asyncio.wait(running, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            winner = next((made for made in _results(attempts) if isinstance(made, socket.socket)), None)
        if winner is None:
            raise next(made for made in _results(attempts) if isinstance(made, OSError))
        return winner
    finally:
        await aio.end(attempts)
        for made in _results(attempts):
            if isinstance(made, socket.socket) and made is not winner:
                made.close()


def _results(attempts: Sequence[asyncio.Task[socket.socket | OSError]]) -> list[socket.socket | OSError]:
    return [attempt.result() for attempt in attempts if attempt.done() and not attempt.cancelled()]


async def _attempt(entry: Resolved) -> socket.socket | OSError:
    family, _, _, _, address = entry
    try:
        return await connect_tcp(family, address)
    except OSError as error:
        return error


async def connect_tcp(family: int, address: tuple[str, int] | tuple[str, int, int, int]) -> socket.socket:
    """Connect to one numeric address, however long it takes. Raises: OSError."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
