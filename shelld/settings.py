"""Settings of one shelld: a JSON file and the command line, checked as a whole.

The only module that reads or writes the environment of the process.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shelld import __version__
from shelld.apps.spec import READY_WITHIN_S, AppSpec, Restart, check
from shelld.errors import SettingsError, StartError
from shelld.forwards.rules import parse_tcp
from shelld.values import (
    MAX_SOCKET_PATH_BYTES,
    Reader,
    absolute,
    count,
    environment,
    flag,
    list_of,
    number,
    text,
)

INTERNAL_SFTP = "internal-sftp"
"""Value of `sftp_server` for the server that is part of shelld; the word is from sshd_config(5)."""
USUAL_WARN_S = 300.0
"""Seconds; also the default of the proxy, which sends `idle_warn_s` only where it differs."""


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """The workspace's own account; None values come from passwd or the running process."""

    name: str | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    home: str | None = None
    shell: str | None = None


@dataclass(frozen=True, slots=True)
class InitScript:
    """A script of the blueprint; `when` is "once" a home or "every" start."""

    name: str
    script: str
    when: str = "once"
    required: bool = False
    """Whether the workspace is not ready, and shelld does not serve, unless it succeeds."""


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """Addresses that may be dialled and bound: grammar in `rules`. An empty tuple permits nothing."""

    tcp: tuple[str, ...] = ("*:*",)
    unix: tuple[str, ...] = ("*",)
    listen_tcp: tuple[str, ...] = ("localhost:*",)
    listen_unix: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one workspace, so that a client beyond them gets an error and shelld keeps working."""

    programs: int = 512
    connections: int = 4096
    listeners: int = 64


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of mutual TLS and of the key that signs tokens."""

    cert: Path
    key: Path
    client_ca: Path
    token_key: Path
    client_name: str = "fairlead-proxy"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one shelld; see `docs` for the file."""

    workspace: str
    listen: str
    """`unix:///absolute/path` or `tcp://host:port`."""
    tls: Tls | None = None
    """Always present with TCP."""
    log_level: str = "info"
    user: str = ""
    """The user to whom the workspace belongs; part of the token with TCP, otherwise only for display."""
    account: AccountSettings = field(default_factory=AccountSettings)
    create_account: bool = False
    """Write the account to /etc/passwd and its companions: they are this workspace's own files."""
    take_home: bool = False
    """Change the owner of files in a home that belongs to another account."""
    sudo: bool = False
    """Let the account become root without a password; with `create_account`, where sudo is installed."""
    accounts: tuple[str, ...] = ()
    """OS accounts that may be requested besides the workspace's own."""
    shell: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    container_env: Mapping[str, str] = field(default_factory=dict)
    """The environment of this process at its start; empty unless the file marks it as a container's."""
    accept_env: tuple[str, ...] = ("LANG", "LC_*", "COLORTERM", "FAIRLEAD_*")
    user_rc: bool = True
    """Run `~/.ssh/rc` before a shell or command, where the proxy reports that the client's key permits it."""
    init: tuple[InitScript, ...] = ()
    init_wait_s: float = 30.0
    """Seconds that a program waits for the init scripts; then it starts beside them."""
    init_timeout_s: float = 600.0
    """Seconds after which one init script is ended."""
    forward: ForwardSettings = field(default_factory=ForwardSettings)
    runtime_dir: str = "/var/run"
    hostname: str | None = None
    grace_s: float = 5.0
    """Seconds from the hang-up of a lost session to its KILL; TERM is sent after half of them."""
    idle_stop_s: float = 0.0
    """Seconds without activity after which shelld stops; 0 never."""
    idle_warn_s: float = 0.0
    """Seconds before that stop at which users are warned on their terminals; 0 never. The default of a
    configuration is USUAL_WARN_S, and half of `idle_stop_s` where that is less."""
    stop_note: str | None = None
    """Path for the reason of shelld's stop, as JSON: `by`, `at` (ISO 8601) and `reason`."""
    limits: Limits = field(default_factory=Limits)
    dial_timeout_s: float = 15.0
    accept_timeout_s: float = 30.0
    sftp_server: str | None = None
    apps: tuple[AppSpec, ...] = ()
    """Apps that are started with the workspace."""


def _sftp_server(value: Any) -> str:
    return str(value) if value == INTERNAL_SFTP else absolute(value)


def _tcp_rule(value: Any) -> str:
    parse_tcp(text(value))
    return str(value)


def _glob(value: Any) -> str:
    fnmatch.translate(text(value))
    return str(value)


def _account(raw: object, problems: list[str]) -> AccountSettings:
    reader = Reader(raw, "account.", problems)
    account = AccountSettings(
        name=reader.take("name", None, text),
        uid=reader.take("uid", None, count),
        gid=reader.take("gid", None, count),
        groups=reader.take("groups", None, list_of(count)),
        home=reader.take("home", None, absolute),
        shell=reader.take("shell", None, absolute),
    )
    reader.close()
    return account


def _init(raw: object, problems: list[str]) -> tuple[InitScript, ...]:
    if not isinstance(raw, list):
        problems.append("init must be a list")
        return ()
    scripts = []
    for position, item in enumerate(raw):
        reader = Reader(item, f"init[{position}].", problems)
        script = InitScript(
            name=reader.take("name", f"script-{position}", text),
            script=reader.take("script", "", text),
            when=reader.take("when", "once", text),
            required=reader.take("required", False, flag),
        )
        reader.close()
        if script.when not in {"once", "every"}:
            problems.append(f'init[{position}].when must be "once" or "every"')
        if not script.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            problems.append(f"init[{position}].name may hold letters, digits, '.', '-' and '_' only")
        scripts.append(script)
    if len({script.name for script in scripts}) != len(scripts):
        problems.append("init holds two scripts of one name")
    return tuple(scripts)


def _forward(raw: object, problems: list[str]) -> ForwardSettings:
    reader = Reader(raw, "forward.", problems)
    plain = ForwardSettings()
    forward = ForwardSettings(
        tcp=reader.take("tcp", plain.tcp, list_of(_tcp_rule)),
        unix=reader.take("unix", plain.unix, list_of(_glob)),
        listen_tcp=reader.take("listen_tcp", plain.listen_tcp, list_of(_tcp_rule)),
        listen_unix=reader.take("listen_unix", plain.listen_unix, list_of(_glob)),
    )
    reader.close()
    return forward


def _apps(raw: object, problems: list[str]) -> tuple[AppSpec, ...]:
    if not isinstance(raw, list):
        problems.append("apps must be a list")
        return ()
    return tuple(_app(item, f"apps[{position}].", problems) for position, item in enumerate(raw))


def _app(raw: object, path: str, problems: list[str]) -> AppSpec:
    reader = Reader(raw, path, problems)
    app = AppSpec(
        slug=reader.take("slug", "", text),
        start=reader.take("start", "", text),
        env=reader.take("env", {}, environment),
        account=reader.take("account", "", text),
        workdir=reader.take("workdir", "", text),
        port=reader.take("port", None, count),
        socket=reader.take("socket", "", text),
        restart=reader.take("restart", Restart.ON_FAILURE, Restart),
        ready_path=reader.take("ready_path", "", text),
        within_s=reader.take("within_s", READY_WITHIN_S, number),
        digest=reader.take("digest", "", text),
    )
    reader.close()
    try:
        check(app)
    except StartError as error:
        problems.append(f"{path.removesuffix('.')}: {error.reason}")
    return app


def _limits(raw: object, problems: list[str]) -> Limits:
    reader = Reader(raw, "limits.", problems)
    plain = Limits()
    limits = Limits(
        programs=reader.take("programs", plain.programs, count),
        connections=reader.take("connections", plain.connections, count),
        listeners=reader.take("listeners", plain.listeners, count),
    )
    reader.close()
    return limits


def parse(
    raw: object, *, listen: str, tls: Tls | None, log_level: str, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return settings from the parsed JSON file; `environ` is the environment at the start. Pure.

    Raises: SettingsError with every problem found.
    """
    problems: list[str] = []
    reader = Reader(raw, "", problems)
    workspace = reader.take("workspace", "", text)
    if not workspace:
        problems.append("workspace must name this workspace")
    plain = Settings(workspace=workspace, listen=listen)
    idle_stop_s = reader.take("idle_stop_s", plain.idle_stop_s, number)
    settings = Settings(
        workspace=workspace,
        listen=listen,
        tls=tls,
        log_level=log_level,
        user=reader.take("user", plain.user, text),
        account=_account(reader.take("account", {}, lambda value: value), problems),
        create_account=reader.take("create_account", plain.create_account, flag),
        take_home=reader.take("take_home", plain.take_home, flag),
        sudo=reader.take("sudo", plain.sudo, flag),
        accounts=reader.take("accounts", plain.accounts, list_of(text)),
        shell=reader.take("shell", None, absolute),
        env=reader.take("env", {}, environment),
        container_env=dict(environ or {}) if reader.take("container_env", False, flag) else {},
        accept_env=reader.take("accept_env", plain.accept_env, list_of(text)),
        user_rc=reader.take("user_rc", plain.user_rc, flag),
        init=_init(reader.take("init", [], lambda value: value), problems),
        init_wait_s=reader.take("init_wait_s", plain.init_wait_s, number),
        init_timeout_s=reader.take("init_timeout_s", plain.init_timeout_s, number),
        forward=_forward(reader.take("forward", {}, lambda value: value), problems),
        runtime_dir=reader.take("runtime_dir", plain.runtime_dir, absolute),
        hostname=reader.take("hostname", None, text),
        grace_s=reader.take("grace_s", plain.grace_s, number),
        idle_stop_s=idle_stop_s,
        idle_warn_s=reader.take("idle_warn_s", min(USUAL_WARN_S, idle_stop_s / 2), number),
        stop_note=reader.take("stop_note", None, absolute),
        limits=_limits(reader.take("limits", {}, lambda value: value), problems),
        dial_timeout_s=reader.take("dial_timeout_s", plain.dial_timeout_s, number),
        accept_timeout_s=reader.take("accept_timeout_s", plain.accept_timeout_s, number),
        sftp_server=reader.take("sftp_server", None, _sftp_server),
        apps=_apps(reader.take("apps", [], lambda value: value), problems),
    )
    reader.close()
    if problems:
        raise SettingsError(problems)
    return settings


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shelld", description="Serve one workspace to the proxy.")
    parser.add_argument("--version", action="version", version=f"shelld {__version__}")
    parser.add_argument("--listen", required=True, metavar="unix:///PATH|tcp://HOST:PORT")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    parser.add_argument("--tls-client-ca", type=Path, metavar="FILE")
    parser.add_argument("--tls-client-name", default="fairlead-proxy", metavar="NAME")
    parser.add_argument("--token-key", type=Path, metavar="FILE")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser.parse_args(argv)


def _tls(arguments: argparse.Namespace, problems: list[str]) -> Tls | None:
    """Refuse TCP without certificates and a token key: any client of the port would get a shell."""
    files = {
        "--tls-cert": arguments.tls_cert,
        "--tls-key": arguments.tls_key,
        "--tls-client-ca": arguments.tls_client_ca,
        "--token-key": arguments.token_key,
    }
    missing = [flag for flag, path in files.items() if path is None]
    if arguments.listen.startswith("unix://"):
        if len(missing) < len(files):
            problems.append("TLS and token flags belong to --listen tcp://, not to a Unix socket")
        return None
    if missing:
        problems.append(f"TCP is served with mutual TLS and tokens only: {' '.join(missing)} missing")
        return None
    for option, path in files.items():
        if not os.access(path, os.R_OK):
            problems.append(f"{option}: {path} cannot be read")
    return Tls(
        cert=arguments.tls_cert,
        key=arguments.tls_key,
        client_ca=arguments.tls_client_ca,
        token_key=arguments.token_key,
        client_name=arguments.tls_client_name,
    )


def _check_listen(listen: str, problems: list[str]) -> None:
    scheme, _, rest = listen.partition("://")
    if scheme == "unix":
        if not rest.startswith("/"):
            problems.append("--listen unix:// needs an absolute path")
        elif len(os.fsencode(rest)) >= MAX_SOCKET_PATH_BYTES:  # one more for the name of `UnixSocket.hidden`
            problems.append(f"--listen: a socket path has fewer than {MAX_SOCKET_PATH_BYTES} bytes here")
    elif scheme == "tcp":
        host, _, port = rest.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            problems.append("--listen tcp:// needs host:port")
    else:
        problems.append("--listen must be unix:///path or tcp://host:port")


def _started_with() -> dict[str, str]:
    """Return the environment as it was at exec: an interpreter in the C locale has changed its own since."""
    try:
        entries = Path("/proc/self/environ").read_bytes().decode(errors="surrogateescape").split("\0")
    except OSError:
        return {}
    return {name: value for name, equals, value in (entry.partition("=") for entry in entries) if equals}


def load(argv: Sequence[str]) -> Settings:
    """Read the command line and the file that it names.

    Raises: SettingsError with every problem found; SystemExit for `--version`, `--help` and
    unknown flags, as argparse does.
    """
    arguments = _arguments(argv)
    problems: list[str] = []
    _check_listen(arguments.listen, problems)
    tls = _tls(arguments, problems)
    raw: object = {"workspace": "unknown"}
    try:
        raw = json.loads(arguments.config.read_bytes())
    except OSError as error:
        problems.append(f"--config: {arguments.config}: {error.strerror}")
    except ValueError as error:
        problems.append(f"--config: {arguments.config} is not JSON: {error}")
    try:
        settings = parse(
            raw, listen=arguments.listen, tls=tls, log_level=arguments.log_level, environ=_started_with()
        )
    except SettingsError as error:
        problems.extend(f"{arguments.config}: {problem}" for problem in error.problems)
    if problems:
        raise SettingsError(problems)
    return settings


def prepare_process() -> None:
    """Set the environment variables of gRPC's core; call before it is imported.

    Its fork handlers would pause every thread on each fork of the launcher's emergency path, and its
    own log would break the JSON lines. Its newer event engine passes every message through threads of its
    own, which costs a seventh of the processor time of a transfer; a release without the choice ignores it.
    """
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
