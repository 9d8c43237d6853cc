"""Apps of a real shelld: their start, readiness, restarts, logs, listeners and end."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from tests.contract.shelldproc import Shelld, connected, shelld, wait_for

State = pb.AppState
SERVER = f"exec {sys.executable} -u -m http.server --bind 127.0.0.1 $PORT"
ON_SOCKET = f"""exec {sys.executable} -c 'import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind(os.environ["FAIRLEAD_APP_SOCKET"])
server.listen()
while True:
    with server.accept()[0] as made:
        if made.recv(4096):
            made.sendall(os.fsencode(os.getcwd() + " " + os.environ["GREETING"]))'"""
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another account")


def spec(start: str, slug: str = "lab", **more: Any) -> pb.AppSpec:
    more.setdefault("listen", pb.AppListen(port=0))
    return pb.AppSpec(slug=slug, start=start.encode(), **more)


def within(seconds: float, path: bytes = b"") -> pb.AppReady:
    return pb.AppReady(path=path, within_ms=int(seconds * 1000))


async def ensure(served: Shelld, app: pb.AppSpec, *, automatic: bool = False) -> list[pb.AppState]:
    call = served.stub.EnsureApp(pb.EnsureAppRequest(spec=app, automatic=automatic))
    return [state async for state in call]


async def state_of(served: Shelld, slug: str = "lab") -> pb.AppState:
    reply = await served.stub.ListApps(pb.ListAppsRequest())
    return next(state for state in reply.apps if state.slug == slug)


async def log_of(served: Shelld, lines: int = 0) -> str:
    call = served.stub.AppLog(pb.AppLogRequest(slug="lab", lines=lines))
    return b"".join([chunk.data async for chunk in call]).decode()


async def dialled(served: Shelld, slug: str = "lab") -> tuple[pb.ConnectionOutput, bytes]:
    call = served.stub.Dial()
    await call.write(pb.ConnectionInput(dial=pb.Target(app=slug)))
    first = await call.read()
    answer = b""
    if first.WhichOneof("frame") == "connected":
        await call.write(pb.ConnectionInput(data=b"GET / HTTP/1.0\r\n\r\n"))
        await call.write(pb.ConnectionInput(eof=pb.Eof()))
        while (frame := await call.read()).WhichOneof("frame") == "data":
            answer += frame.data
    call.cancel()
    return first, answer


def processes_with(text: str) -> list[int]:
    """Return the pids of living processes whose environment holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@contextmanager
def listener_of(uid: int, *, port: int = 0, path: str = "") -> Iterator[int]:
    """Have a process of another account listen; yield the port."""
    code = (
        "import os, socket, sys\n"
        "port, path, uid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])\n"
        "os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)\n"
        "server = socket.socket(socket.AF_UNIX if path else socket.AF_INET)\n"
        "os.umask(0)\n"
        "server.bind(path or ('127.0.0.1', port))\n"
        "server.listen()\n"
        "print(0 if path else server.getsockname()[1], flush=True)\n"
        "while True: server.accept()[0].close()\n"
    )
    argv = [sys.executable, "-c", code, str(port), path, str(uid)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
async def served() -> AsyncIterator[Shelld]:
    async with shelld() as made:
        yield made


@pytest.fixture
async def hasty() -> AsyncIterator[Shelld]:
    async with shelld(module=("tests.contract.hasty",)) as made:
        yield made


# ------------------------------------------------------------------------------------- the good run


async def test_an_app_starts_is_ready_and_is_dialled_by_its_name(served: Shelld) -> None:
    states = await ensure(served, spec(SERVER, ready=within(60, b"/")))
    assert states[0].phase == State.STARTING
    assert states[-1].phase == State.READY
    assert states[-1].port > 0
    first, answer = await dialled(served)
    assert first.connected.local_address
    assert answer.startswith(b"HTTP/1.0 200")


async def test_an_app_on_a_socket_of_shelld_has_its_workdir_and_environment(served: Shelld) -> None:
    (served.home / "work").mkdir()
    app = spec(ON_SOCKET, listen=pb.AppListen(socket=b""), workdir=b"~/work", env={"GREETING": b"gr\xfc\xdf"})
    ready = (await ensure(served, app))[-1]
    assert ready.phase == State.READY, ready
    assert Path(os.fsdecode(ready.socket)).parent.stat().st_mode & 0o777 == 0o700
    assert (await dialled(served))[1] == os.fsencode(served.home / "work") + b" gr\xfc\xdf"


async def test_a_socket_that_a_dead_process_left_is_removed_before_the_start(served: Shelld) -> None:
    path = served.home / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    app = spec(ON_SOCKET, listen=pb.AppListen(socket=os.fsencode(path)), env={"GREETING": b"new"})
    assert (await ensure(served, app))[-1].phase == State.READY
    assert (await dialled(served))[1].endswith(b" new")


async def test_an_app_outlives_the_link_that_asked_for_it(served: Shelld) -> None:
    before = (await ensure(served, spec(SERVER)))[-1]
    async with connected(served) as again:
        after = (await ensure(again, spec(SERVER), automatic=True))[-1]
    assert (after.pid, after.phase) == (before.pid, State.READY)


async def test_a_running_app_goes_on_with_the_old_description_until_its_next_start(served: Shelld) -> None:
    before = (await ensure(served, spec(SERVER, digest="one")))[-1]
    after = (await ensure(served, spec(SERVER, digest="two")))[-1]
    assert (after.pid, after.digest) == (before.pid, "one")
    await served.stub.StopApp(pb.StopAppRequest(slug="lab"))
    assert (await ensure(served, spec(SERVER, digest="two")))[-1].digest == "two"


async def test_a_stopped_app_has_no_process_and_is_started_by_a_command_only(served: Shelld) -> None:
    ready = (await ensure(served, spec(SERVER)))[-1]
    assert os.path.exists(f"/proc/{ready.pid}")
    stopped = await served.stub.StopApp(pb.StopAppRequest(slug="lab", by="alice"))
    assert (stopped.phase, stopped.reason) == (State.STOPPED, "it was stopped by alice")
    assert stopped.stopped
    assert not os.path.exists(f"/proc/{ready.pid}")
    assert [one.phase for one in await ensure(served, spec(SERVER), automatic=True)] == [State.STOPPED]
    first, _ = await dialled(served)
    assert first.failed.code == pb.OpenFailed.NOT_FOUND
    assert first.failed.reason == "app lab does not run: it was stopped by alice"
    assert (await ensure(served, spec(SERVER)))[-1].phase == State.READY


async def test_an_app_that_ignores_term_is_killed_after_the_grace(served: Shelld) -> None:
    ready = (await ensure(served, spec(f"trap '' TERM; {SERVER.removeprefix('exec ')}")))[-1]
    await served.stub.StopApp(pb.StopAppRequest(slug="lab"))
    assert not os.path.exists(f"/proc/{ready.pid}")


async def test_apps_of_the_configuration_are_started_with_the_workspace() -> None:
    async with shelld(apps=[{"slug": "lab", "start": SERVER, "port": 0}]) as served:
        while (state := await state_of_once(served)) is None or state.phase != State.READY:
            await asyncio.sleep(0.05)
        assert (await dialled(served))[1].startswith(b"HTTP/1.0 200")


async def state_of_once(served: Shelld) -> pb.AppState | None:
    reply = await served.stub.ListApps(pb.ListAppsRequest())
    return next(iter(reply.apps), None)


async def test_apps_end_with_the_workspace(tmp_path: Path) -> None:
    async with shelld() as served:
        app = spec(f"setsid {SERVER.removeprefix('exec ')} & wait", env={"WHOSE": os.fsencode(tmp_path)})
        assert (await ensure(served, app))[-1].phase == State.READY
        assert processes_with(str(tmp_path))
    assert not processes_with(str(tmp_path))


# --------------------------------------------------------------------------------- the bad ones


async def test_an_app_that_crashes_is_started_again_five_times_and_then_given_up(hasty: Shelld) -> None:
    crashing = spec("echo boom >&2; exit 3")
    states = await ensure(hasty, crashing)
    last = states[-1]
    assert (last.phase, last.restarts, last.exit.status) == (State.FAILED, 5, 3)
    given_up = "it ended with status 3 before it was ready; given up after 5 restarts in 10 minutes"
    assert last.reason == given_up
    assert "boom" in last.log_lines
    log = await log_of(hasty)
    assert log.splitlines().count("boom") == 6
    for pause_s in (1, 2, 4, 8, 16):
        assert f"started again in {pause_s} s" in log
    assert given_up in log
    # A request of a browser does not start it: the limit would be none. A command does.
    assert [one.phase for one in await ensure(hasty, crashing, automatic=True)] == [State.FAILED]
    assert (await ensure(hasty, spec(SERVER)))[-1].phase == State.READY


async def test_an_app_that_dies_while_it_is_used_comes_back(hasty: Shelld) -> None:
    before = (await ensure(hasty, spec(SERVER)))[-1]
    os.kill(before.pid, signal.SIGKILL)
    while (now := await state_of(hasty)).pid in (0, before.pid) or now.phase != State.READY:
        await asyncio.sleep(0.02)
    assert now.exit.signal.name == "KILL"
    assert "it was ended by signal KILL; started again in 1 s" in await log_of(hasty)


async def test_restart_no_and_a_good_end_leave_an_app_stopped(served: Shelld) -> None:
    states = await ensure(served, spec("exit 3", restart=pb.AppSpec.NO))
    assert [states[-1].phase, states[-1].restarts] == [State.FAILED, 0]
    ready = (await ensure(served, spec(f"{SERVER.removeprefix('exec ')}; exit 0", "once")))[-1]
    assert ready.phase == State.READY
    for pid in processes_with(f"PORT={ready.port}"):
        if pid != ready.pid:
            os.kill(pid, signal.SIGKILL)
    while (now := await state_of(served, "once")).phase == State.READY:
        await asyncio.sleep(0.02)
    assert (now.phase, now.reason) == (State.STOPPED, "it ended with status 0")


async def test_an_app_that_never_listens_fails_and_leaves_no_process(served: Shelld, tmp_path: Path) -> None:
    app = spec(
        "sleep 1000",
        ready=within(0.3),
        restart=pb.AppSpec.NO,
        env={"WHOSE": os.fsencode(tmp_path)},
    )
    last = (await ensure(served, app))[-1]
    assert last.phase == State.FAILED
    assert last.reason == f"it was not ready within 0.3 s: nothing listens on port {last.port}"
    assert last.reason in await log_of(served)
    assert not processes_with(str(tmp_path))


async def test_an_app_that_answers_with_errors_only_is_not_ready(served: Shelld) -> None:
    refusing = f"""exec {sys.executable} -c 'import http.server, os
class Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_error(503)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Refusing).serve_forever()'"""
    app = spec(refusing, ready=within(3, b"/api"), restart=pb.AppSpec.NO)
    last = (await ensure(served, app))[-1]
    assert last.phase == State.FAILED
    assert last.reason.startswith("it was not ready within 3 s: ")


@needs_root
async def test_a_port_of_another_account_is_refused_in_words(served: Shelld) -> None:
    with listener_of(NOBODY) as port:
        app = spec("sleep 1000", listen=pb.AppListen(port=port), ready=within(0.5), restart=pb.AppSpec.NO)
        states = await ensure(served, app)
    words = f"port {port} is listened on by another account (nobody), not by root"
    assert states[-1].reason == f"it was not ready within 0.5 s: {words}"
    assert words in [one.reason for one in states if one.phase == State.STARTING], "at once, on the page"


async def test_a_port_of_another_process_of_the_account_is_refused_in_words(served: Shelld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = spec("sleep 1000", listen=pb.AppListen(port=port), ready=within(0.3), restart=pb.AppSpec.NO)
        last = (await ensure(served, app))[-1]
    words = f"port {port} is listened on by a process that is not of this app"
    assert last.reason == f"it was not ready within 0.3 s: {words}"


@needs_root
async def test_a_socket_of_another_account_is_refused_in_words(served: Shelld) -> None:
    (served.home / "open").mkdir()
    (served.home / "open").chmod(0o777)
    path = f"{served.home}/open/s"
    with listener_of(NOBODY, path=path):
        app = spec(
            "sleep 1000",
            listen=pb.AppListen(socket=path.encode()),
            ready=within(0.3),
            restart=pb.AppSpec.NO,
        )
        last = (await ensure(served, app))[-1]
    assert last.reason.endswith(f"socket {path} is listened on by another account (nobody), not by root")


@needs_root
async def test_a_port_that_another_account_took_over_later_is_not_dialled(served: Shelld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    closing = f"""exec {sys.executable} -c 'import os, signal, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
signal.signal(signal.SIGUSR1, lambda *_: server.close())
while True: signal.pause()'"""
    ready = (await ensure(served, spec(closing, listen=pb.AppListen(port=port))))[-1]
    os.kill(ready.pid, signal.SIGUSR1)
    while (await dialled(served))[0].failed.code != pb.OpenFailed.REFUSED:
        await asyncio.sleep(0.02)
    with listener_of(NOBODY, port=port):
        first, _ = await dialled(served)
    assert first.failed.code == pb.OpenFailed.PERMISSION
    assert "listened on by another account (nobody)" in first.failed.reason


@needs_root
async def test_an_app_runs_as_its_account() -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")  # that of the tests may be in a private place
    if python is None:
        pytest.skip("optional, not found here: a python3 that every account can run")
    async with shelld(accounts=["nobody"]) as served:
        app = spec(SERVER.replace(sys.executable, python), account="nobody", restart=pb.AppSpec.NO)
        last = (await ensure(served, app))[-1]
        assert last.phase == State.READY, last
        assert Path(f"/proc/{last.pid}").stat().st_uid == NOBODY
        first, answer = await dialled(served)
        assert answer.startswith(b"HTTP/1.0 200"), first


async def test_an_account_that_the_blueprint_does_not_name_is_refused(served: Shelld) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="account 'daemon' may not be used") as refused:
        await ensure(served, spec(SERVER, account="daemon"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_app_that_floods_its_log_has_a_bounded_one_and_serves(served: Shelld) -> None:
    flood = f"yes {'x' * 200} & {SERVER.removeprefix('exec ')}"
    assert (await ensure(served, spec(flood)))[-1].phase == State.READY
    file = served.home / ".local/state/fairlead/apps/lab.log"
    assert file.stat().st_mode & 0o777 == 0o600
    await wait_for(lambda: b"bytes left out" in file.read_bytes(), what="a word on the flood")
    assert (await dialled(served))[1].startswith(b"HTTP/1.0 200")
    assert file.stat().st_size <= 1024 * 1024
    assert len((await log_of(served, 5)).splitlines()) == 5
    stopped = await served.stub.StopApp(pb.StopAppRequest(slug="lab"))
    assert len(stopped.log_lines) == 20
    assert file.stat().st_size <= 1024 * 1024


async def test_an_app_that_forks_away_is_used_and_ended_and_its_user_reads_why_that_is_bad(
    served: Shelld, tmp_path: Path
) -> None:
    daemon = f"setsid {SERVER.removeprefix('exec ')} & exit 0"
    app = spec(daemon, env={"WHOSE": os.fsencode(tmp_path)})
    last = (await ensure(served, app))[-1]
    assert last.phase == State.READY
    words = "its start command ended and left 1 process in the background"
    while words not in (now := await state_of(served)).reason:
        await asyncio.sleep(0.02)
    assert (now.phase, now.pid) == (State.READY, 0)
    assert words in await log_of(served)
    assert (await dialled(served))[1].startswith(b"HTTP/1.0 200")
    await served.stub.StopApp(pb.StopAppRequest(slug="lab"))
    assert not processes_with(str(tmp_path))


async def test_an_app_that_forks_away_and_does_not_listen_fails_in_words(
    served: Shelld, tmp_path: Path
) -> None:
    app = spec(
        "setsid sleep 1000 & exit 0",
        ready=within(1),
        restart=pb.AppSpec.NO,
        env={"WHOSE": os.fsencode(tmp_path)},
    )
    last = (await ensure(served, app))[-1]
    assert last.phase == State.FAILED
    assert f"nothing listens on port {last.port}; its start command ended and left 1 process" in last.reason
    assert not processes_with(str(tmp_path))


async def test_an_app_that_needs_forty_seconds_is_waited_for() -> None:
    module = ("tests.contract.hasty", "--late", "{}/home/go", "40")
    async with shelld(module=module) as served:
        waiting = f"until [ -e go ]; do sleep 0.05; done; {SERVER}"
        call = served.stub.EnsureApp(pb.EnsureAppRequest(spec=spec(waiting)))
        states = [state async for state in call]
    assert states[-1].phase == State.READY
    assert {one.phase for one in states} == {State.STARTING, State.READY}
    assert max(one.since_ms for one in states if one.phase == State.STARTING) < 60_000


async def test_a_start_that_takes_longer_than_its_limit_fails(hasty: Shelld) -> None:
    late = spec("sleep 1000", ready=within(0.5), restart=pb.AppSpec.NO)
    assert (await ensure(hasty, late))[-1].reason.startswith("it was not ready within 0.5 s")


async def test_a_program_that_is_not_there_is_named(served: Shelld) -> None:
    last = (await ensure(served, spec("exec no-such-program", restart=pb.AppSpec.NO)))[-1]
    assert last.phase == State.FAILED
    assert last.reason == "it ended with status 127 before it was ready"
    assert any("no-such-program" in line for line in last.log_lines)
    last = (await ensure(served, spec(SERVER, workdir=b"/no/such", restart=pb.AppSpec.NO)))[-1]
    assert last.reason == "it could not be started: its workdir /no/such does not exist"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (spec(SERVER, "../x"), "its name is not 1 to 32"),
        (spec("  "), "it has no start command"),
        (spec(SERVER, workdir=b"src"), "neither absolute nor in the home"),
        (spec(SERVER, listen=pb.AppListen(port=70_000)), "its port is above 65535"),
        (spec(SERVER, listen=pb.AppListen(socket=b"x")), "its socket is no absolute path"),
        (spec(SERVER, ready=pb.AppReady(path=b"api")), "the path of its readiness"),
        (spec(SERVER, env={"A": b"\0"}), "cannot be passed to a program"),
    ],
)
async def test_a_bad_description_is_refused_in_words(served: Shelld, bad: pb.AppSpec, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as refused:
        await ensure(served, bad)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_link_in_place_of_the_log_is_not_written_through(served: Shelld, tmp_path: Path) -> None:
    directory = served.home / ".local/state/fairlead/apps"
    directory.mkdir(parents=True)
    (tmp_path / "other").write_text("unchanged")
    (directory / "lab.log").symlink_to(tmp_path / "other")
    assert (await ensure(served, spec(SERVER)))[-1].phase == State.READY
    assert (tmp_path / "other").read_text() == "unchanged"
    assert "ready on port" in await log_of(served), "kept in memory"


async def test_a_log_is_followed_while_the_app_writes(served: Shelld) -> None:
    await ensure(served, spec(SERVER))
    call = served.stub.AppLog(pb.AppLogRequest(slug="lab", lines=1, follow=True))
    await call.read()
    await dialled(served)
    text = b""
    while b"GET / HTTP/1.0" not in text:
        text += (await call.read()).data
    call.cancel()


async def test_an_app_that_was_not_asked_for_is_unknown(served: Shelld) -> None:
    for call in (
        served.stub.StopApp(pb.StopAppRequest(slug="lab")),
        served.stub.AppLog(pb.AppLogRequest(slug="lab")).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="app lab was not started yet") as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_proxy_reports_activity_with_a_sentence(served: Shelld) -> None:
    status = await served.stub.Status(pb.StatusRequest())
    assert (status.why, status.why_ms) == ("", 0)
    await served.stub.Touch(pb.TouchRequest(why="POST /api/contents by alice through lab"))
    status = await served.stub.Status(pb.StatusRequest())
    assert status.why == "POST /api/contents by alice through lab"
