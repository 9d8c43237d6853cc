"""Key exchanges that this installation of asyncssh has."""

from collections.abc import Iterable

from asyncssh.kex import get_kex_algs


def supported_key_exchanges(names: Iterable[str]) -> list[str]:
    """Return those of `names` that asyncssh can do, in order; some need a library that may be missing."""
    there = get_kex_algs()
    return [name for name in names if name.encode() in there]
