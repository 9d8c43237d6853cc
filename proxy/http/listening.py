"""Sockets of Fairlead's pages, on every address that a browser of this machine may use for `login.localhost`.

A browser uses 127.0.0.1 or ::1 for that name. If Fairlead listened on one only, any program could listen at
the same port of the other one, and would be the same origin.
"""

import asyncio
import errno
import socket

_BESIDE = {
    "": ("0.0.0.0", "::"),  # noqa: S104 - the operator's choice
    "localhost": ("127.0.0.1", "::1"),
    "127.0.0.1": ("127.0.0.1", "::1"),
    "::1": ("::1", "127.0.0.1"),
    "0.0.0.0": ("0.0.0.0", "::1"),  # noqa: S104 - the operator's choice
    "::": ("::", "127.0.0.1"),
}
_NO_SUCH_FAMILY = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
_BACKLOG = 128
_TRIES = 20


async def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen on `host`, and on the address that browsers of this machine may try instead, at one port.

    Port 0 selects one that is free at both. An address family that this machine lacks is left out, unless it
    is that of `host` itself. Raises: OSError whose text names address and reason.
    """
    first, *others = _BESIDE.get(host) or (await _resolve(host),)
    for tries_left in reversed(range(_TRIES)):
        sockets = [_listen(first, port)]
        try:
            for other in others:
                sockets += _listen_if_there(other, sockets[0].getsockname()[1])
        except OSError as exc:
            for opened in sockets:
                opened.close()
            if port or not tries_left or exc.errno != errno.EADDRINUSE:
                raise
        else:
            return sockets
    raise AssertionError("unreachable")


async def _resolve(host: str) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise OSError(exc.errno, f"{host}: {exc.strerror}") from None
    return str(found[0][4][0])


def _listen_if_there(address: str, port: int) -> list[socket.socket]:
    try:
        return [_listen(address, port)]
    except OSError as exc:
        if exc.errno in _NO_SUCH_FAMILY:
            return []
        raise


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        place = f"[{address}]" if ":" in address else address
        raise OSError(exc.errno, f"{place}:{port}: {_reason(exc)}") from None


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).partition(" (while")[0]
