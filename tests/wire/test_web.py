"""Apps of workspaces in a browser: real proxy, real shelld, apps that were started over SSH."""

import asyncio
import base64
import contextlib
import http.client
import json
import random
import shlex
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.chromium import open_chromium
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead, free_port, needs
from tests.wire.peers import until

WEB_PORT, APP_PORT, FILES_PORT, CLOSED_PORT = free_port(), free_port(), free_port(), free_port()
SETTINGS = {"FAIRLEAD_WEB__LISTEN": f"127.0.0.1:{WEB_PORT}", "FAIRLEAD_HEALTH__LISTEN": "127.0.0.1:0"}
BLUEPRINTS = {
    "dev": f"""
name: dev
apps:
  app: {{title: A test, listen: {{port: {APP_PORT}}}, share: public}}
  files1: {{listen: {{port: {FILES_PORT}}}, share: public}}
  closed: {{listen: {{port: {CLOSED_PORT}}}, share: public}}
  sock: {{listen: {{socket: /tmp/fl-web-{WEB_PORT}.sock}}, share: public}}
  mine: {{listen: {{port: {APP_PORT}}}}}
forward: {{unix: ["/tmp/fl-web-*"]}}
"""
}
MIB = 1024 * 1024


def host(app: str, blueprint: str = "dev", user: str = "alice") -> str:
    return f"{app}--{blueprint}--{user}.localhost:{WEB_PORT}"


def start_app(server: Fairlead, words: str, port: int) -> None:
    """Start a server over SSH that outlives the connection, and wait until it listens."""
    done = server.ssh(f"setsid nohup {words} >app-{port}.log 2>&1 </dev/null &")
    assert done.returncode == 0, done.stderr

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens, f"port {port} is listened on")


@pytest.fixture(scope="module")
def app(fairlead: Fairlead) -> Iterator[None]:
    """The app of `webapp`, and the files of the home, both started over SSH."""
    program = shlex.join([sys.executable, str(Path(__file__).with_name("webapp.py")), str(APP_PORT)])
    start_app(fairlead, program, APP_PORT)
    start_app(fairlead, f"{sys.executable} -m http.server {FILES_PORT} --bind 127.0.0.1", FILES_PORT)
    yield
    for port in (APP_PORT, FILES_PORT):
        for process in psutil.process_iter(["cmdline"]):
            if str(port) in (process.info["cmdline"] or [])[-3:]:
                with contextlib.suppress(psutil.Error):
                    process.kill()


def ask(app: str, target: str = "/", **fields: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", WEB_PORT, timeout=60)
    connection.request("GET", target, headers={"Host": host(app), **fields})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_a_workspace_that_does_not_run_is_not_there_and_is_not_started(fairlead: Fairlead) -> None:
    until(lambda: ask("app")[0] == 404, "the index of public apps is filled")
    assert "no such app at the moment" in ask("app")[1]
    assert list(fairlead.home.glob("workspaces/*/workspace.json")) == []


@pytest.mark.usefixtures("app")
def test_only_what_is_public_passes_and_all_else_is_refused_in_the_same_words() -> None:
    assert ask("app")[0] == 200
    refused = {ask(name) for name in ("mine", "absent", "lab")}
    connection = http.client.HTTPConnection("127.0.0.1", WEB_PORT, timeout=60)
    for label in (
        host("app", user="bob"),
        host("app", blueprint="other"),
        f"app--x-aaaaaaaaaaaaa.localhost:{WEB_PORT}",
    ):
        connection.request("GET", "/", headers={"Host": label})
        answer = connection.getresponse()
        refused.add((answer.status, answer.read().decode()))
    connection.close()
    assert len(refused) == 1
    assert refused.pop()[0] == 401


@pytest.mark.usefixtures("app")
def test_pythons_own_server_is_shown_to_the_byte(fairlead: Fairlead) -> None:
    data = random.Random(1).randbytes(3 * MIB)
    assert fairlead.ssh("cat > data.bin", data=data).returncode == 0
    connection = http.client.HTTPConnection("127.0.0.1", WEB_PORT, timeout=60)
    for _ in range(3):
        connection.request("GET", "/data.bin", headers={"Host": host("files1")})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read() == data
    connection.close()


@pytest.mark.usefixtures("app")
def test_an_app_may_listen_on_a_socket_file(fairlead: Fairlead) -> None:
    code = (
        "import socketserver,http.server as h\n"
        "class S(socketserver.UnixStreamServer):\n"
        " def get_request(self): return self.socket.accept()[0], ('-', 0)\n"
        f"S('/tmp/fl-web-{WEB_PORT}.sock', h.SimpleHTTPRequestHandler).serve_forever()"
    )
    path = Path(f"/tmp/fl-web-{WEB_PORT}.sock")
    words = f"{sys.executable} -c {shlex.quote(code)}"
    assert fairlead.ssh(f"setsid nohup {words} >s.log 2>&1 </dev/null & echo $!").returncode == 0
    try:
        until(lambda: ask("sock")[0] == 200, "the socket answers")
    finally:
        fairlead.ssh(f"pkill -f {path.name}")
        path.unlink(missing_ok=True)


@pytest.mark.usefixtures("app")
def test_an_app_that_is_not_started_and_a_reserved_path_have_answers_of_their_own() -> None:
    status, text = ask("closed")
    assert (status, "not started" in text) == (502, True)
    assert ask("app", "/.fairlead/nothing")[0] == 404


# ------------------------------------------------------------------------------- WebSockets

KEY = base64.b64encode(bytes(16)).decode()


def frame(opcode: int, payload: bytes, *, final: bool = True, compressed: bool = False) -> bytes:
    first = (0x80 if final else 0) | (0x40 if compressed else 0) | opcode
    size, mask = len(payload), b"\x11\x22\x33\x44"
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = bytes((first, 0x80 | 126)) + struct.pack("!H", size)
    else:
        head = bytes((first, 0x80 | 127)) + struct.pack("!Q", size)
    repeated = mask * (size // 4 + 1)
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")).to_bytes(size, "big")
    return head + mask + masked


def deflated(payload: bytes) -> bytes:
    """Compress a message as RFC 7692 §7.2.1 says."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def conversation(chosen: random.Random, sizes: list[int]) -> tuple[bool, bytes]:
    """Make up what a client says: whether it offers compression, and its frames."""
    compresses = chosen.random() < 0.5
    frames = b""
    for _ in range(chosen.randint(1, 4)):
        opcode, size = chosen.choice((1, 2)), chosen.choice(sizes)
        payload = b"text " * (size // 5) + b"x" * (size % 5) if opcode == 1 else chosen.randbytes(size)
        is_packed = compresses and chosen.random() < 0.7
        payload = deflated(payload) if is_packed else payload
        cuts = sorted(chosen.randint(0, len(payload)) for _ in range(chosen.choice((0, 0, 1, 3))))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for number, part in enumerate(parts):
            first, last = number == 0, number == len(parts) - 1
            frames += frame(opcode if first else 0, part, final=last, compressed=is_packed and first)
            if not last and chosen.random() < 0.3:
                frames += frame(9, b"ping")
    code = chosen.choice((1000, 1001, 1008, 1011, 3000, 4999, None))
    return compresses, frames + frame(8, b"" if code is None else struct.pack("!H", code) + b"why")


def converse(port: int, name: str, compresses: bool, frames: bytes) -> tuple[bytes, bytes]:
    """Say it, and give the head that matters and all that comes back until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as one:
        offer = (
            "Sec-WebSocket-Extensions: permessage-deflate\r\nX-Compress: deflate\r\n" if compresses else ""
        )
        one.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        sender = threading.Thread(target=one.sendall, args=(frames,))
        said = b""
        while b"\r\n\r\n" not in said:
            piece = one.recv(65_536)
            assert piece, said
            said += piece
        sender.start()
        pieces = [said]
        while piece := one.recv(MIB):
            pieces.append(piece)
        sender.join()
    head, _, rest = b"".join(pieces).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith((b"http/", b"sec-", b"upgrade"))]
    return b"\r\n".join(lines), rest


@pytest.mark.usefixtures("app")
def test_300_websocket_conversations_are_equal_to_direct_ones() -> None:
    """Fragments, compression bits, pings between fragments, every close code: byte for byte."""
    chosen = random.Random(6455)
    for number in range(300):
        compresses, frames = conversation(chosen, [0, 1, 125, 126, 1_000, 65_535, 65_536])
        direct = converse(APP_PORT, "localhost", compresses, frames)
        assert converse(WEB_PORT, host("app"), compresses, frames) == direct, number
        assert direct[0].startswith(b"HTTP/1.1 101 ")


@pytest.mark.usefixtures("app")
def test_messages_of_16_mib_are_equal_to_direct_ones() -> None:
    message = random.Random(1).randbytes(16 * MIB)
    frames = frame(2, message) + frame(8, struct.pack("!H", 1000))
    direct = converse(APP_PORT, "localhost", False, frames)
    assert len(direct[1]) > 16 * MIB
    assert converse(WEB_PORT, host("app"), False, frames) == direct


# ------------------------------------------------------------------------------------- size


class Peak:
    """The most memory that a process has while inside."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, self._process.memory_info().rss)


def download(size: int) -> int:
    with socket.create_connection(("127.0.0.1", WEB_PORT), timeout=120) as one:
        one.sendall(
            f"GET /down?n={size} HTTP/1.1\r\nHost: {host('app')}\r\nConnection: close\r\n\r\n".encode()
        )
        buffer, got = bytearray(MIB), 0
        while count := one.recv_into(buffer):
            got += count
    return got


def upload(size: int) -> dict[str, int]:
    piece = bytes(range(256)) * 4096
    with socket.create_connection(("127.0.0.1", WEB_PORT), timeout=120) as one:
        head = (
            f"PUT /up HTTP/1.1\r\nHost: {host('app')}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        )
        one.sendall(head.encode())
        for _ in range(size // MIB):
            one.sendall(piece)
        said = b""
        while data := one.recv(65_536):
            said += data
    return dict(json.loads(said.partition(b"\r\n\r\n")[2]))


def carry(server: Fairlead, size: int) -> None:
    """Send so much each way; the proxy must not grow by it.

    What does not depend on the size comes before that, in as many transfers as let the allocator's free
    memory reach its size (`tuning.keep_buffers`).
    """
    assert server.process
    with Peak(server.process.pid) as before:
        for _ in range(8):
            download(32 * MIB)
            upload(32 * MIB)
    with Peak(server.process.pid) as after:
        assert size < download(size) < size + 1_000
        assert upload(size)["size"] == size
    grown = after.bytes - before.bytes
    assert grown < 8 * MIB, f"grew by {grown / MIB:.1f} MiB"


@pytest.mark.usefixtures("app")
def test_256_mib_each_way_leave_the_proxy_as_small_as_it_was(fairlead: Fairlead) -> None:
    carry(fairlead, 256 * MIB)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.usefixtures("app")
def test_4_gib_each_way_leave_the_proxy_as_small_as_it_was(fairlead: Fairlead) -> None:
    carry(fairlead, 4096 * MIB)


# ---------------------------------------------------------------------------------- browser


@needs("chromium")
@pytest.mark.usefixtures("app")
async def test_a_public_app_is_opened_in_chromium_with_its_websocket(tmp_path: Path) -> None:
    async with open_chromium(tmp_path) as browser:
        person = await browser.person()
        await person.open(f"http://{host('app')}/")
        assert person.status == 200
        wanted = f"echo of 100000 through {host('app')}"
        async with asyncio.timeout(60):
            while await person.run("document.getElementById('said').textContent") != wanted:
                await asyncio.sleep(0.05)
        text = await person.open(f"http://{host('mine')}/")
        assert person.status == 401
        assert "+lobby@127.0.0.1 web" in text


@needs("chromium")
async def test_a_proxy_that_ends_tells_the_browser_why(make_fairlead: MakeFairlead, tmp_path: Path) -> None:
    """SIGTERM: the page's socket closes with 1001 and a reason, and the port is free."""
    server = make_fairlead(SETTINGS | {"FAIRLEAD_WEB__LISTEN": f"127.0.0.1:{free_port()}"}, BLUEPRINTS)
    port = server.extra_env["FAIRLEAD_WEB__LISTEN"].rpartition(":")[2]
    app_port = APP_PORT
    program = [sys.executable, str(Path(__file__).with_name("webapp.py")), str(app_port)]
    assert await asyncio.to_thread(lambda: server.ssh("true").returncode) == 0
    with socket.socket() as probe:
        is_up = probe.connect_ex(("127.0.0.1", app_port)) == 0
    own = None if is_up else subprocess.Popen(program)
    try:
        async with open_chromium(tmp_path) as browser:
            person = await browser.person()
            async with asyncio.timeout(60):
                while True:
                    await person.open(f"http://app--dev--alice.localhost:{port}/")
                    if person.status == 200:
                        break
                    await asyncio.sleep(0.2)
                while "echo" not in str(await person.run("document.getElementById('said').textContent")):
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(server.stop)
            async with asyncio.timeout(60):
                while not str(await person.run("document.title")).startswith("closed"):
                    await asyncio.sleep(0.05)
            assert await person.run("document.title") == "closed 1001 the server is shutting down"
    finally:
        if own is not None:
            own.kill()
            own.wait()
