import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.workspaces.local.process import Handle, has_argument, listener_pid, spawn_detached, started_at


async def test_a_child_is_apart_from_us_and_reaped(tmp_path: Path) -> None:
    script = "import os, signal; print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGTERM) == 0)"
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        child = spawn_detached([sys.executable, "-c", script], {"LANG": "C.UTF-8"}, descriptor)
    finally:
        os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    async with asyncio.timeout(30):
        assert await child.exited == 0
    assert (tmp_path / "out").read_text() == "True True\n"
    assert not Path(f"/proc/{child.pid}").exists()
    child.kill()  # gone already: nothing happens
    child.release()


async def test_a_child_has_three_descriptors_default_signals_our_limits_and_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flock 9` of the shell that started the proxy, `nohup` and `trap ''` reach no workspace."""
    monkeypatch.setenv("LEAKED", "of the proxy's environment")
    with open(tmp_path / "lock", "w") as lock:
        lock_fd = fcntl.fcntl(lock, fcntl.F_DUPFD, 90)  # inheritable, as a shell's `9>` is
    ignored = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP, signal.SIGRTMIN)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        said = await _say(tmp_path / "out", "ls /proc/self/fd; cat /proc/self/status /proc/self/limits; env")
    finally:
        os.close(lock_fd)
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
    lines = said.splitlines()
    assert lines[:4] == ["0", "1", "2", "3"]  # the last is ls's own, of the directory
    assert lines[4].startswith("Name:")
    values = dict(line.split(":\t", 1) for line in lines if line.startswith("Sig"))
    of_threads = 1 << 31 | 1 << 32  # which glibc's posix_spawn leaves ignored; shelld's launcher resets them
    assert (int(values["SigIgn"], 16) & ~of_threads, int(values["SigBlk"], 16)) == (0, 0)
    assert Path("/proc/self/limits").read_text() in said
    assert "LEAKED" not in said
    assert "LANG=C.UTF-8" in lines


async def _say(path: Path, script: str) -> str:
    """Return what a shell that was started apart prints."""
    with path.open("wb") as output:
        child = spawn_detached(["/bin/sh", "-c", script], {"LANG": "C.UTF-8"}, output.fileno())
    async with asyncio.timeout(30):
        assert await child.exited == 0
    return path.read_text()


async def test_a_signal_is_told_as_a_negative_number() -> None:
    child = spawn_detached(["/bin/sleep", "600"], {}, 2)
    child.kill()
    async with asyncio.timeout(30):
        assert await child.exited == -signal.SIGKILL


async def test_a_released_child_lives_on() -> None:
    child = spawn_detached(["/bin/sleep", "600"], {}, 2)
    child.release()
    assert child.exited.cancelled()
    with Handle(child.pid) as handle:
        await handle.end(grace_s=30)
    assert os.waitpid(child.pid, 0)[0] == child.pid


async def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        spawn_detached(["/nowhere"], {}, 2)


async def test_who_does_not_end_when_asked_is_made_to() -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x'); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-uc", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        with Handle(process.pid) as handle:
            await handle.end(grace_s=0.1)
        assert process.wait(30) == -signal.SIGKILL


def test_there_is_no_handle_for_nobody() -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait(30)
    with pytest.raises(ProcessLookupError):
        Handle(process.pid)
    assert started_at(process.pid) is None
    assert not has_argument(process.pid, "/bin/true")


def test_a_listener_is_named_by_the_kernel(short_dir: Path) -> None:
    path = short_dir / "s"
    assert listener_pid(path) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert listener_pid(path) is None
        listener.listen(0)
        assert listener_pid(path) == os.getpid()
        assert listener_pid(path) == 0  # the backlog is full, yet somebody is there
    assert listener_pid(path) is None


def test_a_path_that_is_too_long_has_no_listener(tmp_path: Path) -> None:
    assert listener_pid(tmp_path / ("x" * 200)) is None


def test_a_start_time_is_stable() -> None:
    assert started_at(os.getpid()) == started_at(os.getpid())
    assert started_at(os.getpid()) != started_at(1) or os.getpid() == 1


def test_arguments_are_compared_whole() -> None:
    command = ["/bin/sh", "-c", "echo ready; read line", "600"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # its command line is in place a moment after its exec succeeded
        found = [has_argument(process.pid, text) for text in ("600", "60")]
        process.kill()
    assert found == [True, False]
