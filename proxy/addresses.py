"""Addresses as text: sources for limits, networks, `host:port`, and names of this machine."""

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


def source_of(address: str) -> str:
    """Return the unit of limits: an IPv4 address, or the /64 of IPv6, which one subscriber has.

    Text that is no address is a source of its own. An IPv4 address mapped into IPv6, as a dual-stack
    socket shows it, is that IPv4 address.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse addresses and CIDR ranges. Raises: ValueError naming the first that is neither."""
    return tuple(map(_network, texts))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8") from None
    raise ValueError(f"{text!r} has bits behind its prefix; the network is {wider}")


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Return whether an address lies in one of these networks; False for text that is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`; an empty host or `*` means every address.

    Raises: ValueError naming the text.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    numeric = port.isascii() and port.isdecimal()
    if not colon or not numeric or int(port) > 65_535 or (":" in bare and bare == host):
        raise ValueError(f"{text!r} is not host:port (an IPv6 address goes in brackets)")
    return ("" if bare == "*" else bare), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether `host` can only be this machine; a name that merely resolves there does not count."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_localhost_name(host: str) -> bool:
    """Tell whether `host` is `localhost` or below it, which is loopback by RFC 6761 §6.3.

    The system's resolver may not; `http.client` and browsers resolve these names themselves.
    """
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")
