"""Listening TCP sockets of the workspace, and the accounts that own them: proc_net_tcp(5)."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LISTEN = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


@dataclass(frozen=True, slots=True)
class Listening:
    """One socket in state LISTEN."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    uid: int
    inode: int

    @property
    def takes_v4_loopback(self) -> bool:
        """Return whether a connection to 127.0.0.1 may reach it."""
        plain = getattr(self.address, "ipv4_mapped", None) or self.address
        return str(plain) in {"127.0.0.1", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound

    @property
    def takes_v6_loopback(self) -> bool:
        """Return whether a connection to ::1 may reach it."""
        return str(self.address) in {"::1", "::"}


def parse(lines: Iterable[str]) -> Iterator[Listening]:
    """Yield the listening sockets of a table; the kernel lists them before all others."""
    for line in lines:
        fields = line.split()
        if len(fields) < 10 or not fields[0].endswith(":"):
            continue  # the heading
        if fields[3] != _LISTEN:
            return
        address, _, port = fields[1].partition(":")
        yield Listening(_address(address), int(port, 16), int(fields[7]), int(fields[9]))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Decode an address: hexadecimal words of 32 bits in the machine's byte order."""
    raw = bytes.fromhex(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return ipaddress.ip_address(raw)


def of_port(port: int) -> list[Listening]:
    """Return the sockets that listen on a port. Raises: OSError where the kernel shows no table."""
    found: list[Listening] = []
    missing: OSError | None = None
    for table in _TABLES:
        try:
            with open(table, encoding="ascii") as lines:
                found.extend(one for one in parse(lines) if one.port == port)
        except OSError as error:
            missing = error  # a kernel without IPv6 has no second table
    if not found and missing is not None and missing.filename == _TABLES[0]:
        raise missing
    return found
