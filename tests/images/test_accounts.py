"""The account in images: named, at home, with sudo only where that is granted, and without any of it when
nothing can be written."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from tests.contract.shelldproc import pty, run
from tests.images.pods import Pod, pod

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("dockerd"), pytest.mark.timeout(900)]

Running = Callable[..., AbstractAsyncContextManager[Pod]]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    tmp_path.chmod(0o755)

    @asynccontextmanager
    async def start(
        image: str, *, root: bool, more: tuple[str, ...] = (), **settings: object
    ) -> AsyncIterator[Pod]:
        with pod(image, tmp_path / "pod", root=root, more=more, **settings) as made:
            async with made.connected() as ws:
                yield ws

    (tmp_path / "pod").mkdir(mode=0o755)
    return start


async def test_a_granted_sudo_works_and_the_account_is_at_home(running: Running) -> None:
    async with running("glibc", root=True, sudo=True) as ws:
        assert (await run(ws, "sudo -n id -u")).out == "0\n"
        assert (await run(ws, "id -un; getent passwd 1000 | cut -d: -f1")).out == "alice\nalice\n"
        home = await run(ws, "stat -c '%U %n' ~ ~/.bashrc; ls -A ~")
        assert home.out.startswith("alice /home/alice\nalice /home/alice/.bashrc\n")
        assert (await run(ws, "rm ~/.bashrc; touch ~/mine")).status == 0
        shell = await run(ws, stdin=b"echo $0 $HOME\n")
        assert shell.out == "-bash /home/alice\n"


async def test_a_sudo_that_is_not_granted_does_not_work(running: Running) -> None:
    async with running("glibc", root=True) as ws:
        refused = await run(ws, "sudo -n id -u")
        assert refused.status != 0
        assert refused.out == ""


async def test_a_sudo_that_the_image_has_not_is_told_in_the_log(running: Running) -> None:
    async with running("busybox", root=True, sudo=True) as ws:
        assert (await run(ws, "id -u")).out == "1000\n"
        assert ws.log_has("the image has no sudo")


async def test_an_account_of_the_image_is_taken_as_it_is(running: Running) -> None:
    async with running("glibc", root=True, account={"name": "dev"}, accounts=["root"]) as ws:
        assert (await run(ws, "id -un; echo $HOME; echo $SHELL")).out == "dev\n/home/dev\n/bin/bash\n"
        assert (await run(ws, "id -un; echo $HOME", account="root")).out == "root\n/root\n"
        assert (await run(ws, "id", account="daemon")).failed == "ACCOUNT_DENIED"


@pytest.mark.parametrize(
    ("image", "root"), [("glibc", True), ("glibc", False), ("nothing", True), ("nothing", False)]
)
async def test_nothing_of_the_image_needs_to_be_writable(
    running: Running, image: str, root: bool, tmp_path: Path
) -> None:
    async with running(image, root=root, more=("--read-only",)) as ws:
        ran = await run(ws, "/probe", pty=pty())
        assert "uid=1000\r\n" in ran.out
        assert "env=USER=alice\r\n" in ran.out
        (tmp_path / "sent").write_bytes(b"\0" * 100_000)
        done = ws.sftp(f"put {tmp_path}/sent there\nls -l there\n")
        assert done.returncode == 0, done.stderr
        assert re.search(r"100000 .* there", done.stdout)
        listening = ws.stub.Listen(pb.ListenRequest(ssh_agent="s.sock", listener_id="a1"))
        assert (await listening.read()).WhichOneof("frame") == "bound"
        listening.cancel()
