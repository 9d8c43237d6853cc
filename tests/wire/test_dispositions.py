"""Programs of local workspaces ignore and block no signal, whatever the proxy's own parent ignored."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead

LOOK = "grep -E '^Sig(Blk|Ign):' /proc/self/status"
DEFAULT = {"SigBlk:": "0" * 16, "SigIgn:": "0" * 16}
BLUEPRINT = f"name: dev\ninit:\n  - name: look\n    script: {LOOK} > $HOME/init\n"
IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTOU, signal.SIGRTMIN, signal.SIGRTMAX)


@pytest.fixture(scope="module")
def fairlead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    """A proxy that was started with signals ignored, as by `nohup`."""
    server = Fairlead(tmp_path_factory.mktemp("fairlead"))
    server.prepare({"dev": BLUEPRINT})
    former = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    try:
        server.start()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    try:
        assert (
            server.ssh("mkdir -p ~/.ssh && cat > ~/.ssh/rc", data=f"{LOOK} > ~/rc\n".encode()).returncode == 0
        )
        yield server
    finally:
        server.close()


def by_exec(fairlead: Fairlead) -> str:
    return fairlead.ssh(LOOK).stdout.decode()


def by_exec_with_a_terminal(fairlead: Fairlead) -> str:
    return fairlead.ssh(LOOK, "-tt").stdout.decode()


def by_shell(fairlead: Fairlead) -> str:
    command = [*fairlead.command("ssh", "-T"), "fl"]
    return subprocess.run(
        command, input=f"{LOOK}\n".encode(), capture_output=True, timeout=60
    ).stdout.decode()


def by_shell_with_a_terminal(fairlead: Fairlead) -> str:
    """By a script, since a terminal shows what is typed too."""
    command = [*fairlead.command("ssh", "-tt"), "fl"]
    fairlead.ssh("cat > look", data=LOOK.encode())
    typed = b"stty -echo; sh ./look; exit\n"
    return subprocess.run(command, input=typed, capture_output=True, timeout=60).stdout.decode()


def by_sftp(fairlead: Fairlead) -> str:
    with fairlead.directory.joinpath("status").open("w+") as file:
        command = [*fairlead.command("sftp", "-b", "-"), "fl"]
        subprocess.run(command, input=f"get /proc/self/status {file.name}\n".encode(), check=True, timeout=60)
        return file.read()


def by_init_script(fairlead: Fairlead) -> str:
    return fairlead.ssh("cat init").stdout.decode()


def by_user_rc(fairlead: Fairlead) -> str:
    return fairlead.ssh("cat rc").stdout.decode()


WAYS = [
    *(by_exec, by_exec_with_a_terminal, by_shell, by_shell_with_a_terminal),
    *(by_sftp, by_init_script, by_user_rc),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.replace("_", " "))
def test_a_program_ignores_and_blocks_no_signal(fairlead: Fairlead, way: Callable[[Fairlead], str]) -> None:
    lines = [line.split() for line in way(fairlead).splitlines() if line.startswith(tuple(DEFAULT))]
    assert {name: value for name, value in lines} == DEFAULT


def test_the_proxy_was_started_with_signals_ignored(fairlead: Fairlead) -> None:
    """Otherwise nothing above would be shown."""
    assert fairlead.process is not None
    status = Path(f"/proc/{fairlead.process.pid}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")), 16)
    assert all(ignored & 1 << (number - 1) for number in IGNORED), f"{ignored:x} of process {os.getpid()}"
