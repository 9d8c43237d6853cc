"""Forward rules: the addresses that may be dialled and bound. Pure.

    tcp rule   = host ":" port
    host       = "*" / name-glob / address / network "/" bits        ("[...]" around IPv6)
    port       = "*" / number / low "-" high
    unix rule  = shell glob over the whole absolute path

A name rule tests the requested name: its author trusts the DNS that answers for it. An address or network
rule tests the resolved address, to which the connection then goes, so that a second answer of the DNS cannot
replace it.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class TcpRule:
    """One parsed rule; `network` is None for a name rule."""

    name: str
    network: Network | None
    low: int
    high: int

    def allows(self, name: str, address: Address | None, port: int) -> bool:
        """Return whether this rule permits one address of one name."""
        if not self.low <= port <= self.high:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return self.name == "*" or fnmatch.fnmatchcase(name.lower().rstrip("."), self.name)


def parse_tcp(text: str) -> TcpRule:
    """Parse one TCP rule.

    Raises: ValueError that quotes the rule.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"holds {text!r}, which is not host:port")
    host = host.removeprefix("[").removesuffix("]").lower()
    low, high = _ports(port, text)
    try:
        network: Network | None = ipaddress.ip_network(host, strict=False)
    except ValueError:
        if "/" in host or ":" in host:
            raise ValueError(f"holds {text!r}, whose host is neither a name nor a network") from None
        network = None
    return TcpRule(host, network, low, high)


def _ports(port: str, text: str) -> tuple[int, int]:
    if port == "*":
        return 0, 65535
    low, dash, high = port.partition("-")
    first, last = low, high if dash else low
    if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
        raise ValueError(f"holds {text!r}, whose port is no number, range or *")
    if not int(first) <= int(last) <= 65535:
        raise ValueError(f"holds {text!r}, whose ports are out of order or above 65535")
    return int(first), int(last)


def may_dial(rules: Iterable[TcpRule], name: str, address: str, port: int) -> bool:
    """Return whether `address`, one answer for `name`, may be dialled.

    `address` is numeric, possibly with a zone; an IPv4-mapped IPv6 address is tested as IPv4.
    """
    resolved = plain_address(address)
    return any(rule.allows(name, resolved, port) for rule in rules)


def may_bind(rules: Iterable[TcpRule], host: str, port: int) -> bool:
    """Return whether `host` (a name, an address, or "" and "*" for every address) may be bound.

    A rule for `localhost`, 127.0.0.1 or ::1 permits each of the three. Every address is permitted
    by the host "*" alone, never by a glob that happens to match.
    """
    wide = host in {"", "*", "0.0.0.0", "::"}  # noqa: S104 - tested here, not bound
    for rule in rules:
        if not rule.low <= port <= rule.high and port != 0:
            continue
        if rule.name == "*":
            return True
        if wide:
            continue
        if host in LOOPBACK_NAMES and rule.name.partition("/")[0] in LOOPBACK_NAMES:
            return True
        if rule.allows(host, plain_address(host), rule.low):
            return True
    return False


def may_use_path(globs: Iterable[str], path: str) -> bool:
    """Return whether a Unix path may be dialled or bound; `..` is resolved first."""
    plain = posixpath.normpath(path)
    return any(fnmatch.fnmatchcase(plain, glob) for glob in globs)


def plain_address(text: str) -> Address | None:
    """Parse a numeric address without its zone; None when it is a name."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address
