"""An API server that answers from a script, and a front door of a real one that misbehaves on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(
    code: int, message: str = "not today", reason: str = "", headers: dict[str, str] | None = None
) -> Answer:
    """Refuse as Kubernetes does."""

    async def answer(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}
        return web.json_response(body, status=code, headers=headers)

    return answer


def body(value: Any, code: int = 200) -> Answer:
    """Answer with an object."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(value, status=code)

    return answer


def raw(text: str, code: int = 200) -> Answer:
    """Answer as something in between does, that is no API server."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=code)

    return answer


def listing(*items: dict[str, Any], version: str = "1", more: str = "") -> Answer:
    """Answer a list."""
    return body({"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)})


def stream(*lines: Any, then: str = "end", pause_s: float = 0.0) -> Answer:
    """Answer a watch with objects, then `end` it, `hang` or `cut` the connection."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await asyncio.sleep(pause_s)
            text = line if isinstance(line, str) else json.dumps(line) + "\n"
            await response.write(text.encode())
        if then == "hang":
            await asyncio.sleep(3_600)
        if then == "cut" and request.transport is not None:
            request.transport.abort()
        return response

    return answer


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.sleep(3_600)
    raise AssertionError("unreachable")


async def cut(request: web.Request) -> web.StreamResponse:
    """Break the connection."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@dataclass
class ApiServer:
    """Gives the answers of a script in turn, the last one for ever."""

    script: list[Answer]
    seen: list[web.Request] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        await request.read()
        return await (self.script.pop(0) if len(self.script) > 1 else self.script[0])(request)

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.seen]


@dataclass
class Fault:
    """What befalls the next `times` requests that `hits` says yes to."""

    hits: Callable[[web.Request], bool]
    answer: Answer
    times: int = 1
    befell: int = 0


class Front:
    """Hands every request on to a real API server, but for those that a fault befalls."""

    def __init__(self, upstream: str, headers: dict[str, str]) -> None:
        self._upstream = upstream
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None
        self.faults: list[Fault] = []
        self.down = False
        self._relays: set[asyncio.Task[Any]] = set()

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def break_watches(self) -> None:
        """End every request that is under way, as a restart of the server does."""
        for task in tuple(self._relays):
            task.cancel()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            return await cut(request)
        for fault in self.faults:
            if fault.befell < fault.times and fault.hits(request):
                fault.befell += 1
                await request.read()
                return await fault.answer(request)
        return await self._relay(request)

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            return await self._hand_on(request)
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            self._relays.discard(task)

    async def _hand_on(self, request: web.Request) -> web.StreamResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False))
        kept = {key: request.headers[key] for key in ("Content-Type", "Accept") if key in request.headers}
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            data=await request.read(),
            headers=kept | self._headers,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as upstream:
            response = web.StreamResponse(status=upstream.status)
            response.content_type = upstream.content_type
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            return response

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


@asynccontextmanager
async def serving(answer: Answer, directory: Path) -> AsyncIterator[Path]:
    """Serve on loopback; gives the kubeconfig that leads there."""
    server = web.Server(answer)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    file = directory / f"kubeconfig-{port}"
    file.write_text(json.dumps(kubeconfig(f"http://{host}:{port}")))
    try:
        yield file
    finally:
        await runner.cleanup()


def kubeconfig(server: str, contexts: Iterable[str] = ("test",)) -> dict[str, Any]:
    """Describe one cluster, and one user for each context."""
    names = list(contexts)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": name, "user": {"token": f"token-of-{name}"}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in names],
        "current-context": names[0],
    }
