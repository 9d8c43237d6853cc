"""The environment of a program, built from nothing as `sshd` builds it. Pure.

Later sources override earlier ones: defaults → /etc/environment → the container's (the ENV of its image) →
the client's variables that it may set → the blueprint → facts of the login (USER, HOME, SSH_CONNECTION …).
That is `sshd`'s order too: its SetEnv overrides AcceptEnv. Outside of a container, nothing of shelld's own
environment is included.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shelld.launch.account import Account

USER_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DENIED = (
    # Each makes a loader, shell or interpreter run code of the client's choice before the program,
    # regardless of accept_env.
    *("LD_*", "DYLD_*", "GLIBC_TUNABLES", "MALLOC_*", "GCONV_PATH", "LOCPATH", "NLSPATH", "HOSTALIASES"),
    *("BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "PROMPT_COMMAND", "PS4", "ENV", "IFS", "CDPATH"),
    *("PYTHON*", "PERL*", "RUBY*", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "ZDOTDIR", "FPATH", "TERMINFO*"),
    # Facts of the login that only shelld knows.
    *("USER", "LOGNAME", "HOME", "SHELL", "PATH", "MAIL", "TERM", "SSH_*", "TMPDIR"),
)

_OF_THE_FIRST_PROCESS = (
    *("USER", "LOGNAME", "HOME", "SHELL", "MAIL", "TERM", "SSH_*", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_"),
    *("KUBERNETES_*", "container"),  # of the cluster and of its runtime
)


@dataclass(frozen=True, slots=True)
class Login:
    """The facts of one login that its program's environment contains."""

    account: Account
    shell: str
    term: str | None = None
    """None without a PTY."""
    tty: str = ""
    client: tuple[str, int, str, int] | None = None
    """Client host and port, server host and port."""
    ssh_auth_sock: str = ""
    original_command: str = ""
    """The client's command, which a forced command replaced."""


@dataclass(frozen=True, slots=True)
class Host:
    """The environment of the workspace itself, read from files by `read_host`."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """/etc/environment."""
    login_defs: Mapping[str, str] = field(default_factory=dict)
    container: Mapping[str, str] = field(default_factory=dict)
    """The environment with which the container was started, as the author of the image set it."""


def of_image(container: Mapping[str, str]) -> dict[str, str]:
    """Return the part of a container's environment that concerns its image, and not its first process."""
    return {name: value for name, value in container.items() if not _matches(name, _OF_THE_FIRST_PROCESS)}


def accepted(client: Mapping[str, str], accept: Sequence[str]) -> dict[str, str]:
    """Return the part of the client's environment that a program may get.

    A name needs a match in `accept` (globs) and none in `DENIED`; names and values that no environment can
    hold are dropped.
    """
    return {
        name: value
        for name, value in client.items()
        if name
        and "=" not in name
        and "\0" not in name + value
        and _matches(name, accept)
        and not _matches(name, DENIED)
    }


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def build(
    login: Login,
    host: Host,
    *,
    client: Mapping[str, str],
    accept: Sequence[str],
    blueprint: Mapping[str, str],
) -> dict[str, str]:
    """Return the whole environment of one program."""
    account = login.account
    env = {"PATH": _default_path(account, host), "MAIL": f"/var/mail/{account.name}"}
    env.update(host.environment)
    env.update(of_image(host.container))
    env.update(accepted(client, accept))
    env.update(blueprint)
    env.update(USER=account.name, LOGNAME=account.name, HOME=account.home, SHELL=login.shell)
    if login.term is not None:
        env["TERM"] = login.term or "dumb"
        env["SSH_TTY"] = login.tty
    if login.client is not None:
        host_, port, server_host, server_port = login.client
        env["SSH_CLIENT"] = f"{host_} {port} {server_port}"
        env["SSH_CONNECTION"] = f"{host_} {port} {server_host} {server_port}"
    if login.ssh_auth_sock:
        env["SSH_AUTH_SOCK"] = login.ssh_auth_sock
    if login.original_command:
        env["SSH_ORIGINAL_COMMAND"] = login.original_command
    if not {"LANG", "LC_ALL", "LC_CTYPE"} & env.keys():
        # Images rarely set a locale, and without one every tool displays UTF-8 wrongly.
        env["LANG"] = "C.UTF-8"
    return {name: value for name, value in env.items() if "\0" not in value}


def _default_path(account: Account, host: Host) -> str:
    wanted = host.login_defs.get("ENV_SUPATH" if account.uid == 0 else "ENV_PATH", "")
    return wanted.removeprefix("PATH=") or (ROOT_PATH if account.uid == 0 else USER_PATH)


def parse_environment(text: str) -> dict[str, str]:
    """Parse /etc/environment as pam_env(8) does: NAME=value lines, `export` and quotes dropped."""
    found = {}
    for raw in text.splitlines():
        line = raw.strip().removeprefix("export ").strip()
        name, equals, value = line.partition("=")
        if not equals or not name or line.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    return found


def parse_login_defs(text: str) -> dict[str, str]:
    """Parse login.defs(5): a name, white space, a value."""
    fields = (
        line.split(None, 1)
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    )
    return {pair[0]: pair[1].strip().strip('"') for pair in fields if len(pair) == 2}
