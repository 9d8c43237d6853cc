"""The environment of a program."""

from shelld.launch.account import Account
from shelld.programs import environ

ALICE = Account("alice", 1000, 1000, (1000,), "/home/alice", "/bin/zsh")
ROOT = Account("root", 0, 0, (0,), "/root", "/bin/bash")


def build(
    login: environ.Login | None = None, host: environ.Host | None = None, **sources: object
) -> dict[str, str]:
    wanted: dict[str, object] = {"client": {}, "accept": (), "blueprint": {}, **sources}
    return environ.build(login or environ.Login(ALICE, "/bin/zsh"), host or environ.Host(), **wanted)  # type: ignore[arg-type]


def test_bare_login() -> None:
    assert build() == {
        "USER": "alice",
        "LOGNAME": "alice",
        "HOME": "/home/alice",
        "SHELL": "/bin/zsh",
        "PATH": environ.USER_PATH,
        "MAIL": "/var/mail/alice",
        "LANG": "C.UTF-8",
    }


def test_terminal_client_and_agent() -> None:
    login = environ.Login(
        ALICE,
        "/bin/sh",
        term="xterm-256color",
        tty="/dev/pts/3",
        client=("192.0.2.7", 4000, "192.0.2.1", 22),
        ssh_auth_sock="/run/a",
    )
    env = build(login)
    assert env["TERM"] == "xterm-256color"
    assert env["SSH_TTY"] == "/dev/pts/3"
    assert env["SSH_CLIENT"] == "192.0.2.7 4000 22"
    assert env["SSH_CONNECTION"] == "192.0.2.7 4000 192.0.2.1 22"
    assert env["SSH_AUTH_SOCK"] == "/run/a"


def test_only_a_forced_command_is_told_what_was_asked_for() -> None:
    forced = environ.Login(ALICE, "/bin/sh", original_command="rm -rf /")
    assert build(forced)["SSH_ORIGINAL_COMMAND"] == "rm -rf /"
    forged = {"SSH_ORIGINAL_COMMAND": "forged"}
    assert "SSH_ORIGINAL_COMMAND" not in build(client=forged, accept=("SSH_*",))


def test_terminal_without_a_type_is_dumb() -> None:
    assert build(environ.Login(ALICE, "/bin/sh", term=""))["TERM"] == "dumb"


def test_root_has_system_directories() -> None:
    assert build(environ.Login(ROOT, "/bin/bash"))["PATH"] == environ.ROOT_PATH


def test_later_sources_win() -> None:
    host = environ.Host({"PATH": "/env", "A": "host", "B": "host"}, {"ENV_PATH": "PATH=/defs"})
    env = build(
        host=host, client={"B": "client", "C": "client"}, accept=("B", "C"), blueprint={"C": "blueprint"}
    )
    assert (env["PATH"], env["A"], env["B"], env["C"]) == ("/env", "host", "client", "blueprint")
    assert build(host=environ.Host({}, {"ENV_PATH": "PATH=/defs"}))["PATH"] == "/defs"


def test_facts_of_the_login_cannot_be_overridden() -> None:
    env = build(blueprint={"HOME": "/x", "USER": "x"}, client={"SHELL": "x"}, accept=("*",))
    assert (env["HOME"], env["USER"], env["SHELL"]) == ("/home/alice", "alice", "/bin/zsh")


def test_locale_of_the_client_keeps_the_fallback_away() -> None:
    assert "LANG" not in build(client={"LC_ALL": "de_DE.UTF-8"}, accept=("LC_*",))


def test_dangerous_names_never_pass() -> None:
    names = (
        "LD_PRELOAD",
        "LD_AUDIT",
        "BASH_ENV",
        "ENV",
        "IFS",
        "PYTHONPATH",
        "BASH_FUNC_ls%%",
        "PATH",
        "SSH_AUTH_SOCK",
        "PERL5LIB",
        "GLIBC_TUNABLES",
        "NODE_OPTIONS",
        "PROMPT_COMMAND",
        "TERM",
        "HOME",
    )
    assert environ.accepted(dict.fromkeys(names, "x"), ("*",)) == {}


def test_only_accepted_and_possible_names_pass() -> None:
    client = {"LC_TIME": "C", "FOO": "x", "": "x", "LC_=A": "x", "LC_X": "a\0b"}
    assert environ.accepted(client, ("LC_*",)) == {"LC_TIME": "C"}


def test_files_are_read_as_their_owners_read_them() -> None:
    text = "# comment\nexport A=\"quoted value\"\nB='x'\nC=a=b\nbroken\n =y\n"
    assert environ.parse_environment(text) == {"A": "quoted value", "B": "x", "C": "a=b"}
    assert environ.parse_login_defs("# c\nENV_PATH PATH=/bin:/usr/bin\nUMASK\t022\nODD\n") == {
        "ENV_PATH": "PATH=/bin:/usr/bin",
        "UMASK": "022",
    }


def test_an_image_gives_its_programs_what_it_was_made_with() -> None:
    container = {
        "PATH": "/usr/local/go/bin:/usr/bin",
        "JAVA_HOME": "/opt/java",
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
        "HOME": "/root",
        "HOSTNAME": "pod-0",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    }
    env = build(host=environ.Host({"PATH": "/env"}, {}, container), blueprint={"JAVA_HOME": "/opt/other"})
    assert env["PATH"] == "/usr/local/go/bin:/usr/bin"
    assert env["JAVA_HOME"] == "/opt/other"
    assert env["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"
    assert env["HOME"] == ALICE.home
    assert not {"HOSTNAME", "KUBERNETES_SERVICE_HOST"} & env.keys()
