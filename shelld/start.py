"""From a request to a command: which file runs, under which argv, environment and account."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shelld import environ
from shelld.account import Account, Accounts, choose_shell
from shelld.errors import StartCode, StartError
from shelld.farewell import Farewell
from shelld.launch import Command, Launcher
from shelld.log import Log
from shelld.program import Program, start
from shelld.pty import PtySpec
from shelld.settings import INTERNAL_SFTP, Settings

_log = Log("shelld.start")

SFTP_SERVERS = (
    str(Path(__file__).parent.parent / "libexec" / "sftp-server"),  # bundled
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib/sftp-server",
    "/usr/lib64/misc/sftp-server",
)

BUILT_IN_SFTP = ""
"""The launcher serves sftp itself."""


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """What a client wants to run; nothing in it has been judged yet."""

    kind: str
    """"shell", "exec" or "subsystem"."""
    text: str = ""
    """The command line of an exec, the name of a subsystem."""
    env: Mapping[str, str] = field(default_factory=dict)
    pty: PtySpec | None = None
    account: str = ""
    ssh_agent: str = ""
    """Id of a listener; empty for none."""
    client: tuple[str, int, str, int] | None = None
    program_id: str = ""


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts programs. `ready` returns when the workspace is prepared or its time is up."""

    settings: Settings
    accounts: Accounts
    launcher: Launcher
    farewell: Farewell
    ready: Callable[[], Awaitable[None]]
    agent_socket: Callable[[str, Account], str]
    """Path of the socket of an account's listener, by its id. Raises KeyError."""

    async def start(self, spec: ProgramSpec) -> Program:
        """Start a program.

        Raises: StartError.
        """
        _check(spec)
        account = self.accounts.find(spec.account)
        await self.ready()
        command = self.command(spec, account)
        program = await start(command, account, spec.pty, launcher=self.launcher, farewell=self.farewell)
        _log.info(
            "program started",
            program_id=spec.program_id,
            pid=program.pid,
            kind=spec.kind,
            tty=program.tty,
            account=account.name,
        )
        return program

    def command(self, spec: ProgramSpec, account: Account) -> Command:
        """Choose file, argv and environment.

        Raises: StartError NOT_FOUND, INVALID.
        """
        shell = account.shell if spec.kind == "subsystem" else choose_shell(account)
        env = environ.build(
            environ.Login(
                account=account,
                shell=shell,
                term=None if spec.pty is None else spec.pty.term,
                client=spec.client,
                ssh_auth_sock=self._agent(spec, account),
            ),
            read_host(),
            client=spec.env,
            accept=self.settings.accept_env,
            blueprint=self.settings.env,
        )
        if spec.kind == "subsystem":
            path, argv = self._subsystem(spec.text)
        elif spec.kind == "exec":
            path, argv = shell, [os.path.basename(shell), "-c", spec.text]
        else:
            path, argv = shell, ["-" + os.path.basename(shell)]
        return Command(path, argv, env, account.home)

    def _agent(self, spec: ProgramSpec, account: Account) -> str:
        if not spec.ssh_agent:
            return ""
        try:
            return self.agent_socket(spec.ssh_agent, account)
        except KeyError:
            raise StartError(StartCode.INVALID, "the ssh-agent listener is gone") from None

    def _subsystem(self, name: str) -> tuple[str, list[str]]:
        if name != "sftp":
            raise StartError(StartCode.NOT_FOUND, f"the workspace has no subsystem {name[:64]!r}")
        wanted = self.settings.sftp_server
        if wanted == INTERNAL_SFTP:
            return BUILT_IN_SFTP, []
        for path in (*((wanted,) if wanted else ()), *SFTP_SERVERS):
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path, [os.path.basename(path)]
        return BUILT_IN_SFTP, []


def read_host() -> environ.Host:
    """Read what the workspace's files say about environments; missing files say nothing."""
    return environ.Host(
        environ.parse_environment(_text("/etc/environment")),
        environ.parse_login_defs(_text("/etc/login.defs")),
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _check(spec: ProgramSpec) -> None:
    """Refuse what execve could not take: a NUL ends a C string."""
    texts = [spec.text, spec.account, spec.pty.term if spec.pty else ""]
    if any("\0" in text for text in texts):
        raise StartError(StartCode.INVALID, "a command, account or terminal name holds a NUL byte")
