"""Comparison of forward rules: one permits nothing that another does not. Pure; when in doubt, it says no.

shelld defines the meaning of rules (`shelld.forwards.rules`): a name rule decides on the requested name, a
network rule on its address; so neither ever covers the other.
"""

import ipaddress
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

_GLOB = re.compile(r"[*?\[]")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class _Rule:
    host: str
    network: _Network | None
    low: int
    high: int


def tcp_within(rule: str, rules: Iterable[str]) -> bool:
    """Return whether one of `rules` permits all that `rule` does; all rules are valid."""
    inner = _parse(rule)
    return any(_covers(_parse(outer), inner) for outer in rules)


def path_within(glob: str, globs: Iterable[str]) -> bool:
    """Return whether one of `globs` permits all paths that `glob` does."""
    if _GLOB.search(glob):
        return any(outer in {"*", glob} for outer in globs)
    plain = posixpath.normpath(glob)
    return any(fnmatchcase(plain, outer) for outer in globs)


def _covers(outer: _Rule, inner: _Rule) -> bool:
    if not (outer.low <= inner.low and inner.high <= outer.high):
        return False
    if outer.network is None and outer.host == "*":
        return True
    if outer.network is not None or inner.network is not None:
        return (
            outer.network is not None
            and inner.network is not None
            and outer.network.version == inner.network.version
            and inner.network.subnet_of(outer.network)  # type: ignore[arg-type]  # of one version
        )
    if _GLOB.search(inner.host):
        return inner.host == outer.host
    return fnmatchcase(inner.host, outer.host)


def _parse(rule: str) -> _Rule:
    host, _, port = rule.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]").lower()
    low, _, high = port.partition("-")
    ports = (0, 65_535) if port == "*" else (int(low), int(high or low))
    try:
        return _Rule(bare, ipaddress.ip_network(bare, strict=False), *ports)
    except ValueError:
        return _Rule(bare.rstrip("."), None, *ports)
