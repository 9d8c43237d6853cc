"""What a person sees and may do while the workspace starts, and what is said when it does not."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead
from tests.wire.master import Master
from tests.wire.peers import until
from tests.wire.terminal import Terminal

_FRESH = 24
BLUEPRINTS = {
    **{f"fresh{number}": "shell: /bin/sh\n" for number in range(_FRESH)},
    "prepared": (
        "shell: /bin/sh\n"
        "init:\n  - {name: slow, when: every, script: 'until test -e \"$HOME/go\"; do sleep 0.05; done'}\n"
    ),
}
_numbers = count()


@dataclass
class Client:
    """A client without a terminal whose output can be read while it runs."""

    process: "subprocess.Popen[bytes]"
    directory: Path

    @classmethod
    def start(cls, arguments: list[str], directory: Path, stdin: int = subprocess.DEVNULL) -> "Client":
        directory.mkdir()
        with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
            return cls(subprocess.Popen(arguments, stdin=stdin, stdout=out, stderr=err), directory)

    @property
    def out(self) -> bytes:
        return (self.directory / "out").read_bytes()

    @property
    def err(self) -> str:
        return (self.directory / "err").read_text()

    def status(self) -> int:
        return self.process.wait(60)


@dataclass
class Fresh:
    """A user string whose workspace has never run, and clients on their way into it."""

    fairlead: Fairlead
    user_string: str
    tmp_path: Path
    clients: list[Client] = field(default_factory=list)

    def command(self, program: str, *options: str) -> list[str]:
        return self.fairlead.command(program, "-o", f"User={self.user_string}", *options)

    def terminal(self, *words: str, options: tuple[str, ...] = (), **more: Any) -> Terminal:
        return Terminal([*self.command("ssh", "-tt", *options), "fl", *words], **more)

    def client(self, arguments: list[str], stdin: int = subprocess.DEVNULL) -> Client:
        client = Client.start(arguments, self.tmp_path / f"client{len(self.clients)}", stdin)
        self.clients.append(client)
        return client

    def exec(self, command: str, *options: str, stdin: int = subprocess.DEVNULL) -> Client:
        return self.client([*self.command("ssh", *options), "fl", command], stdin)

    def held(self) -> ExitStack:
        """Keep the workspace from starting until `close` is called, or the block is left."""
        stack = ExitStack()
        stack.enter_context(self.fairlead.start_held(self.user_string))
        return stack

    @property
    def logins(self) -> int:
        return self.fairlead.log.count('"event": "logged in"')


@pytest.fixture
def fresh(fairlead: Fairlead, tmp_path: Path) -> Iterator[Fresh]:
    scene = Fresh(fairlead, f"alice+fresh{next(_numbers)}", tmp_path)
    yield scene
    for client in scene.clients:
        if client.process.poll() is None:
            client.process.kill()
            client.process.wait(20)


# --------------------------------------------------------------------------------------- progress


def test_a_terminal_sees_one_line_that_is_erased_when_the_program_starts(fresh: Fresh) -> None:
    with fresh.held() as hold, fresh.terminal("echo at last", columns=72) as terminal:
        terminal.expect_screen(r"preparing workspace alice-\w+ \(2 s, Ctrl-C to leave\)")
        assert len(terminal.text.splitlines()) == 1
        assert b"\n" not in terminal.raw
        hold.close()
        assert terminal.wait() == 0
        assert terminal.text == "at last"


def test_the_line_never_wraps_however_narrow_the_terminal_becomes(fresh: Fresh) -> None:
    with fresh.held() as hold, fresh.terminal("echo at last", columns=70) as terminal:
        terminal.expect_screen("preparing workspace .*Ctrl-C to leave")
        terminal.resize(30, 24)
        terminal.expect_screen(r"\A. preparing workspace \S{1,8}\Z")
        for _ in range(10):
            terminal.expect("preparing")
        assert len(terminal.text.splitlines()) == 1
        hold.close()
        terminal.wait()
        assert terminal.text == "at last"


def test_a_terminal_that_cannot_redraw_gets_lines(fresh: Fresh) -> None:
    """Emacs' shell is one."""
    with fresh.held() as hold, fresh.terminal("echo at last", env={"TERM": "dumb"}) as terminal:
        terminal.expect("fairlead: preparing workspace")
        hold.close()
        assert terminal.wait() == 0
        assert b"\x1b" not in terminal.raw
        assert terminal.raw.count(b"fairlead: preparing") == 1
        assert terminal.lines[0].startswith("fairlead: preparing")
        assert terminal.text.endswith("\nat last")


def test_a_command_is_told_by_plain_lines_on_stderr(fresh: Fresh) -> None:
    with fresh.held():
        client = fresh.exec("echo out; echo err >&2; exit 3")
        until(lambda: "preparing workspace" in client.err, "the wait is explained")
    assert client.status() == 3
    assert client.out == b"out\n"
    *ours, theirs = client.err.splitlines()
    assert theirs == "err"
    assert all(line.startswith("fairlead: ") and line.isprintable() for line in ours)


def test_a_shell_without_a_terminal_has_nothing_of_ours_on_stdout(fresh: Fresh) -> None:
    """VS Code and `ssh host < script` read stdout as data."""
    with fresh.held():
        client = fresh.client([*fresh.command("ssh", "-T"), "fl"], subprocess.PIPE)
        assert client.process.stdin
        client.process.stdin.write(b"echo data; exit 4\n")
        client.process.stdin.close()
        until(lambda: "preparing workspace" in client.err, "the wait is explained")
    assert client.status() == 4
    assert client.out == b"data\n"


def test_sftp_hears_nothing_and_waits(fresh: Fresh) -> None:
    (fresh.tmp_path / "payload").write_text("payload")
    (fresh.tmp_path / "batch").write_text(
        f"put {fresh.tmp_path}/payload kept\nget kept {fresh.tmp_path}/back\n"
    )
    with fresh.held():
        sftp = fresh.client(fresh.command("sftp", "-q", "-b", f"{fresh.tmp_path}/batch", "fl"))
        other = fresh.exec("true")
        until(lambda: "preparing workspace" in other.err, "the wait is explained to others")
    assert sftp.status() == 0
    assert sftp.err == ""
    assert (fresh.tmp_path / "back").read_text() == "payload"


def test_a_start_that_is_quick_is_not_talked_about(fresh: Fresh) -> None:
    fresh.exec("true").status()
    client = fresh.exec("true")
    client.status()
    assert client.err == ""
    with fresh.terminal("echo only this") as terminal:
        terminal.wait()
        assert terminal.raw == b"only this\r\n"


def test_init_scripts_are_waited_for_and_it_is_said_so(fairlead: Fairlead, tmp_path: Path) -> None:
    prepared = Fresh(fairlead, "alice+prepared", tmp_path)
    go = fairlead.workspace(prepared.user_string) / "home" / "go"
    with prepared.terminal("echo prepared", columns=100) as terminal:
        terminal.expect_screen("init script")
        assert len(terminal.text.splitlines()) == 1
        go.touch()
        assert terminal.wait() == 0
        assert terminal.text == "prepared"


def test_a_forward_waits_with_the_rest(fresh: Fresh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with fresh.held():
            client = fresh.client([*fresh.command("ssh", "-W", f"127.0.0.1:{port}"), "fl"], subprocess.PIPE)
            logins = fresh.logins
            fresh.exec("true")
            until(lambda: fresh.logins > logins, "somebody else is logged in")
        server.settimeout(60)
        link, _ = server.accept()
        with link:
            link.sendall(b"220 hello\r\n")
        assert client.process.stdin
        client.process.stdin.close()
        assert client.status() == 0
    assert client.out == b"220 hello\r\n"
    assert client.err == ""


def test_an_impatient_client_is_kept_by_our_answers_to_its_keepalives(fresh: Fresh) -> None:
    options = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
    with fresh.held() as hold, fresh.terminal("echo still here", options=options) as terminal:
        terminal.expect(r"\(4 s")
        hold.close()
        terminal.expect("still here")


# -------------------------------------------------------------------------------------- meanwhile


def test_what_is_typed_meanwhile_reaches_the_program(fresh: Fresh) -> None:
    with fresh.held() as hold, fresh.terminal() as terminal:
        terminal.expect("preparing")
        terminal.send("echo typed''ahead\r")
        terminal.send("exit 7\r")
        hold.close()
        terminal.expect("typedahead")
        assert terminal.wait() == 7


def test_what_is_piped_meanwhile_reaches_the_program(fresh: Fresh) -> None:
    with fresh.held():
        client = fresh.exec("cat; echo; wc -c", stdin=subprocess.PIPE)
        assert client.process.stdin
        client.process.stdin.write(b"piped ahead")
        client.process.stdin.close()
        until(lambda: "preparing workspace" in client.err, "the wait is explained")
    assert client.status() == 0
    assert client.out == b"piped ahead\n0\n"


def test_a_resize_meanwhile_reaches_the_program(fresh: Fresh) -> None:
    with fresh.held() as hold, fresh.terminal("stty size", columns=100, rows=30) as terminal:
        terminal.expect("preparing")
        terminal.resize(77, 33)
        terminal.expect(r"(?s)\(2 s.*\(3 s")  # the client tells it within this time
        hold.close()
        terminal.expect("33 77")


def test_ctrl_c_cancels_this_channel_and_no_other(fresh: Fresh) -> None:
    with Master(fresh.fairlead, "-o", f"User={fresh.user_string}") as master, fresh.held() as hold:
        with (
            fresh.terminal("echo one", options=master.options) as one,
            fresh.terminal("echo other", options=master.options) as other,
        ):
            script = fresh.exec("echo script", *master.options)
            one.expect("preparing")
            other.expect("preparing")
            one.send(b"\x03")
            assert one.wait() == 130
            assert one.text.startswith("fairlead: cancelled")
            assert len(one.text.splitlines()) == 1
            assert script.process.poll() is None
            hold.close()
            other.expect("other")
            assert other.wait() == 0
        assert script.status() == 0
        assert script.out == b"script\n"
        assert fresh.exec("echo again", *master.options).status() == 0


def test_the_key_that_cancels_is_the_one_that_the_person_uses(fresh: Fresh) -> None:
    words = " ".join([*fresh.command("ssh", "-tt", "fl"), "true"])
    with fresh.held() as hold, Terminal(["sh", "-c", f"stty intr ^G; exec {words}"]) as terminal:
        terminal.expect("preparing")
        terminal.send(b"\x03")
        terminal.expect(r"(?s)\(2 s.*\(3 s")
        terminal.send(b"\x07")
        assert terminal.wait() == 130
        hold.close()


def test_a_client_that_leaves_meanwhile_leaves_the_start_to_others(fresh: Fresh) -> None:
    with fresh.held() as hold:
        with fresh.terminal() as terminal:
            terminal.expect("preparing")
            terminal.hang_up()
        client = fresh.exec("echo there")
        until(lambda: "preparing workspace" in client.err, "the wait is explained")
        client.process.send_signal(signal.SIGKILL)
        client.process.wait(20)
        stays = fresh.exec("echo stays")
        until(lambda: "preparing workspace" in stays.err, "the wait is explained")
        hold.close()
    assert stays.status() == 0
    assert stays.out == b"stays\n"
    assert "Traceback" not in fresh.fairlead.log


def test_ten_connections_at_once_join_one_start(fresh: Fresh) -> None:
    clients = [fresh.exec(f"echo {number}") for number in range(10)]
    assert [client.status() for client in clients] == [0] * 10
    assert [client.out for client in clients] == [b"%d\n" % number for number in range(10)]
    name = fresh.fairlead.workspace(fresh.user_string).name
    started = [
        line
        for line in fresh.fairlead.log.splitlines()
        if '"event": "workspace started"' in line and name in line
    ]
    assert len(started) == 1


# ---------------------------------------------------------------------------------------- failing


@pytest.fixture
def broken(fresh: Fresh) -> Fresh:
    """A workspace that cannot start, for root neither: a file lies where its home should be."""
    directory = fresh.fairlead.workspace(fresh.user_string)
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.write_text("in the way")
    return fresh


def assert_explained(fairlead: Fairlead, text: str) -> None:
    """One sentence with a reference that finds the connection in the log; no path, no traceback."""
    sentence = re.search(r"fairlead: [^\n]*\(reference (\w+)\)", text)
    assert sentence, text
    assert sentence.group(1) in fairlead.log
    assert "Traceback" not in text
    assert str(fairlead.home) not in text


def test_a_failed_start_is_explained_on_a_terminal(broken: Fresh) -> None:
    with broken.terminal("echo never") as terminal:
        assert terminal.wait() == 255
        assert_explained(broken.fairlead, terminal.text.replace("\n", ""))
        assert terminal.raw.endswith(b"\r\n")


def test_a_failed_start_is_explained_to_a_command(broken: Fresh) -> None:
    client = broken.exec("echo never")
    assert client.status() == 255
    assert client.out == b""
    assert_explained(broken.fairlead, client.err)


def test_a_failed_start_is_explained_to_sftp(broken: Fresh) -> None:
    client = broken.client(broken.command("sftp", "-q", "-b", os.devnull, "fl"))
    assert client.status() == 255
    assert_explained(broken.fairlead, client.err)


def test_a_failed_start_is_the_answer_to_a_forward(broken: Fresh) -> None:
    client = broken.client([*broken.command("ssh", "-W", "127.0.0.1:9"), "fl"])
    assert client.status() == 255
    assert "forwarding failed" in client.err


def test_a_workspace_that_failed_starts_once_its_cause_is_gone(broken: Fresh) -> None:
    assert broken.exec("true").status() == 255
    broken.fairlead.workspace(broken.user_string).unlink()
    client = broken.exec("echo healed")
    assert client.status() == 0
    assert client.out == b"healed\n"


def test_a_start_that_takes_too_long_is_given_up(make_fairlead: MakeFairlead, tmp_path: Path) -> None:
    fairlead = make_fairlead({"FAIRLEAD_WORKSPACE__START_TIMEOUT_S": "2"})
    scene = Fresh(fairlead, "alice+dev", tmp_path)
    with scene.held(), scene.terminal() as terminal:
        terminal.expect("preparing")
        assert terminal.wait() == 255
        text = terminal.text
    assert_explained(fairlead, text.replace("\n", ""))
    assert text.count("preparing") == 1  # in the sentence: the line that was redrawn is gone
    assert fairlead.ssh("echo later").stdout == b"later\n"


def test_a_blueprint_that_does_not_exist_is_named_and_the_others_listed(fairlead: Fairlead) -> None:
    done = fairlead.ssh("true", "-l", "alice+nosuch")
    assert done.returncode == 254
    assert b"no blueprint 'nosuch'" in done.stderr
    assert b"dev" in done.stderr
    assert_explained(fairlead, done.stderr.decode())


def test_a_shell_that_is_missing_is_named(make_fairlead: MakeFairlead) -> None:
    fairlead = make_fairlead(blueprints={"dev": "shell: /no/such/shell\n"})
    done = fairlead.ssh("true")
    assert done.returncode in (0, 127)
    if done.returncode:
        assert_explained(fairlead, done.stderr.decode())


@pytest.mark.slow
def test_an_init_script_may_take_longer_than_a_program_waits_for_it(make_fairlead: MakeFairlead) -> None:
    fairlead = make_fairlead(blueprints={"dev": "init:\n  - {name: slow, when: every, script: 'sleep 45'}\n"})
    done = fairlead.ssh("echo beside it", timeout_s=100)
    assert (done.returncode, done.stdout) == (0, b"beside it\n")
