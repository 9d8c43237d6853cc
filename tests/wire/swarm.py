"""Many clients, as a program of its own: `python -m tests.wire.swarm PORT CONNECTIONS AT_ONCE HOLD_S`.

Each is somebody else, with a key and an address of loopback of its own for every five; each waits for an
approval that does not come. Prints one JSON object: what became of them.
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any

import asyncssh

_KEYS = 8  # making keys is not what is measured; names make the flows distinct


class _Client(asyncssh.SSHClient):
    def __init__(self, seen: Counter[str]) -> None:
        self._seen = seen

    def kbdint_auth_requested(self) -> str:
        return ""

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> list[str]:
        del name, lang, prompts
        self._seen["shown a code" if "enter the code" in instructions else "shown something else"] += 1
        return []


async def _one(
    number: int, port: int, keys: list[asyncssh.SSHKey], gate: asyncio.Semaphore, hold_s: float
) -> Counter[str]:
    seen: Counter[str] = Counter()
    address = f"127.1.{number // 5 // 250}.{number // 5 % 250 + 1}"
    try:
        async with gate, asyncio.timeout(hold_s):
            connection = await asyncssh.connect(
                "127.0.0.1",
                port,
                local_addr=(address, 0),
                username=f"stranger{number}",
                client_keys=[keys[number % _KEYS]],
                client_factory=lambda: _Client(seen),
                known_hosts=None,
                config=None,
                agent_path=None,
                login_timeout=0,
                connect_timeout=hold_s,
            )
            connection.abort()
            seen["let in"] += 1
    except TimeoutError:
        seen["waited until the end"] += 1
    except asyncssh.DisconnectError as exc:
        reason = exc.reason.partition(" (reference")[0].partition(";")[0]
        seen[f"refused: {reason}"] += 1
    except OSError as exc:
        seen[f"not connected: {exc}"] += 1
    return seen


async def _swarm(port: int, connections: int, at_once: int, hold_s: float) -> Counter[str]:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(_KEYS)]
    gate = asyncio.Semaphore(at_once)
    everybody = [_one(number, port, keys, gate, hold_s) for number in range(connections)]
    return sum(await asyncio.gather(*everybody), Counter())


if __name__ == "__main__":
    port, connections, at_once = (int(word) for word in sys.argv[1:4])
    print(json.dumps(asyncio.run(_swarm(port, connections, at_once, float(sys.argv[4])))))
