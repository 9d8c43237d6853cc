"""Whose connection it is, as a load balancer says: a real haproxy, and liars."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead, free_port, needs
from tests.wire.peers import until

SETTINGS = {
    "FAIRLEAD_LISTEN": "[::]:{port}",
    "FAIRLEAD_PROXY_PROTOCOL__TRUSTED": '["127.0.0.1/32", "::1/128"]',
    "FAIRLEAD_PROXY_PROTOCOL__TIMEOUT_S": "1",
}
CLIENT_4, CLIENT_6 = "127.9.8.7", "2001:db8::77"
V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 50022 22\r\n"
FORGED = "203.0.113.9"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    """A proxy that hears IPv4 and IPv6, and trusts load balancers at two addresses of loopback."""
    server = Fairlead(tmp_path_factory.mktemp("behind"))
    server.extra_env = {name: value.format(port=server.port) for name, value in SETTINGS.items()}
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def haproxy(directory: Path, behind: Fairlead, version: str, host: str) -> Iterator[int]:
    """Stand before the proxy, and reach it over IPv4 or IPv6; gives the port."""
    port = free_port()
    config = directory / "haproxy.cfg"
    send = "send-proxy" if version == "v1" else "send-proxy-v2 proxy-v2-options unique-id,crc32c"
    if version == "v2 without TLVs":
        send = "send-proxy-v2"
    config.write_text(
        "global\n log stderr format raw local0\n"
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"frontend front\n bind 127.0.0.1:{port}\n bind [::1]:{port}\n unique-id-format %ci\n"
        f" default_backend back\nbackend back\n server one {host}:{behind.port} {send}\n"
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


@needs("haproxy")
@pytest.mark.parametrize("version", ["v1", "v2", "v2 without TLVs"])
@pytest.mark.parametrize(("host", "through"), [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")])
def test_a_real_haproxy_tells_who_it_is(
    behind: Fairlead, tmp_path: Path, version: str, host: str, through: str
) -> None:
    with haproxy(tmp_path, behind, version, host) as port:
        source = CLIENT_4 if through == "127.0.0.1" else "::1"
        done = behind.ssh("echo $SSH_CONNECTION", "-p", str(port), "-b", source, "-o", f"HostName={through}")
    words = done.stdout.decode().split()
    assert words[0] == source, done.stderr
    assert words[2:] == [through, str(port)]
    assert f'"client": "{source}"' in behind.log


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
    assert heard.startswith(b"SSH-2.0-Fairlead\r\n")
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
