"""Whose connection it is, as a load balancer says: a real haproxy, and liars."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.natsserver import NatsServer
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import BANNER, Fairlead, free_port, needs
from tests.wire.listener import Ears
from tests.wire.newcomer import make_key
from tests.wire.peers import until
from tests.wire.test_health import samples, serving

BALANCER_4, CLIENT_4, NEIGHBOUR_4 = "127.7.7.7", "127.9.8.7", "127.9.8.8"
FAILURES = 3
SETTINGS = {
    "FAIRLEAD_LISTEN": "[::]:{port}",
    "FAIRLEAD_PROXY_PROTOCOL__TRUSTED": f'["127.0.0.1/32", "{BALANCER_4}/32", "::1/128"]',
    "FAIRLEAD_PROXY_PROTOCOL__TIMEOUT_S": "1",
    "FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.1",
}
STRICT = {
    "FAIRLEAD_PROTECTION__ALLOW": "[]",
    "FAIRLEAD_PROTECTION__BANS": json.dumps({"failures": FAILURES, "probes_per_minute": 0}),
}
V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 50022 22\r\n"
FORGED = "203.0.113.9"


@contextmanager
def standing(directory: Path, nats: NatsServer, settings: Mapping[str, str]) -> Iterator[Fairlead]:
    """A proxy that hears IPv4 and IPv6, and trusts load balancers at some addresses of loopback."""
    server = Fairlead(directory)
    server.extra_env = {name: value.format(port=server.port) for name, value in SETTINGS.items()}
    server.extra_env |= {**settings, "FAIRLEAD_EVENTS__URLS": nats.url}
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def ears(nats: NatsServer) -> Iterator[Ears]:
    with Ears(nats.port) as ears:
        yield ears


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Iterator[Fairlead]:
    """One that bans nobody on loopback."""
    with standing(tmp_path_factory.mktemp("behind"), nats, {}) as server:
        yield server


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Iterator[Fairlead]:
    """One that bans after a few failures, loopback too."""
    with standing(tmp_path_factory.mktemp("strict"), nats, STRICT) as server:
        yield server


@contextmanager
def haproxy(directory: Path, behind: Fairlead, version: str, host: str) -> Iterator[int]:
    """Stand before the proxy, and reach it over IPv4, from an own address, or IPv6; gives the port."""
    port = free_port()
    config = directory / "haproxy.cfg"
    send = "send-proxy" if version == "v1" else "send-proxy-v2 proxy-v2-options unique-id,crc32c"
    if version == "v2 without TLVs":
        send = "send-proxy-v2"
    source = f"source {BALANCER_4}" if host == "127.0.0.1" else ""
    config.write_text(
        "global\n log stderr format raw local0\n"
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"frontend front\n bind 127.0.0.1:{port}\n bind [::1]:{port}\n unique-id-format %ci\n"
        f" default_backend back\nbackend back\n server one {host}:{behind.port} {source} {send}\n"
    )
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    with (directory / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-f", str(config)], stdout=log, stderr=log)
    try:

        def listens() -> bool:
            assert process.poll() is None, (directory / "haproxy.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, "haproxy listens")
        yield port
    finally:
        process.kill()
        process.wait()


def told(ears: Ears, since: int, subject: str) -> dict[str, Any]:
    """Wait for the one event of a subject after the first so many; gives its data."""

    def heard() -> list[dict[str, Any]]:
        return [event["data"] for of, event in ears.heard[since:] if of == subject]

    until(heard, f"{subject} is told")
    (data,) = heard()
    return data


def knock(directory: Path, port: int, through: str, source: str) -> None:
    """Fail to log in, as a stranger with a key that nobody has."""
    key = directory / "stranger"
    if not key.exists():
        make_key(key)
    done = subprocess.run(
        [
            *("ssh", "-F", "none", "-p", str(port), "-b", source, "-i", str(key)),
            *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-l", "alice+dev", through, "true"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 255


versions = pytest.mark.parametrize("version", ["v1", "v2", "v2 without TLVs"])
routes = pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"], ids=["over IPv4", "over IPv6"])
clients = pytest.mark.parametrize(
    ("through", "source"), [("127.0.0.1", CLIENT_4), ("::1", "::1")], ids=["of IPv4", "of IPv6"]
)


@needs("haproxy")
@versions
@routes
@clients
def test_a_real_haproxy_tells_who_it_is(
    behind: Fairlead, ears: Ears, tmp_path: Path, version: str, host: str, through: str, source: str
) -> None:
    """An IPv6 client whom haproxy brings over IPv4 is the case in which `::1` can be nobody else."""
    since = len(ears.heard)
    with haproxy(tmp_path, behind, version, host) as port:
        done = behind.ssh("echo $SSH_CONNECTION", "-p", str(port), "-b", source, "-o", f"HostName={through}")
        knock(tmp_path, port, through, source)
    words = done.stdout.decode().split()
    assert words[0] == source, done.stderr
    assert words[2:] == [through, str(port)]
    came, failed = (told(ears, since, f"fairlead.auth.{what}") for what in ("succeeded", "failed"))
    assert (came["client_address"], came["client_port"]) == (source, int(words[1]))
    assert failed["client_address"] == source
    assert failed["client_port"] not in (0, came["client_port"])
    until(lambda: came["connection_id"] in on_record(behind), "the session is on record")
    assert on_record(behind)[came["connection_id"]] == (source, int(words[1]))
    assert f'"client": "{source}"' in behind.log


@needs("haproxy")
@pytest.mark.parametrize("version", ["v1", "v2", "v2 without TLVs"])
def test_a_haproxy_that_is_not_trusted_is_named_with_the_setting_and_counted(
    make_fairlead: MakeFairlead, tmp_path: Path, version: str
) -> None:
    fairlead, health = serving(make_fairlead)
    with haproxy(tmp_path, fairlead, version, "127.0.0.1") as port:
        done = fairlead.ssh("true", "-p", str(port))
    assert done.returncode == 255
    assert b"PROXY header from an untrusted address" in done.stderr
    event = "PROXY header from an address that is not in proxy_protocol.trusted"
    entries = [entry for entry in map(json.loads, fairlead.log.splitlines()) if entry["event"] == event]
    assert {(entry["level"], entry["source"]) for entry in entries} == {("warning", BALANCER_4)}
    assert samples(health)["fairlead_proxy_headers_untrusted_total", ""] == len(entries)
    assert fairlead.ssh("true").returncode == 0  # nothing counts as a failed login of that address


def on_record(server: Fairlead) -> dict[str, tuple[str, int]]:
    """Give address and port of every session so far, as an operator is shown them."""
    rows = json.loads(server.cli("session", "list", "--all", "--json"))
    return {row["id"]: (row["client_address"], row["client_port"]) for row in rows}


def first_words(port: int, through: str, source: str) -> bytes:
    """Connect from an address and give the first line that comes."""
    with socket.create_connection((through, port), 30, source_address=(source, 0)) as link:
        heard = b""
        while not heard.endswith(b"\n") and (piece := link.recv(200)):
            heard += piece
        return heard


@needs("haproxy")
@pytest.mark.parametrize("version", ["v1", "v2"])
@routes
@clients
def test_a_ban_hits_the_client_and_not_the_balancer(
    strict: Fairlead, ears: Ears, tmp_path: Path, version: str, host: str, through: str, source: str
) -> None:
    since, address = len(ears.heard), "::/64" if source == "::1" else source
    with haproxy(tmp_path, strict, version, host) as port:
        for _ in range(FAILURES):
            assert first_words(port, through, source).startswith(b"SSH-2.0-")
            knock(tmp_path, port, through, source)
        until(lambda: b"banned" in first_words(port, through, source), "the client is banned")
        assert first_words(port, "127.0.0.1", NEIGHBOUR_4).startswith(b"SSH-2.0-")
        assert told(ears, since, "fairlead.auth.banned")["address"] == address
        assert [row["address"] for row in json.loads(strict.cli("ban", "list", "--json"))] == [address]
        strict.cli("ban", "remove", source)  # all that was, so that the next one begins anew
        until(lambda: b"SSH-2.0-" in first_words(port, through, source), "the client is let in again")


def answer(behind: Fairlead, data: bytes, *, source: str = "127.0.0.1", wait_s: float = 10) -> bytes:
    """Say something and give everything that comes back until the end, or until our version is there."""
    with socket.create_connection(("127.0.0.1", behind.port), wait_s, source_address=(source, 0)) as link:
        link.sendall(data)
        heard = b""
        while b"SSH-2.0-" not in heard:
            try:
                piece = link.recv(4_096)
            except ConnectionResetError:
                break
            if not piece:
                break
            heard += piece
        return heard


def test_a_header_from_anybody_else_is_no_header(behind: Fairlead) -> None:
    with socket.create_connection(("127.0.0.1", behind.port), 10, source_address=("127.0.0.2", 0)) as link:
        link.sendall(V1 + b"SSH-2.0-liar\r\n")
        heard = b""
        while piece := link.recv(4_096):
            heard += piece
    assert heard.startswith(BANNER)
    assert FORGED not in behind.log


def test_a_trusted_source_has_to_send_one(behind: Fairlead) -> None:
    assert answer(behind, b"SSH-2.0-OpenSSH_9.2\r\n") == b""


def test_nothing_is_said_before_the_header_was_read(behind: Fairlead) -> None:
    with socket.create_connection(("127.0.0.1", behind.port), 10) as link:
        link.sendall(V1[:20])
        link.settimeout(0.3)
        with pytest.raises(TimeoutError):
            link.recv(1)
        link.settimeout(10)
        link.sendall(V1[20:] + b"SSH-2.0-x\r\n")
        assert link.recv(8) == b"SSH-2.0-"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PROXY TCP4 1.2.3.4",
        b"PROXY " + b"x" * 200,
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + b"x" * 9,
    ],
    ids=["silent", "stalled", "endless", "endless v2"],
)
def test_a_header_that_does_not_come_ends_the_connection(behind: Fairlead, data: bytes) -> None:
    begun = time.monotonic()
    assert answer(behind, data) == b""
    assert time.monotonic() - begun < 9  # at the deadline of a second, not at that of a login


def test_unknown_and_local_keep_the_address_of_the_socket(behind: Fairlead) -> None:
    local = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
    for header in (b"PROXY UNKNOWN\r\n", local):
        assert answer(behind, header + b"SSH-2.0-x\r\n").startswith(b"SSH-2.0-")
