"""A provider by script, clocks without waiting, and stand-ins for the neighbours of onboarding."""

import asyncio
import base64
import heapq
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.http.client import HttpClient
from proxy.http.clock import Clock
from proxy.http.secret import Secret
from proxy.identity.keys import PublicKey, parse_public_key
from proxy.identity.profile import KeyList, Profile
from proxy.onboarding.authcode import CodeClient
from proxy.onboarding.device_flow import Authorization, Tokens
from proxy.onboarding.providers.base import ApprovalFacts, Gate, Tools
from proxy.settings.onboarding import HttpSettings, KeyListSettings

FIXTURES = Path(__file__).parent.parent / "fixtures"


def new_key() -> PublicKey:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return parse_public_key(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def fixture(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


# ------------------------------------------------------------------------------------------ clocks


class Leaping:
    """Every wait is over at once, and the time has passed; `waits` is what was waited."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.waits: list[float] = []
        self.clock = Clock(lambda: self.time, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(round(seconds, 3))
        self.time += seconds
        await asyncio.sleep(0)


class Manual:
    """Time passes only by `advance`; whoever waits wakes in order."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self.clock = Clock(lambda: self.time, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.time + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        until = self.time + seconds
        await settle()
        while self._waiting and self._waiting[0][0] <= until:
            self.time, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
            await settle()
        self.time = until
        await settle()


async def settle() -> None:
    """Let everything that can run without I/O run."""
    for _ in range(50):
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------- a server by script


@dataclass(frozen=True)
class Say:
    """One answer; bytes go out as they are, everything else as JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


HANG = Say(status=-1)
HANG_UP = Say(status=-2)
CUT = Say(status=-3)
"""Half of an answer, then nothing."""

Answer = Say | Callable[[web.Request], Awaitable[web.StreamResponse]]


def said(entry: dict[str, Any], **headers: str) -> Say:
    """Make an answer of an entry of a fixture."""
    if "text" in entry:
        return Say(entry["text"].encode(), entry["status"], {"Content-Type": entry["media_type"], **headers})
    return Say(entry["body"], entry["status"], headers)


class Scripted:
    """Answers each path by its script, whose last answer repeats; remembers what it was asked."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self._runner: web.AppRunner | None = None
        self._hanging = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> "Scripted":
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hanging.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def on(self, path: str, *answers: Answer) -> None:
        self.script[path] = list(answers)

    def count(self, path: str) -> int:
        return sum(1 for asked in self.asked if asked[1] == path)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        form = {key: str(value) for key, value in (await request.post()).items()}
        path = request.path if request.path in self.script else request.path_qs
        self.asked.append((request.method, path, form, dict(request.headers)))
        answers = self.script.get(path)
        if not answers:
            return web.json_response({"error": "not_found"}, status=404)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not isinstance(answer, Say):
            return await answer(request)
        if answer.status < 0:
            return await self._misbehave(request, answer)
        if isinstance(answer.body, bytes):
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        return web.json_response(answer.body, status=answer.status, headers=answer.headers)

    async def _misbehave(self, request: web.Request, answer: Say) -> web.StreamResponse:
        if answer is HANG:
            await self._hanging.wait()
            return web.Response(status=500)
        assert request.transport is not None
        if answer is CUT:
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b'{"access_to')
        request.transport.close()
        return web.Response(status=500)


# ------------------------------------------------------------------------------------- neighbours


def tools(clock: Clock, keys: KeyListSettings | None = None, **limits: Any) -> Tools:
    """Make what providers are built with; `await tools.http.close()` when done."""
    return Tools(HttpClient(HttpSettings(**limits)), clock, keys or KeyListSettings())


class Registered:
    """A Registrar that remembers, and can be told to fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, str]] = []
        self.waiting: list[tuple[str, str, str, str]] = []
        self.renewed: list[tuple[str, str]] = []
        self.failure: Exception | None = None

    async def waitlist(self, profile: Profile, name: str, key: PublicKey, source: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.waiting.append((profile.subject, name, key.fingerprint, source))

    async def register(self, profile: Profile, name: str, key: PublicKey, provider: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.calls.append((profile.subject, name, key.fingerprint, provider))

    async def renew(self, profile: Profile, name: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.renewed.append((profile.subject, name))


class StubProvider:
    """A provider whose person answers when the test says so."""

    def __init__(self, clock: Clock, *, approval: str = "device") -> None:
        self.name = "stub"
        self.approval: Any = approval
        self.can_onboard = True
        self.clock = clock
        self.account = "alice"
        self.listed: list[PublicKey] | None = []
        self.confirmed: frozenset[str] = frozenset()
        self.answer: asyncio.Future[None] | None = None
        self.starts: list[ApprovalFacts] = []
        self.polls = 0
        self.start_failure: Exception | None = None

    async def start_device(self, about: ApprovalFacts, max_lifetime_s: float) -> Authorization:
        self.starts.append(about)
        await asyncio.sleep(0)
        if self.start_failure is not None:
            raise self.start_failure
        number = len(self.starts)
        uri = "https://stub.example/device"
        expires_at = self.clock.now() + min(600, max_lifetime_s)
        return Authorization(
            Secret(f"device-code-{number}"), f"CODE-{number}", uri, f"{uri}?c={number}", expires_at, 5.0
        )

    def approve(self) -> None:
        self._answered().set_result(None)

    def fail(self, exc: Exception) -> None:
        self._answered().set_exception(exc)

    def _answered(self) -> "asyncio.Future[None]":
        if self.answer is None:
            self.answer = asyncio.get_running_loop().create_future()
        return self.answer

    async def poll_device(self, authorization: Authorization, gate: Gate | None = None) -> Tokens:
        while True:
            await self.clock.sleep(authorization.interval_s)
            if gate is not None:
                await gate()
            self.polls += 1
            if self._answered().done():
                self._answered().result()
                return Tokens(Secret("access"))

    async def code_client(self) -> CodeClient:
        raise NotImplementedError

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        del tokens, nonce
        return Profile(
            "stub", "https://stub.example", f"id-{self.account}", self.account, self.account,
            confirmed=self.confirmed,
        )  # fmt: skip

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        del subject, login, access
        return None if self.listed is None else KeyList(frozenset(key.blob for key in self.listed))


def line_of(blob: bytes) -> str:
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"
