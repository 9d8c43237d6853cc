"""Addresses that a forward must not reach: ports and directories of a proxy on the same machine.

The proxy sends them with each request, because they change at each of its starts. This is a policy for
forwards and no security boundary: a program in such a workspace runs as the same account, and may connect
itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shelld.forwards.rules import plain_address

_Identity = tuple[int, int]
"""Device and inode: the same for every name of a directory, through symbolic links and bind mounts."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Ports of this machine, and directories with their whole content."""

    ports: frozenset[int] = frozenset()
    directories: tuple[str, ...] = ()

    def holds_address(self, family: int, address: tuple[str, int] | tuple[str, int, int, int]) -> bool:
        """Return whether a resolved address leads to one of the ports."""
        return address[1] in self.ports and _is_of_this_machine(family, address)

    def holds_path(self, path: str, home: str) -> bool:
        """Return whether a socket's path is below one of the directories and not below `home`.

        Symbolic links are followed. A socket with several hard links counts too: another name may be there.
        """
        if not self.directories:
            return False
        real = Path(os.path.realpath(path))
        with suppress(OSError):
            if real.stat().st_nlink > 1:
                return True
        own, reserved = set(_identities([home])), set(_identities(self.directories))
        for above in real.parents:
            found = set(_identities([str(above)]))
            if found & own:
                return False
            if found & reserved or str(above) in self.directories:
                return True
        return False


def _identities(paths: tuple[str, ...] | list[str]) -> Iterator[_Identity]:
    for path in paths:
        with suppress(OSError):
            found = os.stat(path)
            yield found.st_dev, found.st_ino


def _is_of_this_machine(family: int, address: tuple[str, int] | tuple[str, int, int, int]) -> bool:
    """Return whether an address is one of this machine: only such an address can be bound."""
    plain = plain_address(address[0])
    if plain is None or plain.is_loopback or plain.is_unspecified:
        return True
    if plain.version == 4:
        family, address = socket.AF_INET, (str(plain), 0)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address[0], 0, *address[2:]))
        except OSError:
            return False
    return True
