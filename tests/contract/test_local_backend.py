"""What the local backend promises, with a stand-in for shelld and with shelld itself."""

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest

from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from proxy.blueprints.schema import Blueprint
from proxy.errors.workspaces import ReadyTimeout, WorkspaceNotFound, WorkspaceStartFailed
from proxy.model import Endpoint, Phase, Progress, User, WorkspaceName
from proxy.settings.workspace import WorkspaceSettings
from proxy.userstring import UserString
from proxy.workspaces.backend import Stop, WorkspacePhase, WorkspaceRequest
from proxy.workspaces.local import backend as backend_module
from proxy.workspaces.local.backend import LocalBackend
from proxy.workspaces.local.process import Handle, listener_pid
from tests.contract.shelldproc import Shelld, run

FAKE = Path(__file__).parent.parent / "fakes" / "shelld.py"
NAME = WorkspaceName("alice-0123456789")
STOP = Stop("cli:tester", datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "for a test")
COMMANDS = {
    "fake": (sys.executable, str(FAKE)),
    "shelld": (sys.executable, "-P", "-m", "shelld"),
}

Proxy = Callable[..., AbstractAsyncContextManager[LocalBackend]]


def request(name: str = NAME, user: str = "alice", **fields: object) -> WorkspaceRequest:
    return WorkspaceRequest(
        WorkspaceName(name),
        User(user, id=f"id-of-{user}"),
        Blueprint(name="dev"),
        UserString(user, "dev"),
        **fields,
    )  # type: ignore[arg-type]


def silent(_: Progress) -> None:
    pass


def socket_of(endpoint: Endpoint) -> Path:
    return Path(endpoint.address.removeprefix("unix://"))


def pid_of(endpoint: Endpoint) -> int:
    pid = listener_pid(socket_of(endpoint))
    assert pid
    return pid


async def gone(pid: int) -> None:
    try:
        handle = Handle(pid)
    except ProcessLookupError:
        return
    with handle:
        async with asyncio.timeout(20):
            await handle.gone()


def starts(state: Path, name: str = NAME) -> int:
    file = state / "workspaces" / name / "home" / "starts"
    return len(file.read_text().split()) if file.exists() else 0


@pytest.fixture
async def proxy(tmp_path: Path, short_dir: Path) -> AsyncIterator[Proxy]:
    """Makes backends that share one state, as proxies of one machine do; ends what they started."""

    @asynccontextmanager
    async def make(*command: str, timeout_s: float = 60) -> AsyncIterator[LocalBackend]:
        settings = WorkspaceSettings(namespaces="none", start_timeout_s=timeout_s)
        backend = LocalBackend(
            tmp_path, settings, command=command or COMMANDS["fake"], runtime_parent=short_dir
        )
        try:
            yield backend
        finally:
            await backend.close()

    yield make
    async with make() as backend:
        for record in await backend.list():
            await backend.stop(record.name, STOP)


@pytest.fixture(params=sorted(COMMANDS))
async def backend(request: pytest.FixtureRequest, proxy: Proxy) -> AsyncIterator[LocalBackend]:
    async with proxy(*COMMANDS[request.param]) as made:
        yield made


async def test_a_workspace_starts_and_is_found_again(backend: LocalBackend, tmp_path: Path) -> None:
    told: list[Progress] = []
    first = await backend.ensure(request(), told.append)
    assert first.workspace == NAME
    assert told[0].phase is Phase.PREPARING
    assert told[-1] == Progress(Phase.READY, f"workspace {NAME} is ready")
    told.clear()
    assert await backend.ensure(request(), told.append) == first
    assert told == []
    home = tmp_path / "workspaces" / NAME / "home"
    assert home.stat().st_mode & 0o777 == 0o700
    record = await backend.find(NAME)
    assert record is not None
    assert (record.user, record.blueprint) == ("alice", "dev")
    assert await backend.list() == [record]
    assert record.phase is WorkspacePhase.RUNNING


async def test_callers_that_overlap_join_one_start(backend: LocalBackend) -> None:
    told: list[list[Progress]] = [[] for _ in range(8)]
    endpoints = await asyncio.gather(*(backend.ensure(request(), one.append) for one in told))
    assert len(set(endpoints)) == 1
    assert all(one[-1].phase is Phase.READY for one in told)


async def test_a_caller_that_leaves_takes_nothing_along(backend: LocalBackend) -> None:
    leaving = asyncio.ensure_future(backend.ensure(request(), silent))
    staying = asyncio.ensure_future(backend.ensure(request(), silent))
    await asyncio.sleep(0)
    leaving.cancel()
    endpoint = await staying
    assert leaving.cancelled()
    assert await backend.ensure(request(), silent) == endpoint


async def test_a_start_goes_on_when_everybody_has_left(backend: LocalBackend) -> None:
    only = asyncio.ensure_future(backend.ensure(request(), silent))
    await asyncio.sleep(0.05)
    only.cancel()
    await asyncio.wait([only])
    assert await backend.ensure(request(), silent)


async def test_a_workspace_outlives_its_proxy(proxy: Proxy) -> None:
    async with proxy() as first:
        endpoint = await first.ensure(request(), silent)
    async with proxy() as second:
        assert await second.ensure(request(), silent) == endpoint


async def test_two_proxies_start_one_workspace_once(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy() as one, proxy() as other:
        assert await one.ensure(request(), silent) == await other.ensure(request(), silent)
        await one.stop(NAME, STOP)
        endpoints = await asyncio.gather(
            *(backend.ensure(request(), silent) for backend in (one, other) for _ in range(3))
        )
    assert len(set(endpoints)) == 1
    assert starts(tmp_path) == 2


async def test_one_that_died_is_started_anew_and_can_be_told_from_the_old_one(backend: LocalBackend) -> None:
    old = await backend.ensure(request(), silent)
    pid = pid_of(old)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    new = await backend.ensure(request(), silent)
    assert new.address == old.address
    assert new.generation != old.generation


def pid_of_or_none(endpoint: Endpoint) -> int | None:
    return listener_pid(socket_of(endpoint))


async def test_stopping_ends_the_process_and_keeps_the_home(backend: LocalBackend, tmp_path: Path) -> None:
    endpoint = await backend.ensure(request(), silent)
    pid = pid_of(endpoint)
    (tmp_path / "workspaces" / NAME / "home" / "mine").write_text("x")
    await backend.stop(NAME, STOP)
    await gone(pid)
    assert pid_of_or_none(endpoint) is None
    await backend.stop(NAME, STOP)
    await backend.ensure(request(), silent)
    assert (tmp_path / "workspaces" / NAME / "home" / "mine").read_text() == "x"


async def test_an_idle_workspace_stops_by_itself_and_starts_again(proxy: Proxy) -> None:
    idle = WorkspaceRequest(
        NAME, request().user, Blueprint(name="dev", idle_stop_s=0.5), UserString("alice", "dev")
    )
    async with proxy(*COMMANDS["shelld"]) as backend:
        old = await backend.ensure(idle, silent)
        async with asyncio.timeout(60):
            while pid_of_or_none(old) is not None:
                await asyncio.sleep(0.05)
        assert (await backend.ensure(idle, silent)).generation != old.generation


async def test_why_it_stopped_is_known_until_it_starts_again(backend: LocalBackend) -> None:
    await backend.ensure(request(), silent)
    await backend.stop(NAME, STOP)
    await backend.stop(NAME, Stop("somebody later", STOP.at))
    record = await backend.find(NAME)
    assert record is not None
    assert (record.phase, record.stop, record.user_string) == (WorkspacePhase.STOPPED, STOP, "alice+dev")
    await backend.ensure(request(), silent)
    record = await backend.find(NAME)
    assert record is not None
    assert (record.phase, record.stop) == (WorkspacePhase.RUNNING, None)


async def test_deleting_keeps_the_home_unless_it_is_purged(backend: LocalBackend, tmp_path: Path) -> None:
    mine = tmp_path / "workspaces" / NAME / "home" / "mine"
    pid = pid_of(await backend.ensure(request(), silent))
    mine.write_text("x")
    await backend.delete(NAME, purge=False)
    await gone(pid)
    assert await backend.find(NAME) is None
    assert mine.read_text() == "x"
    await backend.ensure(request(), silent)
    await backend.delete(NAME, purge=True)
    assert not mine.parent.parent.exists()
    for act in (backend.delete(NAME, purge=True), backend.events(NAME)):
        with pytest.raises(WorkspaceNotFound):
            await act


async def test_its_log_can_be_followed(backend: LocalBackend, tmp_path: Path) -> None:
    await backend.ensure(request(), silent)
    log = tmp_path / "workspaces" / NAME / "shelld.log"
    log.write_text("one\ntwo\nthree\n")
    assert [line async for line in backend.logs(NAME, follow=False, tail=2)] == ["two", "three"]
    following = backend.logs(NAME, follow=True, tail=1)
    assert await anext(following) == "three"
    with log.open("a") as stream:
        stream.write("four\n")
    async with asyncio.timeout(20):
        assert await anext(following) == "four"


async def test_no_zombie_is_left(proxy: Proxy) -> None:
    async with proxy() as backend:
        pid = pid_of(await backend.ensure(request(), silent))
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while Path(f"/proc/{pid}").exists():  # a zombie still has its directory
                await asyncio.sleep(0.01)


async def test_another_users_workspace_does_not_exist(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy() as backend:
        await backend.ensure(request(), silent)
        for may_create in (True, False):
            with pytest.raises(WorkspaceNotFound, match=r"no workspace .* of mallory"):
                await backend.ensure(request(user="mallory", may_create=may_create), silent)
        await backend.stop(NAME, STOP)
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(request(user="mallory"), silent)
    assert starts(tmp_path) == 1


async def test_a_named_workspace_is_found_and_never_made(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy() as backend:
        with pytest.raises(WorkspaceNotFound, match="of alice"):
            await backend.ensure(request(may_create=False), silent)
        assert not (tmp_path / "workspaces").exists()
        endpoint = await backend.ensure(request(), silent)
        assert await backend.ensure(request(may_create=False), silent) == endpoint
        await backend.stop(NAME, STOP)
        assert await backend.ensure(request(may_create=False), silent)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "a\0b", "A", "-a", "a" * 129])
async def test_a_name_is_never_a_path(proxy: Proxy, tmp_path: Path, name: str) -> None:
    async with proxy() as backend:
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(request(name), silent)
        with pytest.raises(WorkspaceNotFound):
            await backend.find(name)
        with pytest.raises(WorkspaceNotFound):
            await backend.stop(WorkspaceName(name), STOP)
    assert list(tmp_path.iterdir()) == []


async def test_what_does_not_start_says_why_to_the_operator(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy(*COMMANDS["fake"], "--behave", "fail") as backend:
        failures = await asyncio.gather(
            *(backend.ensure(request(), silent) for _ in range(3)), return_exceptions=True
        )
        for failure in failures:
            assert isinstance(failure, WorkspaceStartFailed)
            assert "ended with status 3 before it answered: the moon is in the wrong quarter" in str(failure)
            assert str(tmp_path) not in failure.user_message
            assert "moon" not in failure.user_message
    async with proxy() as backend:
        assert await backend.ensure(request(), silent)


async def test_bad_settings_of_shelld_are_said(proxy: Proxy) -> None:
    async with proxy(*COMMANDS["shelld"], "--no-such-flag") as backend:
        with pytest.raises(WorkspaceStartFailed, match="--no-such-flag"):
            await backend.ensure(request(), silent)


async def test_a_command_that_is_not_there_is_said(proxy: Proxy) -> None:
    async with proxy("/nowhere/python") as backend:
        with pytest.raises(WorkspaceStartFailed, match="/nowhere/python"):
            await backend.ensure(request(), silent)


async def test_one_that_never_answers_is_ended_at_its_deadline(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy(*COMMANDS["fake"], "--behave", "mute", timeout_s=1) as backend:
        with pytest.raises(ReadyTimeout, match="was not ready within 1 s"):
            await backend.ensure(request(), silent)
        (pid,) = (tmp_path / "workspaces" / NAME / "home" / "starts").read_text().split()
        await gone(int(pid))


async def test_a_stubborn_one_is_killed(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "STOP_GRACE_S", 0.2)
    async with proxy(*COMMANDS["fake"], "--behave", "stubborn") as backend:
        pid = pid_of(await backend.ensure(request(), silent))
        await backend.stop(NAME, STOP)
        await gone(pid)


async def test_the_next_waits_for_one_on_its_way_out(proxy: Proxy, tmp_path: Path) -> None:
    """shelld unlinks its socket before it ends, and holds its lock until it has."""
    async with proxy(*COMMANDS["fake"], "--behave", "leave") as backend:
        old = await backend.ensure(request(), silent)
        pid = pid_of(old)
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(20):
            while pid_of_or_none(old) is not None:
                await asyncio.sleep(0.01)
        new = await backend.ensure(request(), silent)
        assert pid_of(new) != pid
    assert starts(tmp_path) == 2


async def test_one_whose_socket_was_removed_is_ended_before_another_starts(proxy: Proxy) -> None:
    """Two shellds in one home would fight over it; /tmp is cleaned on some machines."""
    async with proxy() as backend:
        old = await backend.ensure(request(), silent)
        pid = pid_of(old)
        socket_of(old).unlink()
        new = await backend.ensure(request(), silent)
        assert pid_of(new) != pid
        await gone(pid)


async def test_a_process_that_is_not_shelld_is_never_ended(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy() as backend:
        endpoint = await backend.ensure(request(), silent)
        await backend.stop(NAME, STOP)
        note = {"pid": os.getpid(), "started_at": backend_module.started_at(os.getpid())}
        (tmp_path / "workspaces" / NAME / "running.json").write_text(json.dumps(note))
        assert (await backend.ensure(request(), silent)).generation != endpoint.generation


async def test_nothing_of_our_environment_reaches_the_workspace(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "FAIRLEAD_HOME", "SSH_AUTH_SOCK", "SECRET"):
        monkeypatch.setenv(name, "/leak")
    home = tmp_path / "workspaces" / NAME / "home"
    async with proxy() as backend:
        await backend.ensure(request(), silent)
    environ = json.loads((home / "environ.json").read_text())
    assert environ["HOME"] == str(home)
    assert set(environ) <= {"PATH", "LANG", "HOME", "PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}


async def test_one_that_cannot_start_costs_the_others_nothing(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "workspaces").mkdir()
    (tmp_path / "workspaces" / "bob-1").write_text("a file where a directory should be")
    async with proxy() as backend:
        with pytest.raises(WorkspaceStartFailed, match="Not a directory"):
            await backend.ensure(request("bob-1", user="bob"), silent)
        assert await backend.ensure(request(), silent)


@pytest.mark.parametrize("spoil", ["symlink", "mode", "file"])
async def test_a_runtime_directory_that_is_not_ours_alone_is_refused(
    proxy: Proxy, short_dir: Path, spoil: str
) -> None:
    async with proxy() as backend:
        runtime = socket_of(await backend.ensure(request(), silent)).parent.parent
        await backend.stop(NAME, STOP)
        aside = short_dir / "aside"
        runtime.rename(aside)
        if spoil == "symlink":
            runtime.symlink_to(aside)
        elif spoil == "mode":
            runtime.mkdir()
            runtime.chmod(0o777)
        else:
            runtime.touch()
        with pytest.raises(WorkspaceStartFailed, match="cannot be used for sockets") as caught:
            await backend.ensure(request(), silent)
        assert str(runtime) not in caught.value.user_message


async def test_a_log_that_grew_large_is_put_aside(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.workspaces.local.state.MAX_LOG_BYTES", 10)
    root = tmp_path / "workspaces" / NAME
    async with proxy() as backend:
        await backend.ensure(request(), silent)
        await backend.stop(NAME, STOP)
        (root / "shelld.log").write_text("x" * 11)
        await backend.ensure(request(), silent)
    assert (root / "shelld.log.1").read_text() == "x" * 11
    assert (root / "shelld.log").stat().st_size == 0


async def test_a_program_holds_no_descriptor_and_ignores_no_signal_of_the_proxy(
    proxy: Proxy, tmp_path: Path
) -> None:
    """A lock that the proxy's parent took (`flock 9`) must end with the proxy; signal 33 ends a program."""
    with (tmp_path / "lock").open("w") as lock:
        lock_fd = fcntl.fcntl(lock, fcntl.F_DUPFD, 90)  # inheritable, as a shell's `9>` is
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        async with proxy(*COMMANDS["shelld"]) as backend:
            endpoint = await backend.ensure(request(), silent)
            async with grpc.aio.insecure_channel(endpoint.address) as channel:
                served = Shelld(tmp_path, None, ShelldStub(channel))  # type: ignore[arg-type]
                ran = await run(served, "ls /proc/self/fd; grep ^SigIgn: /proc/self/status")
    finally:
        os.close(lock_fd)
    # The last descriptor is ls's own, of the directory.
    assert ran.out.split() == ["0", "1", "2", "3", "SigIgn:", "0" * 16]
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
