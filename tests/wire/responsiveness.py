"""How long an echo takes, idle and beside a channel of the same connection whose client reads 100 kB/s.

A measurement, not a test: `python -m tests.wire.responsiveness` prints milliseconds.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import asyncssh

from tests.wire.harness import Fairlead

ROUNDS = 400


async def echo(program: "asyncssh.SSHClientProcess[bytes]") -> tuple[float, float]:
    """Give p50 and p99 of single keystrokes, in milliseconds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        program.stdin.write(b"x")
        await program.stdout.read(1)
        taken.append((time.perf_counter() - began) * 1_000)
        await asyncio.sleep(0.005)
    taken.sort()
    return round(taken[ROUNDS // 2], 2), round(taken[ROUNDS * 99 // 100], 2)


async def read_slowly(program: "asyncssh.SSHClientProcess[bytes]", enough: asyncio.Event) -> None:
    while not enough.is_set():
        await program.stdout.read(10_000)
        await asyncio.sleep(0.1)


async def measure(server: Fairlead) -> None:
    login = {"username": "alice+dev", "client_keys": [str(server.key)], "known_hosts": None, "config": None}
    async with asyncssh.connect("127.0.0.1", server.port, agent_path=None, **login) as client:
        raw = await client.create_process("stty raw -echo; printf go; cat", term_type="xterm", encoding=None)
        await raw.stdout.readuntil(b"go")
        print("idle, p50 and p99 in ms:", *await echo(raw))
        flood = await client.create_process("head -c 2G /dev/zero", encoding=None)
        enough = asyncio.Event()
        reading = asyncio.create_task(read_slowly(flood, enough))
        await asyncio.sleep(3)
        print("beside a slow reader:   ", *await echo(raw))
        enough.set()
        await reading


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        server = Fairlead(Path(directory))
        server.prepare()
        try:
            server.start()
            asyncio.run(measure(server))
        finally:
            server.close()


if __name__ == "__main__":
    main()
