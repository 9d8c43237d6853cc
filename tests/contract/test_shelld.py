"""Programs of a real shelld: bytes, endings, terminals, signals, lost clients."""

import asyncio
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from shelld.aio import LINGER_S
from tests.contract.shelldproc import (
    Running,
    Shelld,
    connected,
    feed,
    pty,
    run,
    shelld,
    start,
    started,
    wait_for,
)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def process() -> Iterator[Shelld]:
    """One shelld for all tests that want no other: none of them may hurt the next."""
    with started() as made:
        yield made


@pytest.fixture
async def served(process: Shelld) -> AsyncIterator[Shelld]:
    async with connected(process) as made:
        yield made


# ------------------------------------------------------------------------------------ handshake


async def test_handshake_tells_version_workspace_and_limits(served: Shelld) -> None:
    reply = await served.stub.Handshake(pb.HandshakeRequest(version=pb.Version(major=1), workspace="ws1"))
    assert (reply.version.major, reply.workspace, reply.max_frame_bytes) == (1, "ws1", MIB)
    assert "sftp" in reply.features


@pytest.mark.parametrize(
    "request_",
    [
        pb.HandshakeRequest(version=pb.Version(major=2)),
        pb.HandshakeRequest(version=pb.Version(major=1), workspace="another"),
    ],
)
async def test_handshake_with_the_wrong_peer_is_refused_in_words(
    served: Shelld, request_: pb.HandshakeRequest
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Handshake(request_)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "version" in str(caught.value.details()) or "ws1" in str(caught.value.details())


# -------------------------------------------------------------------------- environment, account


async def test_exec_has_a_login_environment_and_nothing_of_shelld(served: Shelld) -> None:
    client = pb.Client(host="192.0.2.7", port=5000, server_host="192.0.2.1", server_port=22)
    ran = await run(
        served,
        "env; pwd; echo $0",
        client=client,
        env={"LC_TIME": "de_DE.UTF-8", "LD_PRELOAD": "/tmp/evil.so", "FOO": "not accepted"},
    )
    lines = ran.out.splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    assert env["HOME"] == lines[-2] == str(served.home)
    assert env["LC_TIME"] == "de_DE.UTF-8"
    assert env["LANG"] == "C.UTF-8"
    assert env["SSH_CLIENT"] == "192.0.2.7 5000 22"
    assert env["SSH_CONNECTION"] == "192.0.2.7 5000 192.0.2.1 22"
    assert {"USER", "LOGNAME", "SHELL", "PATH", "MAIL"} <= env.keys()
    assert not {"LD_PRELOAD", "FOO", "LEAKED_SECRET", "PYTHONPATH", "TERM", "SSH_TTY"} & env.keys()
    assert lines[-1] == os.path.basename(env["SHELL"])  # no login shell
    assert ran.status == 0


async def test_shell_is_a_login_shell(served: Shelld) -> None:
    ran = await run(served, stdin=b'echo "<$0>"\n')
    assert re.search(r"<-\w+>", ran.out)


async def test_blueprint_environment_wins_over_the_client(served: Shelld) -> None:
    async with shelld(env={"LC_TIME": "C", "EDITOR": "vi"}) as other:
        ran = await run(other, "echo $LC_TIME $EDITOR", env={"LC_TIME": "de_DE.UTF-8"})
    assert ran.out == "C vi\n"


async def test_missing_home_is_told_and_survived() -> None:
    async with shelld(account={"home": "/proc/nowhere"}) as served:
        ran = await run(served, "pwd")
    assert ran.out == "/\n"
    assert "Could not chdir to home directory /proc/nowhere: No such file or directory" in ran.err


async def test_missing_shell_falls_back() -> None:
    async with shelld(shell="/no/such/shell") as served:
        ran = await run(served, "echo $SHELL")
    assert ran.out == "/bin/sh\n"


def write_user_rc(served: Shelld, text: str) -> None:
    (served.home / ".ssh").mkdir()
    (served.home / ".ssh" / "rc").write_text(text)


async def test_user_rc_runs_before_command_shell_and_terminal_where_it_may() -> None:
    """sshd(8), SSHRC: by /bin/sh in the home, with the program's environment and output but no input."""
    async with shelld() as served:
        write_user_rc(served, 'pwd; cat; echo "rc $0 $HOME" >&2; exit 3')
        ran = await run(served, "cat", stdin=b"for the command", user_rc=True)
        assert (ran.out, ran.status) == (f"{served.home}\nfor the command", 0)
        assert ran.err == f"rc {served.home}/.ssh/rc {served.home}\n"
        ran = await run(served, stdin=b"echo shell\n", user_rc=True)
        assert ran.out == f"{served.home}\nshell\n"
        ran = await run(served, "tty >/dev/null && echo term", user_rc=True, pty=pty())
        assert ran.out.split("\r\n")[-2] == "term"
        assert f"rc {served.home}/.ssh/rc" in ran.out
        assert (await run(served, "echo alone")).out == "alone\n"
        assert (await run(served, subsystem="sftp", user_rc=True)).err == ""


async def test_user_rc_that_says_much_and_lasts_is_heard_while_it_runs() -> None:
    async with shelld() as served:
        write_user_rc(
            served, "head -c 3000000 /dev/zero; echo waiting; while [ ! -e go ]; do sleep 0.05; done"
        )
        running = await start(served, "echo after", user_rc=True)
        await running.until("waiting\n")
        (served.home / "go").touch()
        ran = await running.end()
        assert (len(ran.stdout), ran.out[-6:], ran.status) == (3_000_000 + 14, "after\n", 0)


async def test_user_rc_is_not_run_where_the_settings_say_so() -> None:
    async with shelld(user_rc=False) as served:
        write_user_rc(served, "echo rc")
        assert (await run(served, "echo command", user_rc=True)).out == "command\n"


async def test_unknown_subsystem_and_foreign_account_are_refused(served: Shelld) -> None:
    assert (await run(served, subsystem="netconf")).failed == "NOT_FOUND"
    assert (await run(served, "id", account="daemon")).failed == "ACCOUNT_DENIED"


async def test_account_that_nobody_knows() -> None:
    async with shelld(accounts=["no-such-account"]) as served:
        assert (await run(served, "id", account="no-such-account")).failed == "NO_SUCH_ACCOUNT"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_account_is_one_wholly() -> None:
    nobody = {"name": "nobody", "uid": 65534, "gid": 65534, "groups": [65534, 1], "shell": "/bin/sh"}
    async with shelld(account=nobody) as served:
        ran = await run(served, "id -un; id -G; echo x > /dev/stderr; pwd; stat -c %U .")
        assert ran.out.splitlines() == ["nobody", "65534 1", str(served.home), "nobody"]
        assert ran.err == "x\n"  # a pipe of root's could not be opened by name
        ran = await run(served, "stat -c '%U %a' $(tty); echo hello > $(tty)", pty=pty())
        assert ran.out.split()[0] == "nobody"
        assert ran.out.split()[1] in {"620", "600"}
        assert "hello" in ran.out


# --------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize("status", [0, 1, 2, 7, 126, 127, 128, 129, 254, 255])
async def test_exit_status(served: Shelld, status: int) -> None:
    assert (await run(served, f"exit {status}")).status == status
    if status in {0, 255}:
        assert (await run(served, f"exit {status}", pty=pty())).status == status


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("TERM", "TERM"),
        ("KILL", "KILL"),
        ("HUP", "HUP"),
        ("USR1", "USR1"),
        ("SEGV", "SEGV"),
        ("BUS", "BUS@fairlead"),
    ],
)
async def test_exit_signal(served: Shelld, number: str, name: str) -> None:
    assert (await run(served, f"ulimit -c 0; kill -{number} $$")).signal == name


async def test_stdin_reaches_its_end(served: Shelld) -> None:
    data = os.urandom(5 * MIB + 17)
    ran = await run(served, "cat; echo done >&2", stdin=data)
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()
    assert (ran.err, ran.status) == ("done\n", 0)


async def test_half_closed_stream_ends_stdin_too(served: Shelld) -> None:
    running = await start(served, "cat; echo done")
    await running.call.done_writing()
    assert (await running.end()).out == "done\n"


async def test_stdout_and_stderr_are_apart(served: Shelld) -> None:
    ran = await run(served, "echo out; echo err >&2; exit 3")
    assert (ran.out, ran.err, ran.status) == ("out\n", "err\n", 3)
    assert ran.kinds[0] == "started"
    assert ran.kinds[-1] == "exit"


async def test_program_that_closes_its_output_lives_on(served: Shelld) -> None:
    running = await start(served, "exec >&- 2>&-; read line; exit 9")
    frame = await running.next()
    assert frame is not None
    assert frame.WhichOneof("frame") == "stdout_eof"
    await running.type("go\n")
    assert (await running.end()).status == 9


async def test_a_client_that_reads_late_still_gets_the_last_output_and_the_exit(served: Shelld) -> None:
    """It goes on sending input, as it cannot know; a child that leaves its stdin unread holds up nothing."""
    running = await start(served, "head -c 40000 /dev/zero; sleep 600 <&0 >&- 2>&- & echo $! >pid; exit 7")
    pid = running.ran.frames[0].started.pid
    await wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the program's end")
    for _ in range(10):
        await running.send(stdin=b"x" * 100_000)
        await asyncio.sleep(LINGER_S / 5)
    ran = await running.end()
    assert (len(ran.stdout), ran.status) == (40_000, 7)
    os.kill(int((served.home / "pid").read_text()), signal.SIGKILL)


async def test_program_that_writes_on_after_its_reader_left_ends_by_sigpipe(served: Shelld) -> None:
    running = await start(served, "exec yes")
    await running.until("y\n")
    await running.send(stdout_close=pb.Eof())
    assert (await running.end()).signal == "PIPE"


async def test_program_that_ignores_sigpipe_learns_by_epipe_that_its_reader_left(served: Shelld) -> None:
    running = await start(served, "trap '' PIPE; yes; echo told >&2; read line; echo $line >&2; exit 7")
    await running.until("y\n")
    await running.send(stdout_close=pb.Eof())
    await running.type("stdin goes on\n")
    ran = await running.end()
    assert ran.err.endswith("told\nstdin goes on\n")
    assert ran.status == 7


@pytest.mark.parametrize("times", [1, 2])
async def test_program_that_writes_nothing_is_not_troubled_by_a_reader_that_left(
    served: Shelld, times: int
) -> None:
    running = await start(served, "read line; exit 3")
    for _ in range(times):
        await running.send(stdout_close=pb.Eof())
    await running.type("go\n")
    assert (await running.end()).status == 3


async def test_terminal_has_no_reader_that_leaves(served: Shelld) -> None:
    running = await start(served, "read line; echo heard; exit 4", pty=pty())
    await running.send(stdout_close=pb.Eof())
    await running.type("go\n")
    ran = await running.end()
    assert "heard" in ran.out
    assert ran.status == 4


async def test_background_job_without_our_pipes_holds_nobody(served: Shelld) -> None:
    ran = await run(served, "sleep 600 >/dev/null 2>&1 </dev/null & echo $!")
    assert ran.status == 0
    psutil.Process(int(ran.out)).kill()


async def test_background_job_with_our_stdout_is_waited_for(served: Shelld) -> None:
    """As with `sshd`: the channel lasts as long as somebody may still write."""
    ran = await run(served, "(sleep 0.4; echo late) & exit 5")
    assert (ran.out, ran.status) == ("late\n", 5)


async def _one_last_mebibyte(served: Shelld) -> None:
    ran = await run(served, f"head -c {MIB} /dev/zero; exit 4")
    assert len(ran.stdout) == MIB
    assert ran.status == 4


async def test_last_output_is_never_lost(served: Shelld) -> None:
    for _ in range(25):
        await asyncio.gather(*(_one_last_mebibyte(served) for _ in range(4)))


@pytest.mark.slow
async def test_last_output_is_never_lost_in_a_thousand_runs(served: Shelld) -> None:
    for _ in range(250):
        await asyncio.gather(*(_one_last_mebibyte(served) for _ in range(4)))


async def test_last_output_of_a_terminal_is_never_lost(served: Shelld) -> None:
    for _ in range(10):
        ran = await run(served, "stty raw; seq 20000; exit 4", pty=pty())
        assert ran.out.endswith("19999\n20000\n")
        assert ran.status == 4


# ------------------------------------------------------------------------------------- terminals


async def test_terminal_has_size_type_name_and_owner(served: Shelld) -> None:
    ran = await run(
        served,
        "stty size; echo $TERM; tty; echo $SSH_TTY; stat -c %u $(tty); ps -o tty= -p $$",
        pty=pty(132, 43),
    )
    size, term, tty, ssh_tty, owner, ps_tty = ran.out.split("\r\n")[:6]
    assert (size, term) == ("43 132", "xterm")
    assert tty == ssh_tty == ran.frames[0].started.tty == f"/dev/{ps_tty.strip()}"
    assert int(owner) == os.geteuid()


async def test_terminal_modes_are_applied(served: Shelld) -> None:
    # VINTR ^X, VSUSP off, no ECHO, no ICRNL, IUTF8, no ONLCR, 9600 baud
    modes = {
        "o1": 24,
        "o10": 255,
        "o53": 0,
        "o36": 0,
        "o42": 1,
        "o72": 0,
        "o128": 9600,
        "o129": 9600,
        "o77": 1,
    }
    ran = await run(served, "stty -a", pty=pty(**modes))
    for word in ("intr = ^X;", "susp = <undef>;", "-echo ", "-icrnl", " iutf8", "-onlcr", "speed 9600 baud"):
        assert word in ran.out.replace("\n", " "), (word, ran.out)


async def test_window_change_is_heard(served: Shelld) -> None:
    running = await start(
        served, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done", pty=pty()
    )
    await running.until("ready")
    await running.send(window=pb.WindowSize(columns=101, rows=51))
    assert "51 101" in (await running.end()).out


async def test_interrupt_key_reaches_the_foreground_job(served: Shelld) -> None:
    running = await start(served, pty=pty())
    await running.type(
        "PS1=; sh -c 'trap \"echo caught; exit 0\" INT; echo rea''dy; while :; do sleep 0.05; done'\n"
    )
    await running.until("ready")
    await running.type("\x03")
    await running.until("caught")
    await running.type("exit 6\n")
    assert (await running.end()).status == 6


async def test_signal_reaches_the_foreground_job_of_a_terminal(served: Shelld) -> None:
    running = await start(served, pty=pty())
    await running.type(
        "sh -c 'trap \"echo caught; exit 0\" USR1; echo rea''dy; while :; do sleep 0.05; done'; exit 8\n"
    )
    await running.until("ready")
    await running.send(signal="USR1")
    ran = await running.end()
    assert "caught" in ran.out
    assert ran.status == 8


async def test_signal_reaches_the_group_of_a_program_without_terminal(served: Shelld) -> None:
    running = await start(served, "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done")
    await running.until("ready")
    await running.send(signal="no-such-signal")
    await running.send(break_ms=100)
    await running.send(window=pb.WindowSize(columns=1, rows=1))
    await running.send(signal="INT")
    ran = await running.end()
    assert ("caught" in ran.out, ran.status) == (True, 3)


async def test_break_is_harmless(served: Shelld) -> None:
    running = await start(served, "echo ready; read line; echo $line", pty=pty())
    await running.until("ready")
    await running.send(break_ms=0)
    await running.type("after\n")
    assert "after" in (await running.end()).out


# ---------------------------------------------------------------------------------- lost clients


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _lost(served: Shelld, script: str, **rest: object) -> list[int]:
    """Run a script that prints pids and "ready", lose its client, return the pids."""
    running = await start(served, script, **rest)
    pids = [int(word) for word in re.findall(r"pid (\d+)", await running.until("ready"))]
    running.call.cancel()
    return pids


@pytest.mark.parametrize("terminal", [False, True])
async def test_lost_client_ends_the_whole_session_but_not_nohup(served: Shelld, *, terminal: bool) -> None:
    script = """
        set -m
        sleep 600 & echo pid $!
        sh -c 'trap "" TERM; while :; do sleep 600; done' & echo pid $!
        nohup sleep 600 >/dev/null 2>&1 & echo pid $!
        setsid sleep 600 & echo pid $(pgrep -n -x sleep)
        echo ready; sleep 600
    """
    pids = await _lost(served, script, **({"pty": pty()} if terminal else {}))
    job, stubborn, nohup, daemon = pids
    await wait_for(lambda: not _alive(job) and not _alive(stubborn), what="the end of the session")
    assert _alive(nohup)
    psutil.Process(nohup).kill()
    if _alive(daemon):
        psutil.Process(daemon).kill()


async def test_daemon_with_a_session_of_its_own_survives(served: Shelld) -> None:
    script = "setsid sh -c 'echo pid $$; exec sleep 600' & sleep 0.3; echo ready; sleep 600"
    (daemon,) = await _lost(served, script)
    await asyncio.sleep(1.0)  # past every grace
    assert _alive(daemon)
    psutil.Process(daemon).kill()


async def test_lost_client_ends_a_program_that_is_blocked_writing(served: Shelld) -> None:
    running = await start(served, "echo pid $$ ready >&2; exec cat /dev/zero")
    while "ready" not in running.ran.err:
        await running.next()
    pid = int(re.findall(r"pid (\d+)", running.ran.err)[0])
    await asyncio.sleep(0.2)
    running.call.cancel()
    await wait_for(lambda: not _alive(pid), what="the end of the program")


async def test_hang_up_reaches_the_foreground_job(served: Shelld) -> None:
    script = "trap 'echo hup > heard; exit' HUP; echo ready; while :; do sleep 0.05; done"
    await _lost(served, script, pty=pty())
    await wait_for((served.home / "heard").exists, what="the hang-up")


# --------------------------------------------------------------------------------- back-pressure


async def test_slow_reader_stops_the_program(served: Shelld) -> None:
    before = served.resident_bytes()
    running = await start(served, f"head -c {256 * MIB} /dev/zero; echo over >&2")
    for _ in range(20):
        await running.next()
        await asyncio.sleep(0.05)
    assert "over" not in running.ran.err
    assert served.resident_bytes() - before < 16 * MIB
    assert (await run(served, "echo others live")).out == "others live\n"
    running.call.cancel()


async def test_program_that_does_not_read_stops_the_client(served: Shelld) -> None:
    before = served.resident_bytes()
    running = await start(served, "exec sleep 600")
    flood = asyncio.create_task(feed(running, b"\0" * 256 * MIB))
    await asyncio.sleep(1.0)
    assert not flood.done()
    assert served.resident_bytes() - before < 16 * MIB
    flood.cancel()
    running.call.cancel()


async def test_client_within_its_window_can_always_send_a_signal(served: Shelld) -> None:
    """Stdin that nobody reads must not stand in the way of what follows it."""
    running = await start(served, "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done")
    await running.until("ready")
    window = running.ran.frames[0].started.stdin_window
    assert window >= MIB
    for _ in range(window // MIB):
        await running.send(stdin=bytes(MIB))
    await running.send(signal="INT")
    assert (await running.end()).status == 5


async def test_window_is_given_back_as_the_program_reads(served: Shelld) -> None:
    ran = await run(served, "cat >/dev/null", stdin=bytes(20 * MIB))
    window = ran.frames[0].started.stdin_window
    given = sum(frame.stdin_consumed for frame in ran.frames)
    assert 20 * MIB - window < given <= 20 * MIB


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "first",
    [
        pb.RunInput(stdin=b"too early"),
        pb.RunInput(),
        pb.RunInput(start=pb.Start()),
        pb.RunInput(start=pb.Start(exec=b"true\0false")),
        pb.RunInput(start=pb.Start(exec=b"true", ssh_agent="no-such-listener")),
    ],
)
async def test_bad_first_frame(served: Shelld, first: pb.RunInput) -> None:
    running = Running(served.stub.Run())
    await running.call.write(first)
    assert (await running.end()).failed == "INVALID"


@pytest.mark.parametrize(
    "frames",
    [
        [pb.RunInput(start=pb.Start(exec=b"true"))],
        [pb.RunInput(stdin_eof=pb.Eof()), pb.RunInput(stdin=b"late")],
        [pb.RunInput()],
        [pb.RunInput(stdin=b"x" * (MIB + 1))],
    ],
)
async def test_bad_later_frame_ends_this_program_alone(served: Shelld, frames: list[pb.RunInput]) -> None:
    other = await start(served, "read line; echo $line")
    running = await start(served, "echo $$; sleep 600 <&- ; sleep 600")
    for frame in frames:
        await running.call.write(frame)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.end()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    await wait_for(lambda: not _alive(running.ran.frames[0].started.pid), what="its end")
    await other.type("still here\n")
    assert (await other.end()).out == "still here\n"


async def test_frame_far_above_the_limit_and_noise_hurt_nobody(served: Shelld) -> None:
    running = await start(served, "sleep 600")
    await running.send(stdin=b"x" * (MIB + 512 * 1024))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.end()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await run(served, "echo fine")).out == "fine\n"


async def test_command_line_that_no_kernel_takes(served: Shelld) -> None:
    ran = await run(served, "true " + "x" * 300_000)
    assert ran.failed == "RESOURCES"
    assert "Argument list too long" in ran.frames[0].start_failed.reason


async def test_program_limit() -> None:
    async with shelld(limits={"programs": 1}) as served:
        running = await start(served, "read line")
        assert (await run(served, "true")).failed == "RESOURCES"
        await running.type("\n")
        await running.end()
        assert (await run(served, "true")).status == 0


# ------------------------------------------------------------------------------------------ sftp


@pytest.mark.parametrize("server", [None, "internal-sftp"])
async def test_sftp_subsystem_answers(server: str | None) -> None:
    async with shelld(sftp_server=server) as served:
        running = await start(served, subsystem="sftp")
        await running.send(stdin=b"\0\0\0\x05\x01\0\0\0\x03")  # SSH_FXP_INIT, version 3
        while len(running.ran.stdout) < 9:
            await running.next()
        assert running.ran.stdout[4:9] == b"\x02\0\0\0\x03"
        await running.send(stdin_eof=pb.Eof())
        assert (await running.end()).status == 0
        assert running.ran.err == ""


@pytest.mark.skipif(not Path("/usr/bin/sftp").exists(), reason="no OpenSSH sftp here")
def test_python_sftp_server_serves_openssh(tmp_path: Path) -> None:
    import sys

    (tmp_path / "a").write_bytes(os.urandom(3 * MIB + 5))
    (tmp_path / "d").mkdir()
    for number in range(120):
        (tmp_path / "d" / f"f{number}").write_text(str(number))
    batch = tmp_path / "batch"
    batch.write_text(
        "get a b\nput b c\nput -r d e\nls -l e\nmkdir q\nrename q w\nrmdir w\nsymlink a l\nchmod 600 c\ndf\n"
        "-get missing\nrename c r\nln a hard\n"
    )
    server = tmp_path / "server"
    root = Path(__file__).parents[2]
    server.write_text(f"#!/bin/sh\nexport PYTHONPATH={root}\nexec {sys.executable} -m shelld.launch.sftp\n")
    server.chmod(0o755)
    done = subprocess.run(
        ["/usr/bin/sftp", "-q", "-b", str(batch), "-D", str(server)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "r").read_bytes()
    assert len(list((tmp_path / "e").iterdir())) == 120
    assert (tmp_path / "l").readlink() == Path("a")
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600
    assert "not found" in done.stderr
