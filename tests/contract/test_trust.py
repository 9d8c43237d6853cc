"""Port 2822: only a proxy of ours, for the right workspace, user and account, on every call."""

import asyncio
import base64
import getpass
import hashlib
import hmac
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protos.shelld.v1 import shelld_pb2 as pb
from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from proxy.errors.upstream import TrustError, Unreachable
from proxy.model import Endpoint, Exec, ProgramSpec, Visit
from proxy.settings.trust import TrustSettings
from proxy.trust.authority import Authority, KeyPair, server_name
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore
from proxy.trust.tokens import workspace_key
from proxy.upstream.client import Links
from tests.contract.shelldproc import (
    CHANNEL_OPTIONS,
    METHODS,
    Connection,
    Shelld,
    calls,
    every_call,
    run,
    tcp,
)
from tests.contract.trusted import NAMESPACE, Workspace, proxy, pump, said, serving, workspace

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> TrustManager:
    made = TrustManager(FileTrustStore(tmp_path_factory.mktemp("trust") / "trust.json"), TrustSettings())
    asyncio.run(made.refresh())
    return made


@pytest.fixture(scope="module")
def ws1(tmp_path_factory: pytest.TempPathFactory, keeper: TrustManager) -> Iterator[Workspace]:
    with workspace(tmp_path_factory.mktemp("ws1"), keeper, accounts=["daemon"]) as made:
        yield made


@pytest.fixture
async def links(keeper: TrustManager) -> AsyncIterator[Links]:
    async with proxy(keeper) as made:
        yield made


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def good(keeper: TrustManager, account: str = "") -> tuple[tuple[str, str], ...]:
    return bearer(keeper.token("ws1", "alice", account))


def ours(keeper: TrustManager) -> KeyPair:
    material = keeper.material()
    return KeyPair(material.certificate, material.key)


def authority(keeper: TrustManager) -> Authority:
    found = keeper.generations.all[0].authority
    assert found is not None
    return found


def forged(key: bytes, header: dict[str, Any] | None = None, **claims: Any) -> str:
    now = time.time()
    claims = {"sub": "alice", "aud": "ws1", "iat": now, "exp": now + 300, **claims}

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    head = part({"alg": "HS256", "typ": "JWT", **(header or {})})
    body = f"{head}.{part({k: v for k, v in claims.items() if v is not None})}"
    signature = hmac.new(key, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


# ------------------------------------------------------------------------------------ who is let in


async def test_every_call_passes_with_certificate_and_token(ws1: Workspace, keeper: TrustManager) -> None:
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        assert await every_call(stub, good(keeper)) == {grpc.StatusCode.OK}
        assert await every_call(stub, good(keeper, getpass.getuser())) == {grpc.StatusCode.OK}


async def test_bytes_over_tls(ws1: Workspace, keeper: TrustManager) -> None:
    data = os.urandom(3 * 1024 * 1024)
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:

        class WithToken:
            def __getattr__(self, name: str) -> Any:
                return lambda: getattr(stub, name)(metadata=good(keeper))

        served = Shelld(ws1.served.directory, ws1.served.process, WithToken())
        ran = await run(served, "cat", stdin=data)
        assert ran.stdout == data
        assert ran.status == 0
        async with serving(pump) as port:
            link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
            await link.send(data[:100_000])
            await link.eof()
            assert await link.end() == ["eof"]
            assert link.received == data[:100_000]


# ------------------------------------------------------------------------- whose certificate is none


def _self_made(keeper: TrustManager, ws1: Workspace) -> KeyPair:
    """A workspace signs a proxy's certificate with its own key: it is no authority."""
    parent = x509.load_pem_x509_certificate((ws1.files / "tls.crt").read_bytes())
    key = serialization.load_pem_private_key((ws1.files / "tls.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pair = Authority(parent, key).issue_client(datetime.now(UTC), timedelta(hours=1))
    return KeyPair(pair.certificate + (ws1.files / "tls.crt").read_bytes(), pair.key)


def _other_authority(keeper: TrustManager, ws1: Workspace) -> KeyPair:
    """The same names in the same places, and another key."""
    made = Authority.create("1", datetime.now(UTC), DAY, DAY)
    return made.issue_client(datetime.now(UTC), DAY, DAY)


def _same_subject(keeper: TrustManager, ws1: Workspace) -> KeyPair:
    """Issued under our authority's very name, by somebody else's key."""
    real = authority(keeper).certificate
    key = ec.generate_private_key(ec.SECP256R1())
    fake = (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(real.subject)
        .public_key(key.public_key())
        .serial_number(real.serial_number)
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(fake, key).issue_client(datetime.now(UTC), DAY, DAY)


BAD_PAIRS: dict[str, Callable[[TrustManager, Workspace], KeyPair | None]] = {
    "no certificate": lambda keeper, ws1: None,
    "its own": lambda keeper, ws1: KeyPair(
        (ws1.files / "tls.crt").read_bytes(), (ws1.files / "tls.key").read_bytes()
    ),
    "another workspace's": lambda keeper, ws1: authority(keeper).issue_server(
        server_name("ws2", NAMESPACE), datetime.now(UTC), DAY
    ),
    "a workspace called as proxies are": lambda keeper, ws1: authority(keeper).issue_server(
        "fairlead-proxy", datetime.now(UTC), DAY
    ),
    "expired": lambda keeper, ws1: authority(keeper).issue_client(
        datetime.now(UTC) - timedelta(minutes=30), timedelta(minutes=1)
    ),
    "of tomorrow": lambda keeper, ws1: authority(keeper).issue_client(datetime.now(UTC) + DAY, DAY),
    "another authority's": _other_authority,
    "an impostor's": _same_subject,
    "signed by a workspace": _self_made,
}


@pytest.mark.parametrize("case", BAD_PAIRS)
async def test_every_call_without_a_proxys_certificate_is_refused(
    ws1: Workspace, keeper: TrustManager, case: str
) -> None:
    """With a token that is good: one half of the proof is none."""
    async with ws1.stub(keeper.material().roots, BAD_PAIRS[case](keeper, ws1)) as stub:
        assert await every_call(stub, good(keeper)) == {grpc.StatusCode.UNAVAILABLE}


async def test_a_client_certificate_of_another_name_is_refused(ws1: Workspace, keeper: TrustManager) -> None:
    """cert-manager may sign for others than us."""
    made = authority(keeper)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fairlead-proxy")]))
        .issuer_name(made.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=1))
        .not_valid_after(datetime.now(UTC) + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("ws1.fairlead.internal")]), critical=False)
        .sign(made.key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pair = KeyPair(
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    async with ws1.stub(keeper.material().roots, pair) as stub:
        assert await every_call(stub, good(keeper)) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_plain_text_is_not_spoken(ws1: Workspace, keeper: TrustManager) -> None:
    options = [*CHANNEL_OPTIONS]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ws1.port}", options) as channel:
        assert await every_call(ShelldStub(channel), good(keeper)) == {grpc.StatusCode.UNAVAILABLE}


# ----------------------------------------------------------------------------------- whose token is none

BAD_TOKENS: dict[str, Callable[[bytes], Any]] = {
    "none": lambda key: (),
    "empty": lambda key: bearer(""),
    "another workspace's": lambda key: bearer(forged(key, aud="ws2")),
    "another user's": lambda key: bearer(forged(key, sub="mallory")),
    "nobody's": lambda key: bearer(forged(key, sub=None)),
    "expired": lambda key: bearer(forged(key, iat=1, exp=300)),
    "expired lately": lambda key: bearer(forged(key, iat=time.time() - 400, exp=time.time() - 90)),
    "of the future": lambda key: bearer(forged(key, iat=time.time() + 90, exp=time.time() + 300)),
    "for a day": lambda key: bearer(forged(key, exp=time.time() + 86_400)),
    "for ever": lambda key: bearer(forged(key, exp=None)),
    "alg none": lambda key: bearer(forged(key, {"alg": "none"})),
    "alg none, unsigned": lambda key: bearer(forged(key, {"alg": "none"}).rpartition(".")[0] + "."),
    "alg RS256": lambda key: bearer(forged(key, {"alg": "RS256"})),
    "another key": lambda key: bearer(forged(bytes(32))),
    "a key by its id": lambda key: bearer(forged(b"", {"kid": "/dev/null"})),
    "a key it brings along": lambda key: bearer(
        forged(b"x" * 32, {"jwk": {"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}})
    ),
    "critical extension": lambda key: bearer(forged(key, {"crit": ["b64"], "b64": False})),
    "huge": lambda key: bearer(forged(key, pad="x" * 5000)),
    "two": lambda key: bearer(forged(key)) * 2,
    "basic": lambda key: (("authorization", "Basic " + forged(key)),),
    "elsewhere": lambda key: (("x-authorization", "Bearer " + forged(key)),),
    "cut": lambda key: bearer(forged(key)[:-3]),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
async def test_every_call_without_a_good_token_is_refused(
    ws1: Workspace, keeper: TrustManager, case: str
) -> None:
    """With the proxy's own certificate: one half of the proof is none."""
    key = workspace_key(keeper.generations.all[0].master, "ws1")
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        assert await every_call(stub, bearer(forged(key))) == {grpc.StatusCode.OK}
        assert await every_call(stub, BAD_TOKENS[case](key)) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_a_token_of_another_workspace_cannot_be_replayed(ws1: Workspace, keeper: TrustManager) -> None:
    """Neither as it is, nor made anew with what lies in the other workspace."""
    replayed = bearer(keeper.token("ws2", "alice", ""))
    files = keeper.workspace_files("ws2", server_name("ws2", NAMESPACE), {})
    stolen = base64.b64decode(files["token.key"].splitlines()[0])
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        for metadata in (replayed, bearer(forged(stolen))):
            assert await every_call(stub, metadata) == {grpc.StatusCode.UNAUTHENTICATED}


# --------------------------------------------------------------------------------- accounts

NAMES_AN_ACCOUNT = {"Run", "Dial", "EnsureApp", "Listen"}


async def test_every_call_that_names_an_account_is_refused_to_a_token_of_another(
    ws1: Workspace, keeper: TrustManager
) -> None:
    """Also where it names none: that means the workspace's own."""
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        codes = await calls(stub, good(keeper, "daemon"))
    assert {
        name for name, code in codes.items() if code is grpc.StatusCode.UNAUTHENTICATED
    } == NAMES_AN_ACCOUNT


async def test_a_connection_is_claimed_only_with_a_token_of_its_listeners_account(
    ws1: Workspace, keeper: TrustManager
) -> None:
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        own = good(keeper, getpass.getuser())
        request = pb.ListenRequest(tcp=pb.TcpAddress(host="localhost"), listener_id="own")
        listening = stub.Listen(request, metadata=own)
        bound = (await listening.read()).bound
        with socket.create_connection(("127.0.0.1", bound.port)) as client:
            waiting = (await listening.read()).accepted.connection_id
            thief = stub.Accept(metadata=good(keeper, "daemon"))
            await thief.write(pb.ConnectionInput(accept=waiting))
            await thief.done_writing()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await thief.read()
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            # The attempt took nothing away from its owner.
            link = await Connection.open(stub.Accept(metadata=own), accept=waiting)
            await link.send(b"still here")
            assert client.recv(100) == b"still here"
            link.call.cancel()
        listening.cancel()


async def test_an_ssh_agent_serves_programs_of_its_own_account_alone(
    ws1: Workspace, keeper: TrustManager
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: programs of two accounts")
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        request = pb.ListenRequest(ssh_agent="agent.sock", listener_id="a1", account="daemon")
        listening = stub.Listen(request, metadata=good(keeper, "daemon"))
        assert (await listening.read()).WhichOneof("frame") == "bound"
        program = stub.Run(metadata=good(keeper))
        await program.write(pb.RunInput(start=pb.Start(exec=b"true", ssh_agent="a1")))
        assert (await program.read()).start_failed.code == pb.StartFailed.INVALID
        await program.done_writing()
        listening.cancel()


# --------------------------------------------------------------------------- the proxy's side


async def test_a_workspace_cannot_stand_in_for_another(
    tmp_path: Path, ws1: Workspace, keeper: TrustManager, visit: Callable[[str], Visit]
) -> None:
    """Somebody bends the address of ws1: the proxy must notice before it says a word."""
    with workspace(tmp_path / "ws2", keeper, "ws2") as other:
        bent = Workspace("ws1", other.served, other.port, other.files)
        async with proxy(keeper, connect_timeout_s=2) as links:
            with pytest.raises(Unreachable):
                async with links.use(bent.endpoint):
                    pass
        log = other.served.log
    assert "ws1" not in log


async def test_a_proxy_without_credentials_says_so(ws1: Workspace) -> None:
    async with proxy(None) as links:
        with pytest.raises(TrustError, match="credentials"):
            async with links.use(ws1.endpoint):
                pass


async def test_programs_share_one_connection(
    ws1: Workspace, links: Links, visit: Callable[[str], Visit]
) -> None:
    """A handshake a workspace, not one a program."""
    made = 0

    async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        back, out = await asyncio.open_connection("127.0.0.1", ws1.port)
        try:
            await asyncio.gather(pump(reader, out), pump(back, writer))
        finally:
            out.close()
            await out.wait_closed()

    async def one(endpoint: Endpoint) -> bytes:
        async with links.use(endpoint) as link:
            return await said(await link.run(ProgramSpec(Exec("echo hello")), visit("alice"), "p"))

    async with serving(splice) as port:
        through = Workspace("ws1", ws1.served, port, ws1.files).endpoint
        assert await one(through) == b"hello\n"
        assert set(await asyncio.gather(*(one(through) for _ in range(20)))) == {b"hello\n"}
        assert made == 1
        await links.close()


# --------------------------------------------------------------------------------- raw TLS probes


def _probe(port: int, context: ssl.SSLContext) -> bytes:
    """Shake hands, begin HTTP/2, and return what the server says to that. Raises: OSError for nothing."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    with raw, context.wrap_socket(raw, server_hostname=server_name("ws1", NAMESPACE)) as tls:
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        if not (answer := tls.recv(1024)):
            raise ConnectionResetError("closed without a word")
        return answer


def _context(
    keeper: TrustManager, tmp_path: Path, *, shows: KeyPair | None, version: Any = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=keeper.material().roots.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's default since 3.13
    context.set_alpn_protocols(["h2"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    if shows is not None:
        file = tmp_path / "pair.pem"
        file.write_bytes(shows.key + shows.certificate)
        context.load_cert_chain(file)
    return context


async def test_another_tls_library_gets_in_with_the_same_proof(
    ws1: Workspace, keeper: TrustManager, tmp_path: Path
) -> None:
    """OpenSSL trusts what we issue, and is trusted with it; without it, it hears not one frame."""
    context = _context(keeper, tmp_path, shows=ours(keeper))
    answer = await asyncio.to_thread(_probe, ws1.port, context)
    assert answer[3] == 4, "a SETTINGS frame"
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        anonymous = _context(keeper, tmp_path, shows=None, version=version)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(_probe, ws1.port, anonymous)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
async def test_old_tls_is_refused(
    ws1: Workspace, keeper: TrustManager, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = _context(keeper, tmp_path, shows=ours(keeper), version=version)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(_probe, ws1.port, context)


async def test_noise_hurts_nobody(ws1: Workspace, keeper: TrustManager) -> None:
    """Bytes that are no TLS, half a handshake, and connections that say nothing."""
    idle = [socket.create_connection(("127.0.0.1", ws1.port)) for _ in range(50)]
    for data in (
        os.urandom(4096),
        b"\x16\x03\x01\xff\xff" + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ):
        with socket.create_connection(("127.0.0.1", ws1.port)) as noise:
            noise.sendall(data)
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        assert await every_call(stub, good(keeper)) == {grpc.StatusCode.OK}
    for connection in idle:
        connection.close()


async def test_thousands_of_connections_at_once_do_not_end_the_workspace(
    ws1: Workspace, keeper: TrustManager
) -> None:
    """Each begins a handshake on one of gRPC's threads, and each reads the certificates again."""
    for _ in range(50):
        connections = [socket.create_connection(("127.0.0.1", ws1.port)) for _ in range(100)]
        for connection in connections:
            connection.close()
    async with ws1.stub(keeper.material().roots, ours(keeper)) as stub:
        assert await every_call(stub, good(keeper)) == {grpc.StatusCode.OK}


def test_the_list_of_calls_is_whole() -> None:
    assert set(METHODS) >= NAMES_AN_ACCOUNT | {"Handshake", "Accept", "Status"}
