"""The command for a request: file, argv, environment and account."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shelld import bundle
from shelld.errors import StartCode, StartError
from shelld.launch.account import Account, Accounts, choose_shell, has_shell
from shelld.launch.launch import Command, Launcher
from shelld.log import Log
from shelld.programs import environ, static_command
from shelld.programs.hangup import SessionTerminator
from shelld.programs.program import Program, start
from shelld.programs.pty import PtySpec
from shelld.programs.sftpserver import SftpServers
from shelld.settings import Settings

_log = Log("shelld.programs.command")


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A client's request for a program, unchecked."""

    kind: str
    """"shell", "exec", "subsystem", or "own" for a program of shelld, which no client can ask for."""
    text: str = ""
    """The command line of an exec, the name of a subsystem, the module of a program of shelld."""
    env: Mapping[str, str] = field(default_factory=dict)
    pty: PtySpec | None = None
    account: str = ""
    ssh_agent: str = ""
    """Id of a listener; empty for none."""
    client: tuple[str, int, str, int] | None = None
    program_id: str = ""
    original_command: str = ""
    """The client's command where a certificate replaced it by another."""
    user_rc: bool = False
    """Whether the client's key permits `~/.ssh/rc`."""


@dataclass(frozen=True, slots=True)
class ProgramStarter:
    """The start of programs. `ready` returns when the workspace is prepared or its deadline has passed."""

    settings: Settings
    accounts: Accounts
    launcher: Launcher
    terminator: SessionTerminator
    ready: Callable[[], Awaitable[None]]
    agent_socket: Callable[[str, Account], str]
    """Path of the socket of an account's listener, by its id. Raises KeyError."""
    sftp_servers: SftpServers

    async def start(self, spec: ProgramSpec) -> Program:
        """Start a program.

        Raises: StartError.
        """
        _check(spec)
        account = self.accounts.find(spec.account)
        await self.ready()
        command = self.command(spec, account)
        program = await start(command, account, spec.pty, launcher=self.launcher, terminator=self.terminator)
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

        Raises: StartError NOT_FOUND, NOT_EXECUTABLE, INVALID, RESOURCES.
        """
        needs_shell = spec.kind == "shell" or (spec.kind == "exec" and has_shell(account))
        shell = choose_shell(account) if needs_shell else account.shell
        env = environ.build(
            environ.Login(
                account=account,
                shell=shell,
                term=None if spec.pty is None else spec.pty.term,
                client=spec.client,
                ssh_auth_sock=self._agent(spec, account),
                original_command=spec.original_command,
            ),
            read_host(self.settings),
            client=spec.env,
            accept=self.settings.accept_env,
            blueprint=self.settings.env,
        )
        if spec.kind == "own":
            argv = bundle.own_program(spec.text)
            return Command(argv[0], argv, env, account.home)
        if spec.kind == "subsystem":
            return self._subsystem(spec.text, account, env)
        if not needs_shell:
            argv = static_command.words(spec.text)
            return Command(static_command.locate(argv[0], env["PATH"], account.home), argv, env, account.home)
        argv = [os.path.basename(shell), "-c", spec.text]
        if spec.kind == "shell":
            argv = ["-" + os.path.basename(shell)]
        rc_shell = shell if self.settings.user_rc and spec.user_rc else ""
        return Command(shell, argv, env, account.home, rc_shell)

    def _agent(self, spec: ProgramSpec, account: Account) -> str:
        if not spec.ssh_agent:
            return ""
        try:
            return self.agent_socket(spec.ssh_agent, account)
        except KeyError:
            raise StartError(StartCode.INVALID, "the ssh-agent listener is gone") from None

    def _subsystem(self, name: str, account: Account, env: Mapping[str, str]) -> Command:
        if name != "sftp":
            raise StartError(StartCode.NOT_FOUND, f"the workspace has no subsystem {name[:64]!r}")
        path, argv, needed = self.sftp_servers.choose(account)
        return Command(path, argv, {**env, **needed}, account.home)


def read_host(settings: Settings) -> environ.Host:
    """Read the environment files of the workspace; missing files are empty."""
    return environ.Host(
        environ.parse_environment(_text("/etc/environment")),
        environ.parse_login_defs(_text("/etc/login.defs")),
        settings.container_env,
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _check(spec: ProgramSpec) -> None:
    """Refuse text that execve could not take: a NUL ends a C string."""
    texts = [spec.text, spec.original_command, spec.account, spec.pty.term if spec.pty else ""]
    if any("\0" in text for text in texts):
        raise StartError(StartCode.INVALID, "a command, account or terminal name holds a NUL byte")
