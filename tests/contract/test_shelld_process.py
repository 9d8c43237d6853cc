"""The process that shelld is: start, stop, idleness, init scripts, TCP with certificates, PID 1."""

import asyncio
import base64
import datetime
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protos.shelld.v1 import shelld_pb2 as pb
from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from tests.contract.shelldproc import (
    CHANNEL_OPTIONS,
    ROOT,
    Connection,
    Shelld,
    pty,
    run,
    shelld,
    shelld_argv,
    spawn_shelld,
    start,
    stop,
    tcp,
    wait_for,
    write_config,
)

# ---------------------------------------------------------------------------------- command line


def _refusal(*argv: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "shelld", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr + done.stdout


def test_version() -> None:
    status, words = _refusal("--version")
    assert status == 0
    assert re.fullmatch(r"shelld \d+\.\d+\.\d+\n", words)


def test_every_bad_setting_is_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({"acount": {}, "limits": {"programs": "many"}, "forward": {"tcp": ["nonsense"]}})
    )
    status, words = _refusal("--listen", "tcp://0.0.0.0:2822", "--config", str(config))
    assert status == 78
    for part in ("--tls-cert", "--token-key", "workspace", "acount", "limits.programs", "nonsense"):
        assert part in words, words
    assert "Traceback" not in words


def test_unreadable_config_is_told() -> None:
    status, words = _refusal("--listen", "unix:///tmp/s", "--config", "/no/such/file")
    assert (status, "No such file" in words) == (78, True)


async def test_second_shelld_leaves_the_first_alone() -> None:
    async with shelld() as served:
        listen, config = f"unix://{served.directory / 's'}", served.directory / "config.json"
        done = await asyncio.to_thread(_refusal, "--listen", listen, "--config", str(config))
        assert done[0] == 75
        assert "another shelld" in done[1]
        assert (await run(served, "echo fine")).out == "fine\n"


async def test_socket_of_a_killed_shelld_is_replaced_and_is_private(short_dir: Path) -> None:
    path, config = short_dir / "s", write_config(short_dir)
    argv = shelld_argv(f"unix://{path}", config)
    first = spawn_shelld(argv, short_dir)
    await wait_for(path.exists)
    assert path.stat().st_mode & 0o777 == 0o600
    first.kill()
    first.wait()
    assert path.exists()
    assert not _answers(path)
    second = spawn_shelld(argv, short_dir)
    try:
        await wait_for(lambda: _answers(path), what="the successor")
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        status = stop(second)
    assert status == 0
    assert not path.exists()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def test_file_in_the_place_of_the_socket_is_not_touched(short_dir: Path) -> None:
    (short_dir / "s").write_text("mine")
    config = write_config(short_dir)
    status, words = await asyncio.to_thread(
        _refusal, "--listen", f"unix://{short_dir / 's'}", "--config", str(config)
    )
    assert (status, "no socket" in words) == (78, True)
    assert (short_dir / "s").read_text() == "mine"


async def test_term_ends_programs_politely_and_tells_how_they_ended() -> None:
    async with shelld() as served:
        polite = await start(served, "trap 'echo bye; exit 3' HUP; echo ready; while :; do sleep 0.05; done")
        await polite.until("ready")
        stubborn = await start(
            served, "trap '' HUP TERM; nohup sleep 600 & echo pid $! ready; wait; sleep 600"
        )
        nohup = int(re.findall(r"pid (\d+)", await stubborn.until("ready"))[0])
        served.process.send_signal(signal.SIGTERM)
        assert (await polite.end()).status == 3
        assert polite.ran.out.endswith("bye\n")
        assert (await stubborn.end()).signal == "KILL"
        assert await asyncio.to_thread(served.process.wait, 30) == 0
        assert not psutil.pid_exists(nohup)
        assert not (served.directory / "s").exists()


async def test_killed_launcher_is_replaced() -> None:
    """What `kill -9 -1` of the account does to a shelld that is PID 1."""
    async with shelld() as served:
        (launcher,) = psutil.Process(served.process.pid).children()
        launcher.kill()
        assert (await run(served, "echo still")).out == "still\n"
        assert (await run(served, "echo and again; exit 2")).status == 2


async def test_full_descriptor_table_is_a_refusal_and_passes() -> None:
    async with shelld() as served:
        process = psutil.Process(served.process.pid)
        for more in (1, 3, 5, 7):
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + more, 4096))
            assert (await run(served, "true")).failed == "RESOURCES"
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 1, 4096))
        assert (await run(served, "true", pty=pty())).failed == "NO_PTY"
        process.rlimit(psutil.RLIMIT_NOFILE, (4096, 4096))
        assert (await run(served, "true")).status == 0


# ------------------------------------------------------------------------------------------ idle


async def test_idle_shelld_stops_and_ends_an_idle_shell() -> None:
    async with shelld(idle_stop_s=1.0) as served:
        running = await start(served, pty=pty())
        ended = await running.end()
        assert ended.kinds[-1] == "exit"
        assert await asyncio.to_thread(served.process.wait, 30) == 0
        assert not (served.directory / "s").exists()


async def test_output_and_work_are_activity() -> None:
    limit_s = 2.0
    async with AsyncExitStack() as stack:
        workspaces = []
        for work in ("while :; do echo x; sleep 0.2; done", "while :; do :; done"):
            served = await stack.enter_async_context(shelld(idle_stop_s=limit_s))
            workspaces.append((served, await start(served, work)))
        await asyncio.sleep(2.5 * limit_s)
        assert [served.process.poll() for served, _ in workspaces] == [None, None]
        for served, running in workspaces:
            running.call.cancel()
            await asyncio.to_thread(served.process.wait, 60)


# ---------------------------------------------------------------------------------- init scripts


async def test_init_scripts_run_once_or_every_time_before_the_first_program(short_dir: Path) -> None:
    home = short_dir / "home"
    init = [
        {"name": "once", "script": "echo once >> order\n", "when": "once"},
        {"name": "bad", "script": "echo oops; exit 9\n", "when": "once"},
        {
            "name": "env-shebang",
            "script": "#!/usr/bin/env -S python3 -u\nimport os\n"
            "open('order', 'a').write(os.environ['WHAT'] + '\\n')\n",
            "when": "every",
        },
    ]
    for expected in ("once\nevery\n", "once\nevery\nevery\n"):
        async with shelld(init=init, env={"WHAT": "every"}, account={"home": str(home)}) as served:
            assert (await run(served, "cat order")).out == expected
            assert '"script": "bad", "ok": false, "status": 9' in served.log
            assert "oops" not in served.log
    assert (home / ".local/state/fairlead/init/bad.log").read_text() == "oops\n"


async def test_slow_init_script_does_not_hold_programs_for_ever() -> None:
    init = [{"name": "slow", "script": "sleep 600\n", "when": "every"}]
    async with shelld(init=init, init_wait_s=0.2) as served:
        assert (await run(served, "echo here")).out == "here\n"


# ------------------------------------------------------------------------------- TCP, TLS, tokens

KEY = os.urandom(32)


def _certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def _pem(made: tuple[x509.Certificate, ec.EllipticCurvePrivateKey]) -> tuple[bytes, bytes]:
    private = made[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made[0].public_bytes(serialization.Encoding.PEM), private


def _token(key: bytes = KEY, alg: str = "HS256", **claims: Any) -> str:
    now = time.time()
    claims = {"sub": "alice", "aud": "ws1", "iat": now, "exp": now + 300, **claims}

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = f"{part({'alg': alg, 'typ': 'JWT'})}.{part({k: v for k, v in claims.items() if v is not None})}"
    signature = hmac.new(key, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@dataclass
class Tcp:
    """A shelld on TCP and the files that its proxy holds."""

    served: Shelld
    port: int
    ca: bytes
    proxy: tuple[bytes, bytes]
    other_name: tuple[bytes, bytes]
    stranger: tuple[bytes, bytes]

    @asynccontextmanager
    async def stub(self, pair: tuple[bytes, bytes] | None) -> AsyncIterator[Any]:
        credentials = grpc.ssl_channel_credentials(self.ca, *((pair[1], pair[0]) if pair else (None, None)))
        options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", "ws1")]
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            yield ShelldStub(channel)


@pytest.fixture(scope="module")
def served_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tcp]:
    directory = tmp_path_factory.mktemp("tcp")
    ca = _certificate("test CA", None)
    for name, data in zip(("cert", "key"), _pem(_certificate("ws1", ca)), strict=True):
        (directory / name).write_bytes(data)
    (directory / "ca").write_bytes(_pem(ca)[0])
    (directory / "token-key").write_bytes(base64.b64encode(KEY))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {"--tls-cert": "cert", "--tls-key": "key", "--tls-client-ca": "ca", "--token-key": "token-key"}
    more = [word for flag, name in flags.items() for word in (flag, str(directory / name))]
    argv = shelld_argv(
        f"tcp://127.0.0.1:{port}", write_config(directory, user="alice", accounts=["daemon"]), *more
    )
    process = spawn_shelld(argv, directory)
    deadline = time.monotonic() + 30
    while '"serving"' not in (directory / "log").read_text():
        assert process.poll() is None, (directory / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield Tcp(
        Shelld(directory, process),
        port,
        (directory / "ca").read_bytes(),
        _pem(_certificate("fairlead-proxy", ca)),
        _pem(_certificate("somebody-else", ca)),
        _pem(_certificate("fairlead-proxy", _certificate("another CA", None))),
    )
    assert stop(process) == 0
    log = (directory / "log").read_text()
    assert "traceback" not in log.lower(), log
    assert _token().split(".")[0] not in log  # no token, not even the front of one


async def _every_call(stub: Any, metadata: Any) -> list[grpc.StatusCode]:
    """Make each of the service's calls; return how they ended (OK when they went through)."""
    codes = []
    for method in pb.DESCRIPTOR.services_by_name["Shelld"].methods:
        call = getattr(stub, method.name)
        try:
            if method.client_streaming:
                stream = call(metadata=metadata, timeout=20)
                if method.name == "Run":
                    await stream.write(pb.RunInput(start=pb.Start(exec="true")))
                else:
                    await stream.write(
                        pb.ConnectionInput(accept="none")
                        if method.name == "Accept"
                        else pb.ConnectionInput(dial=tcp("127.0.0.1", 1))
                    )
                await stream.done_writing()
                while await stream.read() is not grpc.aio.EOF:
                    pass
            elif method.server_streaming:
                stream = call(pb.ListenRequest(), metadata=metadata, timeout=20)
                while await stream.read() is not grpc.aio.EOF:
                    pass
            elif method.name == "Handshake":
                await call(pb.HandshakeRequest(version=pb.Version(major=1)), metadata=metadata, timeout=20)
            else:
                await call(pb.StatusRequest(), metadata=metadata, timeout=20)
            codes.append(grpc.StatusCode.OK)
        except grpc.aio.AioRpcError as error:
            codes.append(error.code())
    return codes


async def test_every_call_passes_with_certificate_and_token(served_tcp: Tcp) -> None:
    async with served_tcp.stub(served_tcp.proxy) as stub:
        codes = await _every_call(stub, (("authorization", f"Bearer {_token()}"),))
    assert codes == [grpc.StatusCode.OK] * 6


@pytest.mark.parametrize(
    ("case", "token"),
    [
        ("no token", None),
        ("expired", {"iat": 1, "exp": 300}),
        ("expired lately", {"iat": time.time() - 400, "exp": time.time() - 120}),
        ("future", {"iat": time.time() + 3000, "exp": time.time() + 3300}),
        ("too long", {"iat": time.time(), "exp": time.time() + 86400}),
        ("no exp", {"exp": None}),
        ("another workspace", {"aud": "ws2"}),
        ("another user", {"sub": "mallory"}),
        ("another key", {"key": bytes(32)}),
        ("alg none", {"alg": "none"}),
        ("alg RS256", {"alg": "RS256"}),
        ("huge", {"pad": "x" * 5000}),
    ],
)
async def test_every_call_without_a_good_token_is_refused(
    served_tcp: Tcp, case: str, token: dict[str, Any] | None
) -> None:
    metadata = () if token is None else (("authorization", f"Bearer {_token(**token)}"),)
    async with served_tcp.stub(served_tcp.proxy) as stub:
        assert await _every_call(stub, metadata) == [grpc.StatusCode.UNAUTHENTICATED] * 6, case


async def test_token_counts_for_its_account_alone(served_tcp: Tcp) -> None:
    own = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    async with served_tcp.stub(served_tcp.proxy) as stub:
        good = (("authorization", f"Bearer {_token(acct=own)}"),)
        assert await _every_call(stub, good) == [grpc.StatusCode.OK] * 6
        codes = await _every_call(stub, (("authorization", f"Bearer {_token(acct='daemon')}"),))
    by_name = dict(zip(pb.DESCRIPTOR.services_by_name["Shelld"].methods_by_name, codes, strict=True))
    for name in ("Run", "Dial", "Listen"):
        assert by_name[name] == grpc.StatusCode.UNAUTHENTICATED


async def test_every_call_without_the_proxys_certificate_is_refused(served_tcp: Tcp) -> None:
    metadata = (("authorization", f"Bearer {_token()}"),)
    async with served_tcp.stub(served_tcp.other_name) as stub:
        assert await _every_call(stub, metadata) == [grpc.StatusCode.UNAUTHENTICATED] * 6
    for pair in (None, served_tcp.stranger):
        async with served_tcp.stub(pair) as stub:
            assert await _every_call(stub, metadata) == [grpc.StatusCode.UNAVAILABLE] * 6
    options = [*CHANNEL_OPTIONS]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served_tcp.port}", options) as channel:
        assert await _every_call(ShelldStub(channel), metadata) == [grpc.StatusCode.UNAVAILABLE] * 6


async def test_bytes_over_tls(served_tcp: Tcp) -> None:
    data = os.urandom(3 * 1024 * 1024)
    async with served_tcp.stub(served_tcp.proxy) as stub:

        class WithToken:
            def __getattr__(self, name: str) -> Any:
                return lambda: getattr(stub, name)(metadata=(("authorization", f"Bearer {_token()}"),))

        served = Shelld(served_tcp.served.directory, served_tcp.served.process, WithToken())
        ran = await run(served, "cat", stdin=data)
        assert ran.stdout == data
        assert ran.status == 0
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        await link.eof()
        assert await link.end() == ["eof"]
        server.close()


# ----------------------------------------------------------------------------------------- PID 1


def _unshare() -> list[str] | None:
    flags = ["--pid", "--fork", "--kill-child", "--mount-proc"]
    argv = ["unshare", *([] if os.geteuid() == 0 else ["-U", "-r", "--mount"]), *flags]
    try:
        done = subprocess.run([*argv, "true"], capture_output=True, timeout=30, check=False)
    except OSError:
        return None
    return argv if done.returncode == 0 else None


async def _many_programs_under_pid_1(short_dir: Path, count: int) -> None:
    prefix = _unshare()
    if prefix is None:
        pytest.skip("this kernel or account may not make PID namespaces")
    socket_path = short_dir / "s"
    argv = [*prefix, *shelld_argv(f"unix://{socket_path}", write_config(short_dir), "--log-level", "warning")]
    process = spawn_shelld(argv, short_dir)
    try:
        await wait_for(lambda: socket_path.exists() or process.poll() is not None)
        assert process.poll() is None, (short_dir / "log").read_text()
        async with grpc.aio.insecure_channel(f"unix:{socket_path}", options=CHANNEL_OPTIONS) as channel:
            served = Shelld(short_dir, process, ShelldStub(channel))
            assert (await run(served, "cat /proc/1/cmdline")).out.count("shelld") >= 1
            pid_1 = _pid_1(process.pid)
            await _burst(served, 64)
            before = pid_1.num_fds(), pid_1.memory_info().rss
            for _ in range(count // 64):
                await _burst(served, 64)
            # What is left of a burst goes when its last call does.
            await wait_for(lambda: pid_1.num_fds() <= before[0] + 2, what="the return of descriptors")
            assert pid_1.memory_info().rss - before[1] < 16 * 1024 * 1024
            await wait_for(lambda: len(_below(pid_1)) == 1, what="the burial of every orphan")  # the launcher
        process.terminate()
        pid_1.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert "traceback" not in (short_dir / "log").read_text().lower()


def _pid_1(unshare_pid: int) -> psutil.Process:
    return psutil.Process(unshare_pid).children()[0]


def _below(process: psutil.Process) -> list[psutil.Process]:
    return process.children(recursive=True)


async def _burst(served: Shelld, count: int) -> None:
    """Programs at once, each with its own status and an orphan that ends by itself."""
    statuses = range(count)
    ran = await asyncio.gather(
        *(run(served, f"(sleep 0.01 >/dev/null 2>&1 &) ; exit {status % 250}") for status in statuses)
    )
    assert [one.status for one in ran] == [status % 250 for status in statuses]


async def test_pid_1_loses_no_status_and_leaves_no_zombie(short_dir: Path) -> None:
    await _many_programs_under_pid_1(short_dir, 448)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_pid_1_through_ten_thousand_programs(short_dir: Path) -> None:
    await _many_programs_under_pid_1(short_dir, 10_048)
