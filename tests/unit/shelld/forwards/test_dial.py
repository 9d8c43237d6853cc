"""Order of addresses."""

import socket
from typing import Any

from shelld.forwards.dial import interleave


def entry(family: int, host: str) -> Any:
    return (family, socket.SOCK_STREAM, 6, "", (host, 1))


def test_families_alternate_and_keep_their_order() -> None:
    six = [entry(socket.AF_INET6, f"::{n}") for n in range(3)]
    four = [entry(socket.AF_INET, f"192.0.2.{n}") for n in range(2)]
    assert interleave([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert interleave([]) == []
    assert interleave(four) == four
