"""Names of environment variables that the workspace of a connection takes from its client.

`sshd` answers failure to a name that its AcceptEnv does not have (RFC 4254 §6.4). Which names the blueprint
has is known a moment after the login. An `env` request that wants an answer waits for that; one that wants
none, as those of OpenSSH, does not. shelld decides on its own what a program gets.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from asyncssh.packet import Boolean, SSHPacket, String

_ENV = String("env") + Boolean(True)


class AcceptedNames:
    """Patterns of names, once they are known."""

    def __init__(self, wait_s: float) -> None:
        """`wait_s` is how long `known` waits at most."""
        self._wait_s = wait_s
        self._patterns: tuple[str, ...] | None = None
        self._settled = asyncio.Event()

    @property
    def is_settled(self) -> bool:
        """Return whether waiting would change nothing."""
        return self._settled.is_set()

    def settle(self, patterns: Sequence[str] | None) -> None:
        """Learn the patterns; None when they cannot be known, so that every name is taken."""
        self._patterns = None if patterns is None else tuple(patterns)
        self._settled.set()

    async def known(self) -> None:
        """Wait until the patterns are settled, or the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                await self._settled.wait()
        self._settled.set()  # no caller waits twice

    def take(self, name: str) -> bool:
        """Return whether the workspace takes a variable of this name, as far as is known."""
        return self._patterns is None or any(fnmatchcase(name, pattern) for pattern in self._patterns)


def wants_answer(packet: SSHPacket) -> bool:
    """Return whether the rest of a CHANNEL_REQUEST is an `env` request that is to be answered."""
    return packet.get_remaining_payload().startswith(_ENV)
