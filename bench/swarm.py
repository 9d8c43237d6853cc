"""Many clients in one process of their own, so that their memory and CPU are nobody else's.

Reads commands, one a line, and answers each with one line of JSON:
    open N        have N authenticated connections
    run           have one idle program (`cat`, no terminal) on each
    close         end them all
    rate N WIDTH  log in and out N times, WIDTH at a time
Key exchange, host key and cipher are the same whoever the server is: servers differ in what they
prefer, and the cost of a preference is not the cost of the server.
"""

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from time import perf_counter
from typing import Any

import asyncssh

_WIDTH = 8


class Swarm:
    """The connections, and what may be done with them."""

    def __init__(self, port: int, login: str, key: str) -> None:
        self._options: dict[str, Any] = {
            "port": port,
            "username": login,
            "client_keys": [key],
            "known_hosts": None,
            "config": None,
            "agent_path": None,
            "preferred_auth": "publickey",
            "kex_algs": ["curve25519-sha256"],
            "server_host_key_algs": ["ssh-ed25519"],
            "encryption_algs": ["aes128-gcm@openssh.com"],
            "compression_algs": ["none"],
            "login_timeout": 60,
        }
        self._connections: list[asyncssh.SSHClientConnection] = []
        self._programs: list[asyncssh.SSHClientProcess[bytes]] = []

    async def open(self, count: int) -> None:
        room = asyncio.Semaphore(_WIDTH)

        async def one() -> None:
            async with room:
                self._connections.append(await asyncssh.connect("127.0.0.1", **self._options))

        await asyncio.gather(*(one() for _ in range(count - len(self._connections))))

    async def run(self) -> None:
        for connection in self._connections[len(self._programs) :]:
            self._programs.append(await connection.create_process("exec cat", encoding=None))

    async def close(self) -> None:
        for connection in self._connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in self._connections))
        self._connections, self._programs = [], []

    async def rate(self, count: int, width: int) -> None:
        room = asyncio.Semaphore(width)

        async def one() -> None:
            async with room:
                connection = await asyncssh.connect("127.0.0.1", **self._options)
                connection.close()
                await connection.wait_closed()

        await asyncio.gather(*(one() for _ in range(count)))


async def _obey(swarm: Swarm) -> None:
    loop = asyncio.get_running_loop()
    while words := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        start = perf_counter()
        reply: dict[str, Any] = {}
        try:
            await getattr(swarm, words[0])(*map(int, words[1:]))
        except (OSError, asyncssh.Error) as exc:
            reply["error"] = f"{type(exc).__name__}: {exc}"
        print(json.dumps(reply | {"seconds": perf_counter() - start}), flush=True)


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m bench.swarm", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--login", required=True)
    parser.add_argument("--key", required=True)
    return parser.parse_args()


def main() -> None:
    """Obey until standard input ends."""
    arguments = _arguments()
    asyncssh.set_log_level("CRITICAL")
    asyncio.run(_obey(Swarm(arguments.port, arguments.login, arguments.key)))


if __name__ == "__main__":
    main()
