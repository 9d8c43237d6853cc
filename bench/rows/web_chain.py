"""Apps through all of Fairlead, with a signed-in user, policy and records, beside other proxies; one run.

Ours is browser → front → gateway → gRPC → shelld → app; the others have the app on their own machine. CPU is
that of the proxy itself, and shelld's is a line of its own.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from subprocess import DEVNULL
from time import monotonic, perf_counter
from typing import Literal

import aiohttp
import psutil
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bench.client import running as client
from bench.fairlead import fairlead_target
from bench.pairs import CANDIDATE, YARDSTICK, Metric, percentile
from bench.plan import MIB, Bench, require
from bench.processes import family_of, memory_of, own_cpu_s, wait_until
from bench.rows.web import app, chp, converse, find, running
from bench.targets import Target, free_port

_CLIENTS = 16
_WARM_REQUESTS = 400
_REQUESTS = 2_000
_ECHOES = 300
_IDLE = 500
_BLUEPRINT = """
apps:
  app: {{listen: {{port: {app}}}}}
  echo: {{listen: {{port: {echo}}}}}
"""
_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
_FRAME = b"\x82\x94\0\0\0\0" + b"e" * 20
"""20 bytes, masked with zeros."""
_ECHO = b"\x82\x14" + b"e" * 20

Fields = Mapping[str, str]


@dataclass(frozen=True)
class Way:
    """One way to the app and to the echo."""

    name: str
    port: int
    echo_port: int
    cpu: Callable[[], dict[str, float]]
    """Seconds by kind of process; the first is the proxy."""
    memory: Callable[[], int]
    """Own bytes of the process that serves the echo."""
    fields: Fields = field(default_factory=dict)
    echo_fields: Fields = field(default_factory=dict)
    prefix: str = ""
    echo_prefix: str = ""
    most_bytes: int = 0
    """The largest answer that it carries; 0: any."""


@dataclass
class Sample:
    """One sample of one way."""

    cpu_us: dict[str, float]
    requests: float
    download: float
    echo_ms: float


def web_chain(bench: Bench) -> list[Metric]:
    """Measure requests, a download, a WebSocket echo and idle WebSockets, in turns."""
    if find("nginx") is None:
        bench.say("no nginx found (Debian: apt install nginx): the row web-chain needs one as the app")
        return []
    size = bench.plan.file_bytes
    with ExitStack() as stack:
        app_port = stack.enter_context(app(bench.folder / "chain", size, bench.plan.warm_bytes))
        echo_port = free_port()
        stack.enter_context(running([sys.executable, "-m", "bench.wsecho", str(echo_port)], echo_port))
        target, ours = stack.enter_context(_ours(bench, app_port, echo_port))
        ways = [ours, *stack.enter_context(_others(bench, app_port, echo_port))]
        # Memory is read once, in processes that have done nothing else: later they have some left free.
        idle = {way.name: asyncio.run(_idle_kib(way)) for way in ways}
        for way in ways:
            asyncio.run(_ask_many(way, _WARM_REQUESTS))
        taken: dict[str, list[Sample]] = {way.name: [] for way in ways}
        forwarded: list[float] = []
        for _ in range(bench.plan.runs):
            for way in ways:
                taken[way.name].append(_sample(way, min(size, way.most_bytes or size)))
            forwarded.append(_forwarded(target, app_port, size))
    return _lines(taken, forwarded, idle)


def _lines(taken: dict[str, list[Sample]], forwarded: list[float], idle: dict[str, float]) -> list[Metric]:
    ours, others = taken.pop(CANDIDATE), taken
    lines = [_line("CPU of shelld, of a request", "µs", {CANDIDATE: [one.cpu_us["shelld"] for one in ours]})]
    download = [one.download for one in ours]
    both = {YARDSTICK: forwarded, CANDIDATE: download}
    lines.append(_line("download, beside our own -L", "MiB/s", both, "higher", "ratio ≥ 0.9"))
    for name, theirs in others.items():
        for what, unit, value, better in _WHAT:
            samples = {YARDSTICK: [value(one) for one in theirs], CANDIDATE: [value(one) for one in ours]}
            lines.append(_line(f"{what}, beside {name}", unit, samples, better))
        both = {YARDSTICK: [idle[name]], CANDIDATE: [idle[CANDIDATE]]}
        lines.append(_line(f"idle WebSocket, own memory of the proxy, beside {name}", "KiB", both))
    return lines


def _line(
    name: str,
    unit: str,
    samples: dict[str, list[float]],
    better: Literal["higher", "lower"] = "lower",
    goal: str = "",
) -> Metric:
    return Metric("web-chain", name, unit, samples, better, goal)


_WHAT: tuple[tuple[str, str, Callable[[Sample], float], Literal["higher", "lower"]], ...] = (
    ("CPU of the proxy, of a request", "µs", lambda one: one.cpu_us["proxy"], "lower"),
    ("requests", "1/s", lambda one: one.requests, "higher"),
    ("download", "MiB/s", lambda one: one.download, "higher"),
    ("WebSocket echo, p50", "ms", lambda one: one.echo_ms, "lower"),
)


# --------------------------------------------------------------------------------------- the ways


@contextmanager
def _ours(bench: Bench, app_port: int, echo_port: int) -> Iterator[tuple[Target, Way]]:
    port = free_port()
    env = {
        "FAIRLEAD_WEB__LISTEN": f"127.0.0.1:{port}",
        "FAIRLEAD_WEB__MAX_CONNECTIONS_PER_ADDRESS": "100000",
    }
    blueprint = _BLUEPRINT.format(app=app_port, echo=echo_port)
    identity = bench.targets[0].identity
    with fairlead_target(CANDIDATE, bench.folder / "web-chain", identity, env, blueprint) as target:
        target.run("true")
        link = json.loads(_lobby(target))["url"]
        cookies = asyncio.run(_signed_in(link, port))

        def fields(name: str) -> Fields:
            host = f"{name}--dev--bench.localhost:{port}"
            return {"Host": host, "Cookie": cookies[name], "Origin": f"http://{host}"}

        yield (
            target,
            Way(
                CANDIDATE,
                port,
                port,
                target.cpu,
                lambda: memory_of(target.servers()).own,
                fields("app"),
                fields("echo"),
            ),
        )


def _lobby(target: Target) -> str:
    words = target.ssh("web --json")
    at = words.index(f"User={target.login}")
    words[at] = f"User={target.login.partition('+')[0]}+lobby"
    done = subprocess.run(words, stdin=DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    require(done.returncode == 0, f"the lobby made no link: {done.stderr}")
    return str(done.stdout)


async def _signed_in(link: str, port: int) -> dict[str, str]:
    """Sign in by a link of the lobby; return the cookie of each app's origin."""
    jar = aiohttp.CookieJar(unsafe=True)
    navigation = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}
    connector = aiohttp.TCPConnector(resolver=_Loopback())
    async with aiohttp.ClientSession(cookie_jar=jar, headers=navigation, connector=connector) as session:
        async with session.get(link) as page:
            found = re.search(r'name="?csrf"? value="([^"]+)"', await page.text())
        require(found is not None, "the page of the link has no form")
        assert found is not None
        form = {"csrf": found[1], "decision": "sign-in"}
        async with session.post(link, data=form, headers={"Origin": link.partition("/link/")[0]}) as page:
            require(page.status == 200, f"the link was answered with {page.status}")
        cookies = {}
        for name in ("app", "echo"):
            url = f"http://{name}--dev--bench.localhost:{port}/.fairlead/whoami"
            async with session.get(url.replace("/.fairlead/whoami", "/small")):
                pass
            own = jar.filter_cookies(URL(url))
            cookies[name] = "; ".join(f"{key}={value.value}" for key, value in own.items())
            require(bool(cookies[name]), f"there is no session at {name}")
    return cookies


class _Loopback(AbstractResolver):
    """Names below localhost are this machine (RFC 6761 §6.3)."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        del family
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        """Close nothing."""


@contextmanager
def _others(bench: Bench, app_port: int, echo_port: int) -> Iterator[list[Way]]:
    with ExitStack() as stack:
        ways = []
        one, two = stack.enter_context(chp(bench, app_port)), stack.enter_context(chp(bench, echo_port))
        if one is not None and two is not None:
            ways.append(Way("CHP", one[0], two[0], _cpu(one[1]), _memory(two[1])))
        if (jupyter := stack.enter_context(_jupyter(bench))) is not None:
            port, process = jupyter
            most = bench.plan.warm_bytes  # it keeps answers in memory, and gives large ones up with 599
            prefixes = f"/proxy/{app_port}", f"/proxy/{echo_port}"
            ways.append(
                Way(
                    "jupyter-server-proxy",
                    port,
                    port,
                    _cpu(process),
                    _memory(process),
                    {},
                    {},
                    *prefixes,
                    most,
                )
            )
        yield ways


def _cpu(process: psutil.Process) -> Callable[[], dict[str, float]]:
    return lambda: {"proxy": own_cpu_s(family_of(process))}


def _memory(process: psutil.Process) -> Callable[[], int]:
    return lambda: memory_of(family_of(process)).own


@contextmanager
def _jupyter(bench: Bench) -> Iterator[tuple[int, psutil.Process] | None]:
    """Run a Jupyter server with jupyter-server-proxy."""
    program, port = find("jupyter-server"), free_port()
    if program is None:
        bench.say("no jupyter-server found (pip install jupyter-server jupyter-server-proxy): left out")
        yield None
        return
    words = [
        f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1",
        "--no-browser",
        "--IdentityProvider.token=",
    ]
    root = ["--allow-root"] if os.geteuid() == 0 else []
    with running(
        [program, "--no-browser", *words, *root, f"--ServerApp.root_dir={bench.folder}"], port
    ) as process:
        yield port, process


# ------------------------------------------------------------------------------------ the samples


def _sample(way: Way, size: int) -> Sample:
    before, began = way.cpu(), monotonic()
    asyncio.run(_ask_many(way, _REQUESTS))
    took_s, after = monotonic() - began, way.cpu()
    cpu_us = {kind: (after[kind] - before[kind]) / _REQUESTS * 1e6 for kind in after}
    began = monotonic()
    asyncio.run(_ask(way, f"/{size}", size))
    download = size / MIB / (monotonic() - began)
    return Sample(cpu_us, _REQUESTS / took_s, download, asyncio.run(_echo_ms(way)))


async def _ask_many(way: Way, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(_ask(way, "/small", 100, count // _CLIENTS))


def _head(target: str, port: int, fields: Fields, more: str = "") -> bytes:
    lines = {"Host": f"127.0.0.1:{port}", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)", **fields}
    return (
        f"GET {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + more
    ).encode() + b"\r\n"


async def _ask(way: Way, target: str, size: int, times: int = 1) -> None:
    """Ask on one connection as a browser would."""
    asked = _head(way.prefix + target, way.port, way.fields)
    await converse(way.name, way.port, asked, size, times)


async def _idle_kib(way: Way) -> float:
    """Return the KiB of an idle WebSocket."""
    (await _upgraded(way))[1].close()
    before = way.memory()
    opened = [await _upgraded(way) for _ in range(_IDLE)]
    grown = way.memory() - before
    for _, one in opened:
        one.close()
    return grown / _IDLE / 1024


async def _echo_ms(way: Way) -> float:
    """Return the milliseconds of an echo, p50."""
    reader, writer = await _upgraded(way)
    times = []
    for _ in range(_ECHOES):
        began = perf_counter()
        writer.write(_FRAME)
        require(await reader.readexactly(len(_ECHO)) == _ECHO, f"{way.name} sent another echo")
        times.append((perf_counter() - began) * 1e3)
    writer.close()
    return percentile(times, 50)


async def _upgraded(way: Way) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", way.echo_port)
    more = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {_KEY}\r\n"
    )
    writer.write(_head(f"{way.echo_prefix}/ws", way.echo_port, way.echo_fields, more))
    head = await reader.readuntil(b"\r\n\r\n")
    require(head.startswith(b"HTTP/1.1 101 "), f"{way.name} answered {head[:40]!r} to a WebSocket")
    return reader, writer


def _forwarded(target: Target, app_port: int, size: int) -> float:
    """Download the same over `-L` of the same proxy; return MiB/s."""
    local = free_port()
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:127.0.0.1:{app_port}"]

    def nothing() -> dict[str, float]:
        return {}

    with client(target.ssh(None, *options), stderr=DEVNULL):
        require(wait_until(lambda: _listens(local), 30, every_s=0.05), "the forward did not listen")
        began = monotonic()
        asyncio.run(_ask(Way("-L", local, local, nothing, lambda: 0), f"/{size}", size))
        return size / MIB / (monotonic() - began)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
