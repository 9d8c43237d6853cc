"""Connections to the listener of an app, which has to belong to the app's account."""

from __future__ import annotations

import pwd
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shelld.apps import listeners
from shelld.apps.listeners import Listening
from shelld.errors import OpenCode, OpenError, open_code
from shelld.forwards.dial import Dialer, connect_tcp
from shelld.forwards.reserved import Reserved
from shelld.launch.account import Account

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Address:
    """The address of an app: a port of a loopback address, or with port 0 a socket."""

    port: int = 0
    socket: str = ""

    def __str__(self) -> str:
        return f"port {self.port}" if self.port else f"socket {self.socket}"


@dataclass(frozen=True, slots=True)
class Reach:
    """The way to listeners of apps."""

    dialer: Dialer
    listening: Callable[[int], Sequence[Listening]] = listeners.of_port

    async def connect(self, address: Address, account: Account, reserved: Reserved) -> socket.socket:
        """Connect to an app; the caller closes the socket.

        Raises: OpenError REFUSED while nothing listens, PERMISSION when another account does.
        """
        if not address.port:
            return await self._unix(address, account)
        return await self._tcp(address, account, reserved)

    async def _unix(self, address: Address, account: Account) -> socket.socket:
        made = await self.dialer.app_socket(address.socket, account)
        uid = _UCRED.unpack(made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
        if uid != account.uid:
            made.close()
            raise _of_another(address, uid, account)
        return made

    async def _tcp(self, address: Address, account: Account, reserved: Reserved) -> socket.socket:
        found = self._listening(address.port)
        if any(one.takes_v4_loopback for one in found):
            family, host = socket.AF_INET, "127.0.0.1"
        elif any(one.takes_v6_loopback for one in found):
            family, host = socket.AF_INET6, "::1"
        elif found:
            reason = f"{address} is listened on at {found[0].address} only, and not at 127.0.0.1"
            raise OpenError(OpenCode.REFUSED, reason)
        else:
            raise OpenError(OpenCode.REFUSED, f"nothing listens on {address}")
        if reserved.holds_address(family, (host, address.port)):
            raise OpenError(OpenCode.PROHIBITED, f"{address} belongs to the proxy, not to the workspace")
        try:
            made = await connect_tcp(family, (host, address.port))
        except OSError as error:
            raise OpenError(open_code(error.errno), f"{address}: {error.strerror}") from error
        # Looked at now that the connection is made, so that no other process can come in between.
        if problem := self._owner_problem(address, account, is_v4=family == socket.AF_INET):
            made.close()
            raise problem
        return made

    def _owner_problem(self, address: Address, account: Account, *, is_v4: bool) -> OpenError | None:
        """Return the fault of the sockets that may have taken a connection; None for none."""
        try:
            found = self._listening(address.port)
        except OpenError as error:
            return error
        able = [one for one in found if (one.takes_v4_loopback if is_v4 else one.takes_v6_loopback)]
        foreign = next((one for one in able if one.uid != account.uid), None)
        if foreign is not None:
            return _of_another(address, foreign.uid, account)
        return None if able else OpenError(OpenCode.REFUSED, f"nothing listens on {address} any more")

    def inodes(self, address: Address) -> frozenset[int]:
        """Return the inodes of the sockets that listen on an app's port. Raises: OpenError."""
        return frozenset(one.inode for one in self._listening(address.port))

    def _listening(self, port: int) -> Sequence[Listening]:
        try:
            return self.listening(port)
        except OSError as error:
            reason = f"the owner of port {port} cannot be read: {error.strerror}"
            raise OpenError(OpenCode.PERMISSION, reason) from error


def _of_another(address: Address, uid: int, account: Account) -> OpenError:
    return OpenError(
        OpenCode.PERMISSION,
        f"{address} is listened on by another account ({_name(uid)}), not by {account.name}",
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
