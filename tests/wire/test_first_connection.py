"""The road from `ssh` to a program and back, once, as a newcomer takes it."""

from tests.wire.harness import Fairlead


def test_a_command_runs_in_the_workspace_and_its_status_comes_back(fairlead: Fairlead) -> None:
    done = fairlead.ssh("echo out; echo err >&2; pwd; exit 7")
    assert done.stdout.startswith(b"out\n")
    assert done.stderr.endswith(b"err\n")  # what was said of the starting workspace comes before
    assert b"/workspaces/alice-" in done.stdout
    assert done.returncode == 7


def test_stdin_reaches_the_program_and_ends(fairlead: Fairlead) -> None:
    assert fairlead.ssh("cat", data=b"x" * 100_000).stdout == b"x" * 100_000


def test_an_unknown_user_is_refused_like_a_wrong_key(fairlead: Fairlead) -> None:
    done = fairlead.ssh("true", "-o", "BatchMode=yes", "-l", "nobody-we-know")
    assert done.returncode == 255
    assert b"Permission denied (publickey)" in done.stderr


def test_a_shell_on_a_terminal_is_greeted_with_the_splash_and_nothing_else_is(fairlead: Fairlead) -> None:
    (fairlead.home / "blueprints" / "greeting.yaml").write_text("splash: |\n  Welcome.\n  Be kind.\n")
    options = ("-l", "alice+greeting")
    fairlead.ssh("true", *options)
    shell = fairlead.ssh("", "-tt", *options, data=b"exit\n")
    assert b"Welcome.\r\nBe kind.\r\n" in shell.stdout
    assert b"Welcome" not in fairlead.ssh("true", "-tt", *options).stdout
    assert b"Welcome" not in fairlead.ssh("", "-T", *options, data=b"exit\n").stdout
