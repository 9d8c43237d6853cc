"""Key exchange algorithms that this installation of asyncssh supports."""

from collections.abc import Iterable

from asyncssh.kex import get_kex_algs


def supported_key_exchanges(names: Iterable[str]) -> list[str]:
    """Return those of `names` that asyncssh supports, in order; some need a library that may be missing."""
    there = get_kex_algs()
    return [name for name in names if name.encode() in there]
