"""Recordings that nobody made, and a store in memory that can be told to fail or to hang."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from proxy.recording.manifest import Manifest, Place
from proxy.recording.store import StorageError


def a_shell(recording: str, **facts: Any) -> Manifest:
    """Describe a recorded shell of alice's; `facts` add to it."""
    return Manifest(
        id=recording,
        kind="shell",
        format="asciicast-2",
        user="alice",
        user_string="alice+dev",
        blueprint="dev",
        connection="c1",
        client_address="192.0.2.7",
        fingerprint="SHA256:x",
        proxy_id="p1",
        **facts,
    )


class FakeStore:
    """See Store. `fails` raises, `hangs` never answers, until told otherwise."""

    def __init__(self) -> None:
        self.bodies: dict[Place, bytearray] = {}
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.finished: list[Place] = []
        self.calls = 0
        self.fails = False
        self.hangs = False
        self.slow_s = 0.0

    async def _do(self) -> None:
        self.calls += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise StorageError("no space left on device")
        await asyncio.sleep(self.slow_s)

    async def append(self, place: Place, number: int, offset: int, block: bytes) -> None:
        await self._do()
        body = self.bodies.setdefault(place, bytearray())
        assert len(body) >= offset, "a hole"
        body[offset:] = block

    async def finish(self, place: Place) -> None:
        await self._do()
        self.finished.append(place)

    async def put_manifest(self, place: Place, content: bytes) -> None:
        await self._do()
        self.manifests[place.day, place.id] = content

    async def manifest(self, day: str, recording: str) -> bytes | None:
        await self._do()
        return self.manifests.get((day, recording))

    async def read(self, place: Place) -> AsyncIterator[bytes]:
        await self._do()
        yield bytes(self.bodies.get(place, b""))

    async def days(self) -> Sequence[str]:
        await self._do()
        return sorted({day for day, _ in self.manifests})

    async def ids(self, day: str, prefix: str = "") -> Sequence[str]:
        await self._do()
        return sorted(one for of, one in self.manifests if of == day and one.startswith(prefix))

    async def delete(self, place: Place) -> None:
        await self._do()
        self.bodies.pop(place, None)
        self.manifests.pop((place.day, place.id), None)

    async def close(self) -> None:
        return
