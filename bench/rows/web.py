"""The front of web apps beside nginx and configurable-http-proxy: the same app, the same client, one run.

Each proxy is a process of its own, and its own CPU is counted. The road to the app is plain TCP for all of
them; what gRPC and shelld cost besides is no part of these lines. A proxy that is not installed is left out.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from time import monotonic
from typing import Literal

import psutil

from bench.pairs import CANDIDATE, YARDSTICK, Metric
from bench.plan import MIB, Bench, require
from bench.processes import family_of, own_cpu_s, wait_until
from bench.targets import free_port

_CLIENTS = 16
_WARM_REQUESTS = 400
_REQUESTS = 4_000
"""Of one sample: the kernel counts CPU in steps of 10 ms."""
_HOST = "app.localhost"
_GOALS = {"nginx": "CPU ≤ 1.3", "CHP": "CPU ≤ 0.25"}

_BACKEND = """
daemon off; {user} worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {upstream}
  server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""


def web(bench: Bench) -> list[Metric]:
    """Measure requests and a download through each proxy, in turns."""
    if find("nginx") is None:
        bench.say("no nginx found (Debian: apt install nginx): the row web needs one as the app")
        return []
    with app(bench.folder, bench.plan.warm_bytes) as app_port, proxies(bench, app_port) as found:
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in found}
        for name, (port, _) in found.items():
            asyncio.run(_ask_many(name, port, _WARM_REQUESTS))
        for _ in range(bench.plan.runs):
            for name, (port, process) in found.items():
                taken[name].append(_sample(name, port, process, bench.plan.warm_bytes))
    lines = []
    for name in (name for name in taken if name != CANDIDATE):
        for at, (what, unit, better) in enumerate(_WHAT):
            samples = {
                YARDSTICK: [one[at] for one in taken[name]],
                CANDIDATE: [one[at] for one in taken[CANDIDATE]],
            }
            goal = _GOALS[name] if at == 0 else ""
            lines.append(Metric("web", f"{what}, beside {name}", unit, samples, better, goal))
    return lines


_WHAT: tuple[tuple[str, str, Literal["higher", "lower"]], ...] = (
    ("CPU of a request", "µs", "lower"),
    ("requests", "1/s", "higher"),
    ("download", "MiB/s", "higher"),
)


def _sample(name: str, port: int, process: psutil.Process, size: int) -> tuple[float, float, float]:
    before, began = own_cpu_s(family_of(process)), monotonic()
    asyncio.run(_ask_many(name, port, _REQUESTS))
    took_s, cpu_s = monotonic() - began, own_cpu_s(family_of(process)) - before
    began = monotonic()
    asyncio.run(_ask(name, port, f"/{size}", size))
    return cpu_s / _REQUESTS * 1e6, _REQUESTS / took_s, size / MIB / (monotonic() - began)


async def _ask_many(name: str, port: int, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(_ask(name, port, "/small", 100, count // _CLIENTS))


async def _ask(name: str, port: int, target: str, size: int, times: int = 1) -> None:
    """Ask on one connection as a browser would."""
    asked = (
        f"GET {target} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
        "Accept: */*\r\nAccept-Encoding: gzip\r\nAccept-Language: en\r\nCookie: theme=dark; _xsrf=2|a|b|1\r\n"
        f"Referer: http://{_HOST}:{port}/\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n\r\n"
    ).encode()
    await converse(name, port, asked, size, times)


async def converse(name: str, port: int, asked: bytes, size: int, times: int) -> None:
    """Send a request so many times on one connection, and read every answer of `size` bytes whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
    for _ in range(times):
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        require(head.startswith(b"HTTP/1.1 200 "), f"{name} answered {head[:40]!r}")
        left = size
        while left:
            piece = await reader.read(min(left, MIB))
            require(bool(piece), f"{name} sent less than {size} bytes")
            left -= len(piece)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def find(program: str) -> str | None:
    """Look for a program where Debian puts it."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def app(folder: Path, *sizes: int) -> Iterator[int]:
    """Run nginx as the app: 100 bytes at /small, and files of zeros by their sizes."""
    place, port = folder / "web-app", free_port()
    (place / "www").mkdir(parents=True)
    (place / "www" / "small").write_bytes(b"x" * 100)
    for size in sizes:
        with (place / "www" / str(size)).open("wb") as file:
            file.truncate(size)
    location = f"location / {{ root {place}/www; }}"
    with _nginx(place, port, "", location):
        yield port


@contextmanager
def _nginx(place: Path, port: int, upstream: str, location: str) -> Iterator[psutil.Process]:
    place.mkdir(parents=True, exist_ok=True)
    config = place / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # its own account cannot read the files of this run
    text = _BACKEND.format(folder=place, port=port, upstream=upstream, location=location, user=user)
    config.write_text(text)
    with running([str(find("nginx")), "-p", str(place), "-c", str(config)], port) as process:
        yield process


@contextmanager
def running(argv: list[str], port: int, ready: Callable[[], bool] | None = None) -> Iterator[psutil.Process]:
    """Run a program that listens on a port, until left."""
    started = subprocess.Popen(argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    process = psutil.Process(started.pid)
    try:
        require(wait_until(ready or (lambda: _listens(port)), 30), f"{argv[0]} did not listen within 30 s")
        yield process
    finally:
        for one in family_of(process):
            with suppress(psutil.Error):
                one.terminate()
        started.wait(30)


def _listens(port: int) -> bool:
    return any(
        found.laddr.port == port and found.status == psutil.CONN_LISTEN
        for found in psutil.net_connections("tcp")
        if found.laddr
    )


@contextmanager
def proxies(bench: Bench, app: int) -> Iterator[dict[str, tuple[int, psutil.Process]]]:
    """Run every proxy before the app; yields port and process of each by its name."""
    own, theirs = free_port(), free_port()
    argv = [sys.executable, "-m", "bench.webfront", "--listen", f"127.0.0.1:{own}", "--app", str(app)]
    upstream = f"upstream app {{ server 127.0.0.1:{app}; keepalive 32; }}"
    location = (
        'location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";'
        " proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr; }"
    )
    with running(argv, own) as ours, _nginx(bench.folder / "web-nginx", theirs, upstream, location) as nginx:
        found = {CANDIDATE: (own, ours), "nginx": (theirs, nginx)}
        with chp(bench, app) as third:
            yield found | ({} if third is None else {"CHP": third})


@contextmanager
def chp(bench: Bench, app: int) -> Iterator[tuple[int, psutil.Process] | None]:
    """Run configurable-http-proxy before an app; yields its port and process, None where there is none."""
    program, port = find("configurable-http-proxy"), free_port()
    if program is None:
        bench.say("no configurable-http-proxy found (npm install -g configurable-http-proxy): left out")
        yield None
        return
    words = [
        "--ip",
        "127.0.0.1",
        "--port",
        str(port),
        "--api-ip",
        "127.0.0.1",
        "--api-port",
        str(free_port()),
    ]
    target = f"http://127.0.0.1:{app}"
    argv = [program, *words, "--default-target", target, "--log-level", "error"]
    with running(argv, port) as process:
        yield port, process
