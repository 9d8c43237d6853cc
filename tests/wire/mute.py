"""Clients that say nothing, or half of what they should: `python -m tests.wire.mute PORT CONNECTIONS HOLD_S`.

A third never speaks, a third sends a version and no more, a third stops within its KEXINIT; twenty share
an address of loopback. Prints one JSON object: what the proxy did with them.
"""

import asyncio
import json
import resource
import sys
from collections import Counter

_SAID = (b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x05\xdc\x07\x14" + b"x" * 40)


async def _one(number: int, port: int, hold_s: float, tally: Counter[str]) -> None:
    address = f"127.77.{number // 20 // 250}.{number // 20 % 250 + 1}"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    except OSError:
        tally["not connected"] += 1
        return
    try:
        async with asyncio.timeout(hold_s):
            writer.write(_SAID[number % 3])
            heard = b""
            while piece := await reader.read(4_096):
                heard += piece
        tally["hung up on, with a version" if heard.startswith(b"SSH-2.0") else "hung up on"] += 1
    except TimeoutError:
        tally["held until the end"] += 1
    except OSError:
        tally["hung up on"] += 1
    finally:
        writer.close()


async def _flood(port: int, connections: int, hold_s: float) -> Counter[str]:
    tally: Counter[str] = Counter()
    await asyncio.gather(*(_one(number, port, hold_s, tally) for number in range(connections)))
    return tally


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port, connections, hold_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(asyncio.run(_flood(port, connections, hold_s))))
