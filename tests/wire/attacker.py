"""Somebody who tries one key after another, as a program: `python -m tests.wire.attacker PORT ADDRESS KEYS`.

Offers keys that nobody has, a few on each connection, from one address of loopback. Prints one JSON
object: how many keys were offered, and how many connections were heard.
"""

import asyncio
import json
import sys

import asyncssh

_KEYS_EACH = 5
_AT_ONCE = 4


async def _attack(port: int, address: str, keys: int) -> dict[str, int]:
    made = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(64)]
    tally = {"keys": 0, "heard": 0, "not heard": 0, "let in": 0}

    async def one(number: int) -> None:
        offered = [made[(number * _KEYS_EACH + step) % len(made)] for step in range(_KEYS_EACH)]
        try:
            connection = await asyncssh.connect(
                "127.0.0.1",
                port,
                local_addr=(address, 0),
                username="known0",
                client_keys=offered,
                known_hosts=None,
                config=None,
                agent_path=None,
            )
        except asyncssh.PermissionDenied:
            tally["heard"] += 1
            tally["keys"] += _KEYS_EACH
        except (asyncssh.Error, OSError):
            tally["not heard"] += 1
            tally["keys"] += _KEYS_EACH
        else:
            tally["let in"] += 1
            connection.abort()

    gate = asyncio.Semaphore(_AT_ONCE)

    async def one_of_few(number: int) -> None:
        async with gate:
            await one(number)

    await asyncio.gather(*(one_of_few(number) for number in range(keys // _KEYS_EACH)))
    return tally


if __name__ == "__main__":
    port, address, keys = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    print(json.dumps(asyncio.run(_attack(port, address, keys))))
