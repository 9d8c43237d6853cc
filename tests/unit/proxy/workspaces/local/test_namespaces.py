"""The command lines, and what they do on this machine where it can do them."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from proxy.workspaces.local import namespaces
from proxy.workspaces.local.namespaces import Kind, Separation, candidates, choose
from proxy.workspaces.local.process import Child, spawn_detached

PROGRAM = ["/usr/bin/python3", "-m", "shelld"]


def wrap(separation: Separation, uid: int = 1_000, gid: int = 1_001) -> list[str]:
    return separation.wrap(PROGRAM, hostname="ws", uid=uid, gid=gid)


@pytest.mark.parametrize("kind", ["bwrap", "unshare", "none"])
@pytest.mark.parametrize("uid", [0, 1_000])
def test_the_program_stands_last_and_unchanged(kind: Kind, uid: int) -> None:
    argv = wrap(Separation(kind, f"/usr/bin/{kind}"), uid=uid)
    assert argv[-3:] == PROGRAM
    assert argv[0].startswith("/")


def test_a_user_is_mapped_to_themselves_and_root_is_not_mapped() -> None:
    unshare = Separation("unshare", "/usr/bin/unshare")
    assert "--map-user=1000" in wrap(unshare)
    assert "--map-group=1001" in wrap(unshare)
    assert "--user" not in wrap(unshare, uid=0)


@pytest.mark.parametrize(
    ("choice", "uid", "order"),
    [
        ("auto", 0, ("unshare", "bwrap")),
        ("auto", 1_000, ("bwrap", "unshare")),
        ("bwrap", 0, ("bwrap",)),
        ("unshare", 1_000, ("unshare",)),
        ("none", 0, ()),
    ],
)
def test_the_order_of_trying(choice: namespaces.Choice, uid: int, order: tuple[Kind, ...]) -> None:
    assert candidates(choice, uid=uid) == order


async def test_a_machine_without_the_tools_says_so(tmp_path: Path) -> None:
    found = await choose("auto", search_path=str(tmp_path))
    assert found.kind == "none"
    assert "bwrap is not installed" in found.reason
    assert "unshare is not installed" in found.reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Operation not permitted' >&2; exit 1", "bwrap: Operation not permitted"),
        ("exit 4", "bwrap: it ended with status 4"),
        ("exec sleep 60", "bwrap: no answer within"),
    ],
)
async def test_a_tool_that_fails_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setattr(namespaces, "PROBE_TIMEOUT_S", 0.5)
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bwrap").chmod(0o755)
    found = await choose("bwrap", search_path=str(tmp_path))
    assert found.kind == "none"
    assert reason in found.reason


async def usable(kind: Kind) -> Separation:
    found = await choose(kind)
    if found.kind != kind:
        pytest.skip(found.reason)
    return found


def start(separation: Separation, script: str, output: int) -> Child:
    argv = separation.wrap(
        [sys.executable, "-c", script], hostname="ws-1", uid=os.geteuid(), gid=os.getegid()
    )
    return spawn_detached(argv, {"PATH": namespaces.SEARCH_PATH}, output)


async def run(separation: Separation, script: str, tmp_path: Path) -> list[str]:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    child = start(separation, script, descriptor)
    os.close(descriptor)
    async with asyncio.timeout(30):
        assert await child.exited == 0, (tmp_path / "out").read_text()
    return (tmp_path / "out").read_text().splitlines()


@pytest.mark.parametrize("kind", ["bwrap", "unshare"])
async def test_the_program_is_the_first_of_its_world(kind: Kind, tmp_path: Path) -> None:
    script = """if True:
        import os, socket
        print(os.getpid(), socket.gethostname(), os.getuid(), os.getgid(), os.getcwd())
        print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
        print(os.access("/tmp", os.W_OK), os.path.exists("/etc/hosts"))
    """
    assert await run(await usable(kind), script, tmp_path) == [
        f"1 ws-1 {os.getuid()} {os.getgid()} /",
        "[1]",
        "True True",
    ]


@pytest.mark.parametrize("kind", ["bwrap", "unshare"])
async def test_terminals_work_inside(kind: Kind, tmp_path: Path) -> None:
    script = """if True:
        import os, pty, tty
        master, slave = pty.openpty()
        name = os.ttyname(slave)
        pid, other = pty.fork()
        if not pid:
            print(os.ttyname(0) == os.readlink("/proc/self/fd/0"), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(os.read(other, 100).decode().strip(), os.stat(name).st_uid == os.getuid())
    """
    assert await run(await usable(kind), script, tmp_path) == ["True True"]


@pytest.mark.parametrize("kind", ["bwrap", "unshare"])
async def test_killing_the_wrapper_ends_everything_inside(kind: Kind, tmp_path: Path) -> None:
    read, write = os.pipe()
    script = """if True:
        import os, time
        if not os.fork():
            os.setsid()
        os.write(1, b"x")
        time.sleep(600)
    """
    child = start(await usable(kind), script, write)
    os.close(write)
    loop = asyncio.get_running_loop()
    assert len(await loop.run_in_executor(None, os.read, read, 1)) == 1
    child.kill()
    with open(read, "rb") as stream:  # its end comes when the last holder of the other end is gone
        async with asyncio.timeout(30):
            await loop.run_in_executor(None, stream.read)
            await child.exited


@pytest.mark.parametrize("kind", ["bwrap", "unshare"])
async def test_the_end_of_the_program_ends_the_wrapper(kind: Kind, tmp_path: Path) -> None:
    assert await run(await usable(kind), "print('bye')", tmp_path) == ["bye"]
