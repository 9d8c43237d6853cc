"""However the network cuts the stream, the same bytes arrive: both roads of a packet share their state."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.wire.harness import Fairlead, run_async

DATA = random.Random(7).randbytes(3_000_000)


@asynccontextmanager
async def cutter(port: int, largest: int) -> AsyncIterator[int]:
    """Forward TCP to `port` in pieces of 1 to `largest` bytes, each on its own."""
    cuts = random.Random(largest)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            while data:
                size = cuts.randint(1, largest)
                writer.write(data[:size])
                data = data[size:]
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())  # type: ignore[arg-type]
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer), return_exceptions=True)
        finally:
            for end in (writer, up_writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait(served, timeout=10)
        await server.wait_closed()


@pytest.mark.parametrize("largest", [40, 5_000, 60_000])
@pytest.mark.parametrize(
    "options",
    [("-o", "RekeyLimit=500K"), ("-c", "aes256-gcm@openssh.com"), ("-c", "chacha20-poly1305@openssh.com")],
    ids=["rekey", "aes256", "chacha"],
)
async def test_bytes_survive_any_cut(fairlead: Fairlead, largest: int, options: tuple[str, ...]) -> None:
    fairlead.ssh("true")  # what is said of a starting workspace is not of this test
    data = DATA if largest > 1_000 else DATA[:200_000]
    async with cutter(fairlead.port, largest) as port:
        words = [*fairlead.command("ssh", "-p", str(port), "-o", "StrictHostKeyChecking=no", *options), "fl"]
        status, out, err = await run_async([*words, "tee /dev/stderr"], data)
    assert status == 0
    for name, received in (("stdout", out), ("stderr", err)):
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest(), name
