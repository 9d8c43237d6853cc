"""What comes before HTTP on a connection: the header of a load balancer, and TLS from files that change."""

import asyncio
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.proxyprotocol import V2_SIGNATURE
from proxy.settings.web import WebSettings
from proxy.web.listening import Certificates
from tests.web.fronts import Running, Talk, raw_echo, running, until

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n"
V2 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes((192, 0, 2, 7, 192, 0, 2, 1)) + b"\x13\x88\x00\x50"
LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"


def make_certificate(directory: Path, name: str) -> None:
    """Write cert.pem and key.pem for a name, as an operator's tool would: new files replace the old."""
    for part in ("cert", "key"):
        (directory / f"{part}.new").unlink(missing_ok=True)
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-addext",
            f"subjectAltName=DNS:{name}",
            "-keyout",
            directory / "key.new",
            "-out",
            directory / "cert.new",
        ],
        check=True,
        capture_output=True,
    )
    for part in ("key", "cert"):
        os.replace(directory / f"{part}.new", directory / f"{part}.pem")


def get(front: Running) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % front.host()


@pytest.mark.parametrize("header", [V1, V2], ids=["version 1", "version 2"])
@pytest.mark.parametrize("pieces", [1, 3, 1_000])
async def test_a_load_balancer_says_who_the_client_is(header: bytes, pieces: int) -> None:
    async with running(proxy_protocol=["127.0.0.1"]) as front:
        await front.app(raw_echo)
        talk = await front.connect()
        whole = header + get(front)
        size = -(-len(whole) // pieces)
        for at in range(0, len(whole), size):
            talk.send(whole[at : at + size])
            await asyncio.sleep(0)
        assert b"X-Forwarded-For: 192.0.2.7\r\n" in (await talk.reply()).body


async def test_a_check_of_the_load_balancer_is_its_own() -> None:
    async with running(proxy_protocol=["127.0.0.1"]) as front:
        await front.app(raw_echo)
        talk = await front.connect()
        assert b"X-Forwarded-For: 127.0.0.1\r\n" in (await talk.ask(LOCAL + get(front))).body


@pytest.mark.parametrize("start", [b"", b"PROXY nonsense\r\n", b"PROXY TCP4 1.2.3.4", V2[:20]])
async def test_a_load_balancer_without_a_header_is_not_heard(start: bytes) -> None:
    async with running(proxy_protocol=["127.0.0.1"], proxy_header_s=1) as front:
        await front.app(raw_echo)
        talk = await front.connect()
        talk.send(start + (get(front) if b"nonsense" in start or not start else b""))
        assert await talk.rest() == b""
        assert front.gate.asked == []


async def test_a_header_from_anybody_else_is_no_header() -> None:
    async with running(proxy_protocol=["192.0.2.0/24"]) as front:
        await front.app(raw_echo)
        talk = await front.connect()
        assert (await talk.ask(V1 + get(front))).status >= 400


async def test_a_banned_client_behind_a_load_balancer_is_not_heard() -> None:
    async with running(
        proxy_protocol=["127.0.0.1"],
        is_banned=lambda address: address == "192.0.2.7",
    ) as front:
        await front.app(raw_echo)
        talk = await front.connect()
        talk.send(V1 + get(front))
        assert await talk.rest() == b""
        assert front.gate.asked == []


async def _over_tls(front: Running, directory: Path, before: bytes = b"") -> tuple[Talk, str]:
    """Connect by TLS, trusting what is in `directory` now; gives the name in the certificate too."""
    context = ssl.create_default_context(cafile=str(directory / "cert.pem"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    if before:
        writer.write(before)
        await writer.drain()
    await writer.start_tls(context, server_hostname="app.localhost")
    tls = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "http/1.1"
    name = dict(part[0] for part in tls.getpeercert()["subject"])["commonName"]
    talk = Talk(reader, writer)
    front.talks.append(talk)
    return talk, name


async def test_tls_is_spoken_from_files_and_a_renewed_certificate_serves_the_next_connection(
    tmp_path: Path,
) -> None:
    make_certificate(tmp_path, "old.localhost")
    tls = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem", "check_s": 0.2}
    async with running(tls=tls, proxy_protocol=["127.0.0.1"]) as front:
        await front.app(raw_echo)
        talk, name = await _over_tls(front, tmp_path, V2)
        reply = await talk.ask(get(front))
        assert name == "old.localhost"
        assert b"X-Forwarded-For: 192.0.2.7\r\n" in reply.body
        assert b"X-Forwarded-Proto: https\r\n" in reply.body
        make_certificate(tmp_path, "new.localhost")
        async with asyncio.timeout(30):
            while True:
                try:
                    other, name = await _over_tls(front, tmp_path, V1)
                    break
                except ssl.SSLError:
                    await asyncio.sleep(0.1)
        assert name == "new.localhost"
        assert (await other.ask(get(front))).status == 200
        assert (await talk.ask(get(front))).status == 200, "connections that are open go on"


def test_a_certificate_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    make_certificate(tmp_path, "old.localhost")
    settings = WebSettings(tls={"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"})  # type: ignore[arg-type]
    certificates = Certificates(settings.tls)
    before = certificates.context
    (tmp_path / "cert.pem").write_text("nonsense")
    certificates.look()
    assert certificates.context is before
    make_certificate(tmp_path, "new.localhost")
    certificates.look()
    assert certificates.context is not before


def test_a_start_without_a_usable_certificate_names_the_files(tmp_path: Path) -> None:
    settings = WebSettings(tls={"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"web\.tls: .*cert\.pem"):
        Certificates(settings.tls)


async def test_a_client_that_speaks_no_tls_is_let_go(tmp_path: Path) -> None:
    make_certificate(tmp_path, "x.localhost")
    tls = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    async with running(tls=tls, head_s=1) as front:
        await front.app(raw_echo)
        plain, silent = await front.connect(), await front.connect()
        plain.send(get(front))
        assert b"200" not in await plain.rest()
        assert await silent.rest() == b""
        await until(lambda: len(front.front) == 0, "nobody is left")
