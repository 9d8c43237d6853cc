"""The PROXY protocol, versions 1 and 2: the client's address, sent by a load balancer. Pure.

Source: https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt
"""

import ipaddress
from dataclasses import dataclass

V1_MAX_BYTES = 107
"""Longest header of version 1 with its CRLF (§2.1)."""
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED_BYTES = 16
_V2_SIZES = {0x11: 12, 0x21: 36, 0x12: 12, 0x22: 36}
"""Bytes of the addresses by family and transport: TCP and UDP over IPv4 and IPv6."""


class HeaderInvalid(Exception):
    """The input is no header. The message is for the log and repeats nothing of the input."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Both ends of the connection between client and load balancer."""

    client: tuple[str, int]
    server: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header of `size` bytes."""

    size: int
    addresses: Addresses | None
    """None for UNKNOWN, LOCAL and families without address and port: the addresses of the socket count."""


def may_be_header(start: bytes) -> bool:
    """Return whether a header may begin with these bytes, however few they are."""
    return b"PROXY "[: len(start)] == start[:6] or V2_SIGNATURE[: len(start)] == start[: len(V2_SIGNATURE)]


def is_header(start: bytes) -> bool:
    """Return whether these first bytes certainly begin a header."""
    return start.startswith((b"PROXY ", V2_SIGNATURE))


def parse(data: bytes, max_bytes: int) -> Header | None:
    """Parse the header at the start of `data`; return None while more bytes are needed.

    Raises: HeaderInvalid as early as it is certain, and for a header longer than `max_bytes`.
    """
    if not may_be_header(data):
        raise HeaderInvalid("no header")
    if data.startswith(b"PROXY "):
        return _parse_v1(data)
    return _parse_v2(data, max_bytes) if len(data) >= _V2_FIXED_BYTES else None


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_MAX_BYTES)
    if end < 0:
        if len(data) >= V1_MAX_BYTES:
            raise HeaderInvalid("version 1: no end of line")
        return None
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise HeaderInvalid("version 1: not ASCII") from None
    size = end + 2
    if words[1] == "UNKNOWN":
        return Header(size, None)  # the rest of the line is ignored (§2.1)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise HeaderInvalid("version 1: not six words of a known family")
    _, family, source, destination, source_port, destination_port = words
    kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    return Header(
        size,
        Addresses(
            (_v1_address(source, kind), _v1_port(source_port)),
            (_v1_address(destination, kind), _v1_port(destination_port)),
        ),
    )


def _v1_address(text: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> str:
    if "%" in text:
        raise HeaderInvalid("version 1: an address with a zone")
    try:
        return _plain(kind(text))
    except ValueError:
        raise HeaderInvalid("version 1: an address that is none of its family") from None


def _v1_port(text: str) -> int:
    if not text.isdecimal() or len(text) > 5 or (text[0] == "0" and text != "0") or int(text) > 65_535:
        raise HeaderInvalid("version 1: a port that is none")
    return int(text)


def _parse_v2(data: bytes, max_bytes: int) -> Header | None:
    version_command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    size = _V2_FIXED_BYTES + length
    if version_command >> 4 != 2 or version_command & 0xF > 1:
        raise HeaderInvalid("version 2: unknown version or command")
    if size > max_bytes:
        raise HeaderInvalid(f"version 2: longer than {max_bytes} bytes")
    if len(data) < size:
        return None
    needed = _V2_SIZES.get(family)
    if version_command & 0xF == 0 or needed is None:
        return Header(size, None)  # LOCAL, or a family without address and port
    if length < needed:
        raise HeaderInvalid("version 2: no room for its addresses")
    body = data[_V2_FIXED_BYTES : _V2_FIXED_BYTES + needed]  # the remaining bytes are TLVs, which are ignored
    width = (needed - 4) // 2
    client, server = (_plain(ipaddress.ip_address(body[at : at + width])) for at in (0, width))
    ports = int.from_bytes(body[-4:-2], "big"), int.from_bytes(body[-2:], "big")
    return Header(size, Addresses((client, ports[0]), (server, ports[1])))


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
