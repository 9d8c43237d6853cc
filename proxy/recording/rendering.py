"""A recording as a page, made by a process of its own.

Screens are computed by a terminal core out of bytes that a recorded program chose. That takes a processor for
seconds, and a fault of the core must end nothing else; so the proxy hands the lines to a child, which knows
no settings and opens no file, and passes on the page.

    stdin: a line of JSON with manifest and verification, then the lines of the recording
    stdout: the page
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

from proxy.aio import TaskOwner
from proxy.errors.stores import RecordingError
from proxy.recording.archive import VerificationResult
from proxy.recording.lines import MAX_LINE_BYTES
from proxy.recording.manifest import Manifest
from proxy.recording.page import page

_PIECE_BYTES = 64 * 1024
_NICENESS = 10
"""Of the child: the sessions of users come first."""


async def rendered(
    manifest: Manifest, result: VerificationResult, lines: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield the page, piece by piece. Raises: RecordingError when the store or the child fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.recording.rendering"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    tasks = TaskOwner("rendering")
    feeding = tasks.spawn(_feed(process.stdin, manifest, result, lines), name=manifest.id)
    try:
        while piece := await process.stdout.read(_PIECE_BYTES):
            yield piece
        await feeding
        if status := await process.wait():
            raise RecordingError(
                f"recording {manifest.id} cannot be shown: its page ended with status {status}"
            )
    finally:
        if process.returncode is None:
            process.kill()
        await tasks.close()
        await process.wait()


async def _feed(
    stdin: asyncio.StreamWriter, manifest: Manifest, result: VerificationResult, lines: AsyncIterator[bytes]
) -> None:
    """Hand everything to the child. Raises: RecordingError when the store does not answer."""
    head = {"manifest": manifest.model_dump(mode="json"), "result": asdict(result)}
    try:
        stdin.write(json.dumps(head).encode() + b"\n")
        async for line in lines:
            stdin.write(line)
            await stdin.drain()
    except ConnectionError:
        return  # the child has ended, which its status tells
    finally:
        stdin.close()


async def _main() -> None:
    """Make the page of the recording on stdin."""
    reader = sys.stdin.buffer
    head = json.loads(reader.readline())
    manifest, result = Manifest.model_validate(head["manifest"]), VerificationResult(**head["result"])

    async def lines() -> AsyncIterator[bytes]:
        while line := reader.readline(MAX_LINE_BYTES + 1):
            yield line

    async for text in page(manifest, result, lines()):
        sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    os.nice(_NICENESS)
    asyncio.run(_main())
