"""`ssh -A`: the person's keys sign inside the workspace, for every kind of program, and leave no trace."""

import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from tests.wire.harness import Fairlead, needs
from tests.wire.master import Master
from tests.wire.peers import at_once, until
from tests.wire.terminal import Terminal

pytestmark = pytest.mark.usefixtures("warm")

BLUEPRINTS = {"dev": "shell: /bin/sh\n"}
SETTINGS = {"FAIRLEAD_PROXY_ID": "proxy-7"}
LISTING = "ssh-add -l"


@dataclass
class Keyring:
    """A running ssh-agent with one key."""

    process: "subprocess.Popen[bytes]"
    socket: Path
    key: Path

    @property
    def env(self) -> dict[str, str]:
        path = Path("/usr/bin:/bin:/usr/local/bin")
        return {"SSH_AUTH_SOCK": str(self.socket), "PATH": str(path), "HOME": "/nonexistent", "TERM": "xterm"}

    @property
    def fingerprint(self) -> str:
        done = subprocess.run(["ssh-keygen", "-l", "-f", f"{self.key}.pub"], capture_output=True, text=True)
        return done.stdout.split()[1]


@pytest.fixture
def keyring() -> Iterator[Keyring]:
    directory = Path(tempfile.mkdtemp(prefix="fl-"))  # a short path: it holds a socket
    socket, key = directory / "agent", directory / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of the person", "-f", key], check=True
    )
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    ring = Keyring(process, socket, key)
    try:
        until(socket.exists, "ssh-agent listens")
        subprocess.run(["ssh-add", "-q", key], env=ring.env, check=True, stderr=subprocess.DEVNULL)
        yield ring
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(directory)


def ssh(
    fairlead: Fairlead, keyring: Keyring, command: str, *options: str
) -> "subprocess.CompletedProcess[bytes]":
    return fairlead.ssh(command, "-A", *options, env=keyring.env)


# ----------------------------------------------------------------------------------- that it works


def test_a_command_sees_the_keys(fairlead: Fairlead, keyring: Keyring) -> None:
    done = ssh(fairlead, keyring, LISTING)
    assert keyring.fingerprint in done.stdout.decode()
    assert done.returncode == 0


def test_a_shell_at_a_terminal_sees_the_keys(fairlead: Fairlead, keyring: Keyring) -> None:
    with Terminal([*fairlead.command("ssh", "-tt", "-A"), "fl"], env=keyring.env) as terminal:
        terminal.ready()
        assert keyring.fingerprint in terminal.run(LISTING)


def test_a_script_without_a_terminal_sees_the_keys(fairlead: Fairlead, keyring: Keyring) -> None:
    """VS Code's shell is one."""
    command = [*fairlead.command("ssh", "-T", "-A"), "fl"]
    done = subprocess.run(
        command, input=f"{LISTING}\n".encode(), capture_output=True, env=keyring.env, timeout=60
    )
    assert keyring.fingerprint in done.stdout.decode()


def test_a_key_signs_inside(fairlead: Fairlead, keyring: Keyring, tmp_path: Path) -> None:
    """With the public half inside and the private half nowhere but in the person's ssh-agent."""
    public = Path(f"{keyring.key}.pub").read_text()
    done = ssh(
        fairlead,
        keyring,
        f"echo '{public.strip()}' > signer.pub; echo text > text;"
        " ssh-keygen -q -Y sign -n file -f signer.pub text 2>&1; cat text.sig",
    )
    assert b"BEGIN SSH SIGNATURE" in done.stdout
    (tmp_path / "allowed").write_text(f"person {public}")
    (tmp_path / "text.sig").write_bytes(done.stdout[done.stdout.index(b"-----BEGIN") :])
    check = ["ssh-keygen", "-Y", "verify", "-f", tmp_path / "allowed", "-I", "person", "-n", "file"]
    verified = subprocess.run([*check, "-s", tmp_path / "text.sig"], input=b"text\n", capture_output=True)
    assert verified.returncode == 0, verified.stderr


@needs("git")
def test_git_over_ssh_authenticates_inside(fairlead: Fairlead, keyring: Keyring) -> None:
    """From the workspace back to this very proxy, as a `git push` to another host would go."""
    fairlead.cli("user", "add", "bob", "--key", f"{keyring.key}.pub")
    unknown = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    inner = f"ssh -p {fairlead.port} {unknown}"
    done = ssh(
        fairlead,
        keyring,
        f"GIT_SSH_COMMAND='{inner}' sh -ec '"
        f'{inner} bob@127.0.0.1 "rm -rf r; git init -q --bare r";'
        " rm -rf work; git -c init.defaultBranch=main init -q work; cd work;"
        " git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first;"
        f" git push -q ssh://bob@127.0.0.1:{fairlead.port}/~/r HEAD:main'",
    )
    assert done.returncode == 0, done.stderr
    landed = fairlead.workspace("bob") / "home" / "r" / "refs" / "heads" / "main"
    assert re.fullmatch(r"[0-9a-f]{40}\n", landed.read_text())


def test_sixteen_at_once_keep_their_answers_apart(fairlead: Fairlead, keyring: Keyring) -> None:
    """In one program, as `cargo` and `uv sync` ask."""
    public = Path(f"{keyring.key}.pub").read_text().strip()
    sign = "ssh-keygen -q -Y sign -n file -f par.pub t$n >/dev/null 2>&1 && ssh-add -l && echo signed $n"
    each = f"(echo $n > t$n; rm -f t$n.sig; {sign})"
    script = f"echo '{public}' > par.pub; for n in $(seq 16); do {each} & done; wait"
    done = ssh(fairlead, keyring, script)
    lines = done.stdout.decode().splitlines()
    assert sorted(line for line in lines if line.startswith("signed")) == sorted(
        f"signed {number}" for number in range(1, 17)
    )
    assert sum(keyring.fingerprint in line for line in lines) == 16


def test_sixteen_channels_at_once(fairlead: Fairlead, keyring: Keyring) -> None:
    """Of one connection, each with a request of its own, as an IDE opens them."""
    with _agent_master(fairlead, keyring) as master:
        answers = at_once([lambda: ssh(fairlead, keyring, LISTING, *master.options)] * 16)
    assert [keyring.fingerprint in done.stdout.decode() for done in answers] == [True] * 16


async def test_a_large_answer_passes(fairlead: Fairlead, keyring: Keyring) -> None:
    """A list of many keys is more than one packet of SSH."""
    keys = [asyncssh.generate_private_key("ssh-ed25519", comment=f"{n} " + "x" * 400) for n in range(100)]
    async with asyncssh.connect_agent(str(keyring.socket)) as client:
        await client.add_keys(keys)
    done = ssh(fairlead, keyring, "ssh-add -L")
    assert len(done.stdout) > 40_000
    assert done.stdout.count(b"\n") == 101


# -------------------------------------------------------------------------------------- the socket


def test_the_socket_is_the_accounts_alone_and_gone_afterwards(fairlead: Fairlead, keyring: Keyring) -> None:
    done = ssh(fairlead, keyring, 'echo "$SSH_AUTH_SOCK"; stat -c "%a %u %F" "$SSH_AUTH_SOCK"; id -u')
    path, facts, uid = done.stdout.decode().splitlines()
    name = path.rpartition("/")[2]
    assert fairlead.process
    assert re.fullmatch(rf"ssh-agent-ux-proxy-7-{fairlead.process.pid}-\d+\.sock", name)
    mode, owner, kind = facts.split(maxsplit=2)
    assert stat.S_IMODE(int(mode, 8)) == 0o600
    assert owner == uid
    assert kind == "socket"
    until(lambda: fairlead.ssh(f"test -e {path}").returncode == 1, "the socket is gone")


def test_a_session_without_it_has_none(fairlead: Fairlead, keyring: Keyring) -> None:
    done = fairlead.ssh('echo "<$SSH_AUTH_SOCK>"; ssh-add -l', "-a", env=keyring.env)
    assert done.stdout == b"<>\n"
    assert done.returncode == 2


def test_a_client_cannot_name_a_socket_of_its_own(fairlead: Fairlead, keyring: Keyring) -> None:
    done = fairlead.ssh('echo "<$SSH_AUTH_SOCK>"', "-a", "-o", "SetEnv=SSH_AUTH_SOCK=/tmp/x", env=keyring.env)
    assert done.stdout == b"<>\n"


def test_of_two_channels_only_the_one_that_asked_has_it(fairlead: Fairlead, keyring: Keyring) -> None:
    with _agent_master(fairlead, keyring) as master:
        asked = ssh(fairlead, keyring, LISTING, *master.options)
        plain = fairlead.ssh('echo "<$SSH_AUTH_SOCK>"', "-a", *master.options, env=keyring.env)
    assert keyring.fingerprint in asked.stdout.decode()
    assert plain.stdout == b"<>\n"


def test_one_connection_has_one_socket_while_any_channel_uses_it(
    fairlead: Fairlead, keyring: Keyring
) -> None:
    """A program that was handed the path goes on when the channel that came first has ended."""
    with _agent_master(fairlead, keyring) as master:
        command = fairlead.command("ssh", "-A", *master.options)
        holder = subprocess.Popen(
            [*command, "fl", 'echo "$SSH_AUTH_SOCK"; cat >/dev/null'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=keyring.env,
        )
        assert holder.stdin
        assert holder.stdout
        with holder:
            path = holder.stdout.readline().strip()
            other = ssh(fairlead, keyring, 'echo "$SSH_AUTH_SOCK"', *master.options)
            assert other.stdout.strip() == path
            again = ssh(fairlead, keyring, LISTING, *master.options)
            assert keyring.fingerprint in again.stdout.decode()
            holder.stdin.close()
            assert holder.wait(60) == 0
        until(lambda: fairlead.ssh(f"test -e {path.decode()}").returncode == 1, "the socket is gone")
        assert keyring.fingerprint in ssh(fairlead, keyring, LISTING, *master.options).stdout.decode()


# --------------------------------------------------------------------------------------- its end


def test_an_ssh_agent_that_died_is_an_error_and_no_hang(fairlead: Fairlead, keyring: Keyring) -> None:
    with Terminal([*fairlead.command("ssh", "-tt", "-A"), "fl"], env=keyring.env) as terminal:
        terminal.ready()
        keyring.process.send_signal(signal.SIGKILL)
        keyring.process.wait(20)
        answer = terminal.run(LISTING + "; echo status $?")
        assert re.search(r"status [12]", answer)
        assert "alive" in terminal.run("echo ali''ve")


def test_a_lost_client_takes_its_socket_along(fairlead: Fairlead, keyring: Keyring) -> None:
    with Terminal([*fairlead.command("ssh", "-tt", "-A"), "fl"], env=keyring.env) as terminal:
        terminal.ready()
        found = re.search(r"/\S+\.sock", terminal.run('echo "$SSH_AUTH_SOCK"'))
        assert found
        terminal.hang_up()
    until(lambda: fairlead.ssh(f"test -e {found.group()}").returncode == 1, "the socket is gone")


def _agent_master(fairlead: Fairlead, keyring: Keyring) -> Master:
    """A shared connection whose owner knows the ssh-agent: OpenSSH's master answers for all channels."""
    return Master(fairlead, "-A", "-o", f"ForwardAgent={keyring.socket}")
