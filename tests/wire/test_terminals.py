"""What a person at a terminal relies on: size, modes, keys, job control, and how it all ends."""

import os
import re
import stat
import subprocess
import termios
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead, needs
from tests.wire.peers import until
from tests.wire.terminal import Terminal

pytestmark = pytest.mark.usefixtures("warm")

# A POSIX shell, so that what is tested does not depend on who runs the tests.
BLUEPRINTS = {"dev": "shell: /bin/sh\n"}

ENDLESS = "sh -c 'echo run''ning; exec sleep 1000'\r"
"""Says when it is the foreground job; what is typed does not look like what it says."""


def ssh(fairlead: Fairlead, *words: str, **options: object) -> Terminal:
    """Log in from a terminal."""
    return Terminal([*fairlead.command("ssh", "-tt", "fl"), *words], **options)  # type: ignore[arg-type]


def in_workspace(fairlead: Fairlead, file: str) -> Path:
    """A file of the workspace's home, as seen from outside."""
    return fairlead.workspace() / "home" / file


def lives(fairlead: Fairlead, pid: str) -> bool:
    return fairlead.ssh(f"kill -0 {int(pid)}").returncode == 0


# ------------------------------------------------------------------------------------------- size


def test_the_size_of_the_terminal_is_there_from_the_first_moment(fairlead: Fairlead) -> None:
    with ssh(fairlead, "stty size", columns=131, rows=43) as terminal:
        terminal.expect("43 131")
        assert terminal.wait() == 0


def test_a_resize_reaches_the_program_in_the_foreground(fairlead: Fairlead) -> None:
    with ssh(fairlead, "trap 'stty size' WINCH; echo set; while :; do sleep 0.05; done") as terminal:
        terminal.expect("set")
        terminal.resize(101, 37)
        terminal.expect("37 101")
        terminal.resize(60, 20)
        terminal.expect("20 60")


# ------------------------------------------------------------------------------------ environment


def test_the_terminals_name_and_language_arrive(fairlead: Fairlead) -> None:
    env = {"TERM": "screen-256color", "LANG": "de_DE.UTF-8", "LC_TIME": "nl_NL.UTF-8", "LC_ALL": ""}
    options = ("-o", "SendEnv=LANG LC_TIME")
    command = [*fairlead.command("ssh", "-tt", *options, "fl"), 'echo "<$TERM|$LANG|$LC_TIME>"']
    with Terminal(command, env=env) as terminal:
        terminal.expect(re.escape("<screen-256color|de_DE.UTF-8|nl_NL.UTF-8>"))


def test_a_session_without_a_language_still_reads_utf_8(fairlead: Fairlead) -> None:
    command = [*fairlead.command("ssh", "-o", "SendEnv=-*", "fl"), 'echo "<${LC_ALL-$LANG}>"']
    plain = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, env=plain, stdin=subprocess.DEVNULL, timeout=60)
    assert done.stdout == b"<C.UTF-8>\n"


def test_variables_that_load_code_are_not_taken(fairlead: Fairlead) -> None:
    options = ("-o", "SetEnv=LD_PRELOAD=/tmp/x.so BASH_ENV=/tmp/x FAIRLEAD_X=1")
    done = fairlead.ssh('echo "<$LD_PRELOAD|$BASH_ENV|$FAIRLEAD_X>"', *options)
    assert done.stdout == b"<||1>\n"


# ------------------------------------------------------------------------------------------ modes


def test_the_clients_terminal_modes_apply(fairlead: Fairlead) -> None:
    """RFC 4254 §8: keys that the person changed, and flags."""
    setting = "stty intr ^G erase ^H susp ^Y -ixon -echoctl; exec "
    ssh_words = " ".join([*fairlead.command("ssh", "-tt", "fl"), "'stty -a'"])
    with Terminal(["sh", "-c", setting + ssh_words]) as terminal:
        shown = terminal.expect(r"(?s)speed.*echoctl[^\n]*").group(0)
    for expected in ("intr = ^G", "erase = ^H", "susp = ^Y", "-ixon", "-echoctl", "isig", "icanon"):
        assert expected in shown


def test_a_key_that_is_switched_off_stays_off(fairlead: Fairlead) -> None:
    ssh_words = " ".join([*fairlead.command("ssh", "-tt", "fl"), "'stty -a'"])
    with Terminal(["sh", "-c", f"stty quit undef; exec {ssh_words}"]) as terminal:
        assert "quit = <undef>" in terminal.expect(r"(?s)speed.*echoctl[^\n]*").group(0)


# ------------------------------------------------------------------------------------------- keys


def test_ctrl_c_ends_the_program_in_the_foreground_and_not_the_shell(fairlead: Fairlead) -> None:
    with ssh(fairlead) as terminal:
        terminal.ready()
        terminal.send(ENDLESS)
        terminal.expect("running")
        terminal.send(b"\x03")
        terminal.expect("ready> $")
        assert "130" in terminal.run("echo $?")


def test_ctrl_z_stops_a_job_and_fg_takes_it_back(fairlead: Fairlead) -> None:
    with ssh(fairlead) as terminal:
        terminal.ready()
        terminal.send("sh -c 'echo run''ning; read x; echo got $x'\r")
        terminal.expect("running")
        terminal.send(b"\x1a")
        terminal.expect("(?is)(stopped|suspended).*ready> $")
        terminal.send("fg\r")
        terminal.send("hello\r")
        terminal.expect("(?s)got hello.*ready> $")


def test_ctrl_backslash_quits_a_program(fairlead: Fairlead) -> None:
    with ssh(fairlead) as terminal:
        terminal.ready()
        terminal.run("ulimit -c 0")
        terminal.send(ENDLESS)
        terminal.expect("running")
        terminal.send(b"\x1c")
        terminal.expect("ready> $")
        assert "131" in terminal.run("echo $?")


def test_ctrl_d_at_the_prompt_ends_the_shell_with_its_status(fairlead: Fairlead) -> None:
    with ssh(fairlead) as terminal:
        terminal.ready()
        terminal.run("(exit 3)")
        terminal.send(b"\x04")
        assert terminal.wait() == 3


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_an_interactive_shells_exit_status_is_ssh_s(fairlead: Fairlead, status: int) -> None:
    with ssh(fairlead) as terminal:
        terminal.ready()
        terminal.send(f"exit {status}\r")
        assert terminal.wait() == status


def test_an_interactive_shell_killed_by_a_signal_is_reported_as_such(fairlead: Fairlead) -> None:
    with Terminal([*fairlead.command("ssh", "-tt", "-v", "fl"), "kill -9 $$"]) as terminal:
        terminal.wait()
        assert b"exit-signal" in terminal.raw


def test_utf_8_passes_both_ways(fairlead: Fairlead) -> None:
    with ssh(fairlead, "read line; echo \"<$line>\"; printf '\\342\\202\\254'") as terminal:
        terminal.send("Grüße, 世界 🚢\r")
        terminal.expect("<Grüße, 世界 🚢>")
        terminal.expect("€")


def test_keys_of_editors_pass_untouched(fairlead: Fairlead) -> None:
    """Ctrl-A, Ctrl-S, Ctrl-Q, Ctrl-V, Escape and NUL are the program's, not ours."""
    keys = bytes([1, 0x13, 0x11, 0x16, 0x1B, 0, 0x7F, 0xFF])
    with ssh(fairlead, "stty raw -echo; printf 'go\\n'; head -c 8 | od -An -tx1") as terminal:
        terminal.expect("go")
        terminal.send(keys)
        terminal.expect("01 13 11 16 1b 00 7f ff")


def test_the_escape_of_openssh_ends_the_client_and_the_job(fairlead: Fairlead) -> None:
    with ssh(fairlead) as terminal:
        terminal.ready()
        pid = re.search(r"\d+", terminal.run("echo $$"))
        assert pid
        terminal.send(ENDLESS)
        terminal.expect("running")
        terminal.send("\r~.")
        assert terminal.wait() == 255
    until(lambda: not lives(fairlead, pid.group()), "the shell has ended")


def test_a_break_is_taken(fairlead: Fairlead) -> None:
    """`~B`: a PTY has no line to break, but the request must not be refused or end anything."""
    with Terminal([*fairlead.command("ssh", "-tt", "-e", "~", "fl"), "echo up; cat"]) as terminal:
        terminal.expect("up")
        terminal.send("\r~B")
        terminal.send("still here\r")
        terminal.expect("still here")


# ------------------------------------------------------------------------------------- the device


def test_the_terminal_belongs_to_the_account(fairlead: Fairlead) -> None:
    with ssh(fairlead) as terminal:
        terminal.ready()
        tty = re.search(r"/dev/\S+", terminal.run("tty"))
        assert tty
        fields = terminal.run(f"stat -c '%u %a' {tty.group()}; id -u; echo \"$SSH_TTY\"").split()
    owner, mode, uid, ssh_tty = fields[-5:-1] if fields[-1] == "ready>" else fields[-4:]
    assert owner == uid
    assert stat.S_IMODE(int(mode, 8)) in (0o600, 0o620)
    assert ssh_tty == tty.group()


def test_a_program_may_open_its_terminal_by_name(fairlead: Fairlead) -> None:
    """gpg's pinentry, `screen` and `sudo` do."""
    with ssh(fairlead, "echo written by name > $(tty); echo and to tty > /dev/tty") as terminal:
        terminal.expect("written by name")
        terminal.expect("and to tty")
        assert terminal.wait() == 0


def test_without_a_terminal_there_is_none(fairlead: Fairlead) -> None:
    done = fairlead.ssh('tty; echo "<$SSH_TTY>"', "-T")
    assert done.stdout == b"not a tty\n<>\n"


def test_a_shell_without_a_terminal_reads_its_commands_from_stdin(fairlead: Fairlead) -> None:
    command = [*fairlead.command("ssh", "-T"), "fl"]
    done = subprocess.run(command, input=b"echo one\necho two >&2\nexit 5\n", capture_output=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (b"one\n", b"two\n", 5)


def test_a_session_sees_who_came_from_where(fairlead: Fairlead) -> None:
    done = fairlead.ssh('echo "$SSH_CONNECTION"; echo "$SSH_CLIENT"; echo "$USER:$LOGNAME:$HOME:$SHELL"')
    connection, client, account = done.stdout.decode().splitlines()
    host, port, server_host, server_port = connection.split()
    assert (host, server_host, server_port) == ("127.0.0.1", "127.0.0.1", str(fairlead.port))
    assert client == f"{host} {port} {server_port}"
    user, logname, home, shell = account.split(":")
    assert user == logname
    assert home == str(fairlead.workspace() / "home")
    assert shell == "/bin/sh"


# --------------------------------------------------------------------------------------- programs


@needs("vim")
def test_vim_draws_edits_and_follows_a_resize(fairlead: Fairlead) -> None:
    with ssh(fairlead, "vim -u NONE -N notes.txt", columns=70, rows=20) as terminal:
        terminal.expect_screen(r"(?m)^~$")
        terminal.send("ihello from vim\x1b:set ruler\r")
        terminal.expect_screen("hello from vim")
        terminal.resize(50, 12)
        terminal.expect_screen(r"(?s)\A(?=hello from vim)(.*\n){9,11}.*1,14")
        terminal.send(":wq\r")
        assert terminal.wait() == 0
    assert in_workspace(fairlead, "notes.txt").read_text() == "hello from vim\n"


@needs("less")
def test_less_pages_by_the_height_of_the_screen(fairlead: Fairlead) -> None:
    with ssh(fairlead, "seq 1 100 | less", columns=60, rows=15) as terminal:
        terminal.expect_screen(r"(?s)\A1\n.*14\n:")
        terminal.send(" ")
        terminal.expect_screen(r"(?s)\A15\n.*28\n:")
        terminal.send("q")
        assert terminal.wait() == 0


@needs("tmux")
def test_tmux_outlives_the_connection_that_began_it(fairlead: Fairlead) -> None:
    with ssh(fairlead, "exec tmux -L wire new -s work") as terminal:
        terminal.expect_screen(r"\[work\]")
        terminal.send("echo kept'-'alive\r")
        terminal.expect_screen("kept-alive")
        terminal.hang_up()
    with ssh(fairlead, "exec tmux -L wire attach -t work", columns=90, rows=30) as terminal:
        terminal.expect_screen("kept-alive")
        terminal.send("tmux -L wire kill-server\r")
        terminal.wait()


def test_modes_of_the_client_are_given_back_when_it_ends(fairlead: Fairlead) -> None:
    """The person's own terminal is as it was: `ssh` restores it when it is told the status in order."""
    with ssh(fairlead, "exit 0") as terminal:
        before = termios.tcgetattr(terminal.slave)
        assert terminal.wait() == 0
        assert termios.tcgetattr(terminal.slave)[:4] == before[:4]
