"""shelld in images of every kind, as root and as nobody in particular: it needs nothing of them."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from tests.contract.shelldproc import Ran, pty, run, start
from tests.images.pods import Pod, pod

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("dockerd"), pytest.mark.timeout(900)]

MIB = 1024 * 1024
CASES = [(image, root) for image in ("glibc", "busybox", "musl", "nothing") for root in (True, False)]


@pytest.fixture(
    scope="module", params=CASES, ids=[f"{image}-{'root' if root else 'uid1000'}" for image, root in CASES]
)
def running(
    request: pytest.FixtureRequest, dockerd: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pod]:
    image, root = request.param
    directory = tmp_path_factory.mktemp(image)
    directory.chmod(0o755)
    with pod(image, directory, root=root) as made:
        yield made


@pytest.fixture
async def ws(running: Pod) -> AsyncIterator[Pod]:
    async with running.connected() as made:
        yield made


def facts(ran: Ran) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in ran.out.replace("\r", "").splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name, []).append(value)
    return found


async def test_a_program_runs_as_the_account_in_its_home(ws: Pod) -> None:
    ran = await run(ws, "/probe one 'two three' \"four\"")
    said = facts(ran)
    assert ran.status == 7
    assert (said["uid"], said["gid"], said["cwd"]) == (["1000"], ["1000"], ["/home/alice"])
    assert said["arg"] == ["one", "two three", "four"]


async def test_a_program_sees_nothing_of_the_bundle(ws: Pod) -> None:
    said = facts(await run(ws, "/probe"))
    # The glibc image has some of its own, which are for its programs and must not reach shelld's interpreter.
    ours = [entry for entry in said["env"] if re.match(r"LD_|PYTHON|NSS_|GRPC|LC_CTYPE", entry)]
    assert all(entry.endswith("=/nowhere") for entry in ours), ours
    assert not [entry for entry in said["env"] if "/opt/fairlead" in entry]
    assert {"USER=alice", "HOME=/home/alice"} <= set(said["env"])


async def test_a_program_sees_the_environment_of_its_image(ws: Pod) -> None:
    if ws.image != "glibc":
        pytest.skip("the other images have none")
    assert "env=PATH=/opt/tools/bin:" in (await run(ws, "/probe")).out
    if ws.root:  # where shelld can write to /etc/profile.d, login shells have it too
        assert (await run(ws, stdin=b"echo $PATH\n")).out.startswith("/opt/tools/bin:")


async def test_a_terminal_belongs_to_the_program(ws: Pod) -> None:
    said = facts(await run(ws, "/probe", pty=pty()))
    assert said["tty"] == ["1"]
    assert any(entry.startswith("SSH_TTY=/dev/pts/") for entry in said["env"])


async def test_a_shell_starts_where_there_is_one_and_is_refused_in_words_elsewhere(ws: Pod) -> None:
    if ws.has_shell:
        ran = await run(ws, stdin=b"echo $0 $((6 * 7))\nexit 3\n")
        assert re.fullmatch(r"-(ba)?sh 42\n", ran.out), ran.frames
        assert ran.status == 3
    else:
        ran = await run(ws)
        assert ran.failed == "NOT_FOUND"
        assert "has no shell" in ran.frames[0].start_failed.reason


async def test_what_only_a_shell_understands_is_run_by_one_or_refused_in_words(ws: Pod) -> None:
    ran = await run(ws, "/probe a >/dev/null; /probe $HOME | cat")
    if ws.has_shell:
        assert facts(ran)["arg"] == ["/home/alice"]
    else:
        assert ran.failed == "INVALID"
        assert "has no shell" in ran.frames[0].start_failed.reason


async def test_a_program_that_is_not_there_is_not_found(ws: Pod) -> None:
    ran = await run(ws, "no-such-program")
    if ws.has_shell:
        assert ran.status == 127
    else:
        assert ran.failed == "NOT_FOUND"


async def test_sftp_both_ways(ws: Pod, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(bytes(range(256)) * 4096)
    done = ws.sftp(f"pwd\nput {sent} there\nls -n there\nget there {tmp_path}/back\nrm there\n")
    assert done.returncode == 0, done.stderr
    assert "Remote working directory: /home/alice" in done.stdout
    assert re.search(rf"\w+\s+\w+\s+{MIB}.* there", done.stdout), done.stdout
    assert (tmp_path / "back").read_bytes() == sent.read_bytes()


async def test_an_ssh_agent_socket_is_the_account_s(ws: Pod) -> None:
    request = pb.ListenRequest(ssh_agent="ssh-agent-ux-p-1-0.sock", listener_id="a1")
    listening = ws.stub.Listen(request)
    bound = await listening.read()
    assert bound.WhichOneof("frame") == "bound", bound
    said = facts(await run(ws, "/probe", ssh_agent="a1"))
    paths = [entry for entry in said["env"] if entry.startswith("SSH_AUTH_SOCK=")]
    assert len(paths) == 1
    assert paths[0].endswith("/ssh-agent-ux-p-1-0.sock")
    if ws.has_shell:
        listed = await run(ws, f"ls -ln {paths[0].removeprefix('SSH_AUTH_SOCK=')}")
        assert re.match(r"srw-------\s+1 1000\s+1000", listed.out), listed.out
    listening.cancel()


async def test_the_account_is_in_passwd_where_that_can_be_written(ws: Pod) -> None:
    if ws.has_shell and ws.root:
        ran = await run(ws, "cat /etc/passwd /etc/group")
        assert "alice:x:1000:1000:" in ran.out
        assert "alice:x:1000:\n" in ran.out or "dev:x:1000:\n" in ran.out


async def test_shelld_is_small_when_nothing_happens(ws: Pod) -> None:
    resident = [kib for _, kib, _ in ws.processes()]
    print("resident KiB of shelld and its launcher:", resident)
    assert max(resident) * 1024 <= 60 * MIB


async def test_orphans_are_buried_by_the_first_process(ws: Pod) -> None:
    if not ws.has_shell:
        pytest.skip("needs a shell to leave an orphan")
    running = await start(ws, "(sleep 0.2 &) ; echo done")
    assert (await running.end()).status == 0
    ran = await run(ws, "sleep 0.5; cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' ; true")
    assert ran.out.strip() == "0"


async def test_programs_start_after_the_launcher_was_killed(ws: Pod) -> None:
    if not ws.has_shell or ws.root:
        pytest.skip("the account can kill the launcher only where both are the same")
    found = await run(ws, "for p in /proc/[0-9]*; do read -r n c s pp rest < $p/stat; echo $n $pp $s; done")
    below_init = [int(line.split()[0]) for line in found.out.splitlines() if line.split()[1] == "1"]
    await run(ws, f"kill -9 {min(below_init)}")  # the first child of all
    assert (await run(ws, "/probe")).status == 7
    assert ws.log_has("another one is started")
