"""The process that shelld is: start, stop, idleness, init scripts, PID 1."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from protos.shelld.v1.shelld_pb2_grpc import ShelldStub
from tests.contract.shelldproc import (
    CHANNEL_OPTIONS,
    ROOT,
    Shelld,
    pty,
    run,
    shelld,
    shelld_argv,
    spawn_shelld,
    start,
    stop,
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


async def test_a_failed_init_script_is_told_to_shells_and_to_the_first_command(short_dir: Path) -> None:
    init = [
        {"name": "good", "script": "echo fine\n", "when": "every"},
        {"name": "bad", "script": "echo a; printf 'no \\033[1mspace'; echo; exit 9\n", "when": "every"},
        {"name": "killed", "script": "echo Killed; kill -9 $$\n", "when": "every"},
        {"name": "slow", "script": "until test -e go; do sleep 0.05; done\n", "when": "every"},
    ]
    said = [
        "init script bad ended with status 9 and said: no  [1mspace",
        "init script killed ended with status 137 (signal SIGKILL) and said: Killed",
    ]
    async with shelld(init=init) as served:
        waiting = asyncio.ensure_future(run(served, "true"))
        await wait_for(lambda: '"script": "slow"' in served.log)
        (served.home / "go").touch()
        assert (await waiting).notices == said
        assert (await run(served, "true")).notices == [], "once is enough for commands"
        shell = await run(served, stdin=b"exit\n")
        assert shell.notices == said
        reply = await served.stub.Status(pb.StatusRequest())
        assert [(one.name, one.how, one.said) for one in reply.failed_scripts] == [
            ("bad", "ended with status 9", "no  [1mspace"),
            ("killed", "ended with status 137 (signal SIGKILL)", "Killed"),
        ]


async def test_people_who_did_not_wait_hear_of_a_script_that_fails_later() -> None:
    init = [{"name": "late", "script": "until test -e go; do sleep 0.05; done; exit 3\n", "when": "every"}]
    async with shelld(init=init, init_wait_s=0.1) as served:
        running = await start(served, "cat")
        (served.home / "go").touch()
        await wait_for(lambda: '"script": "late", "ok": false' in served.log)
        await running.send(stdin_eof=pb.Eof())
        assert (await running.end()).notices == ["init script late ended with status 3"]


@pytest.mark.parametrize("script", ["echo no space; exit 3\n", "#!/no/such/interpreter\n"])
async def test_a_required_init_script_that_fails_keeps_shelld_from_serving(
    short_dir: Path, script: str
) -> None:
    note = short_dir / "note"
    init = [
        {"name": "first", "script": "exit 1\n", "when": "every"},
        {"name": "must", "script": script, "when": "every", "required": True},
        {"name": "never", "script": "touch ~/never\n", "when": "every"},
    ]
    config = write_config(short_dir, init=init, stop_note=str(note))
    process = spawn_shelld(shelld_argv(f"unix://{short_dir / 's'}", config), short_dir)
    try:
        assert await asyncio.to_thread(process.wait, 30) == 69
    finally:
        process.kill()
        process.wait()
    noted = json.loads(note.read_text())
    assert noted["by"] == "init"
    assert noted["reason"].startswith("init script must, which the workspace requires, ended with status ")
    assert f"shelld: {noted['reason']}" in (short_dir / "log").read_text()
    assert "traceback" not in (short_dir / "log").read_text().lower()
    assert not (short_dir / "s").exists()
    assert not (short_dir / "home" / "never").exists()


async def test_shelld_can_be_stopped_while_required_scripts_run(short_dir: Path) -> None:
    init = [{"name": "must", "script": "touch ~/on; sleep 600\n", "when": "every", "required": True}]
    process = spawn_shelld(
        shelld_argv(f"unix://{short_dir / 's'}", write_config(short_dir, init=init)), short_dir
    )
    try:
        await wait_for((short_dir / "home" / "on").exists)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()
    assert not (short_dir / "s").exists()


async def test_the_last_words_of_a_script_are_not_read_from_another_users_file(short_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, which could read another user's file")
    secret = short_dir / "secret"
    secret.write_text("of root\n")
    log = "~/.local/state/fairlead/init/bad.log"
    init = [{"name": "bad", "script": f"ln -sf {secret} {log}; exit 1\n", "when": "every"}]
    home = short_dir / "home"
    home.mkdir()
    short_dir.chmod(0o755)
    account = {"name": "nobody", "uid": 65534, "gid": 65534, "home": str(home), "shell": "/bin/sh"}
    async with shelld(init=init, account=account) as served:
        await wait_for(lambda: '"script": "bad", "ok": false' in served.log)
        reply = await served.stub.Status(pb.StatusRequest())
        assert [(one.how, one.said) for one in reply.failed_scripts] == [("ended with status 1", "")]


async def test_slow_init_script_does_not_hold_programs_for_ever() -> None:
    init = [{"name": "slow", "script": "sleep 600\n", "when": "every"}]
    async with shelld(init=init, init_wait_s=0.2) as served:
        assert (await run(served, "echo here")).out == "here\n"


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
