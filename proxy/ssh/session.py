"""The session channel: its requests become a `ProgramRequest`, and the program's end becomes its exit."""

import asyncio
from collections.abc import Mapping
from typing import cast

import asyncssh

from proxy.access.policy import SUBSYSTEMS
from proxy.access.program import ProgramContext, ProgramRequest, ProgramRun
from proxy.access.relay import Inbound, Outbound
from proxy.model import Exec, Exit, ExitStatus, Pty, Shell, Subsystem, WindowSize
from proxy.octets import text_of
from proxy.ssh.asyncssh_ext.channels import SessionChannel
from proxy.ssh.asyncssh_ext.variables import AcceptedNames
from proxy.ssh.forced import force
from proxy.ssh.served import Served
from proxy.ssh.sshagent import SshAgent
from proxy.upstream.frame_codec import Buffer

_TERM_CHARS = 256
"""Longest name of a terminal; a request with a longer name is refused."""


class ProgramSession(asyncssh.SSHServerSession[bytes]):
    """The SSH end of one program."""

    def __init__(self, served: Served, ssh_agent: SshAgent) -> None:
        """Begin without a program; `ssh_agent` is that of the connection."""
        self._served = served
        self._ssh_agent = ssh_agent
        self._inbound = Inbound(served.relay.buffer_bytes)
        self._outbound = Outbound(served.conn.writable)
        self._chan: SessionChannel | None = None
        self._request = ProgramRequest()
        self._env_bytes = 0
        self._has_kind = False
        context = ProgramContext(
            conn_id=served.conn_id,
            visit=served.visit,
            live=served.live,
            gateway=served.gateway,
            limits=served.limits,
            tasks=served.tasks,
            log=served.log,
        )
        self._run = ProgramRun(context, self._request, self._inbound, self._outbound)
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ requests before the program

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Attach the channel to both buffers."""
        self._chan = cast(SessionChannel, chan)
        self._inbound.attach(self._chan)
        self._outbound.attach(self._chan)

    def env_requested(self, name: bytes, value: bytes) -> bool:
        """Store a variable whose name the workspace takes, as far as is known (RFC 4254 §6.4)."""
        if not self._served.accepted_names.take(name.decode(errors="replace")):
            return False
        request, limits = self._request, self._served.limits
        self._env_bytes += len(name) + len(value)
        if len(request.env) >= limits.max_env_variables or self._env_bytes > limits.max_env_bytes:
            request.env_left_out += 1
            return False
        try:
            request.env[name.decode()] = text_of(value)
        except UnicodeDecodeError:  # no program may be given a variable of such a name
            return False
        return True

    @property
    def accepted_names(self) -> AcceptedNames:
        """See ChannelRequests."""
        return self._served.accepted_names

    def ssh_agent_requested(self) -> bool:
        """Record that this channel's program gets the client's ssh-agent."""
        self._request.use_ssh_agent = self._ssh_agent.use
        return True

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        """Store the terminal's name, size and modes for the program."""
        if self._has_kind:
            return False  # the program already runs without a terminal
        if len(term_type) > _TERM_CHARS:
            return False
        self._request.pty = Pty(term_type, WindowSize(*term_size), dict(term_modes))
        return True

    def shell_requested(self) -> bool:
        """Accept a shell."""
        return self._asked(Shell())

    def exec_requested(self, command: str) -> bool:
        """Accept a command."""
        return self._asked(Exec(command))

    def subsystem_requested(self, subsystem: str) -> bool:
        """Accept a subsystem; an unknown one is refused when it starts, with a sentence."""
        return subsystem in SUBSYSTEMS and self._asked(Subsystem(subsystem))

    def _asked(self, kind: Shell | Exec | Subsystem) -> bool:
        """Store the request of the client, or the command that its certificate forces."""
        assert self._chan is not None
        request = self._request
        self._has_kind = True
        request.kind = kind
        request.user_rc = self._chan.permits_user_rc
        if (command := self._chan.forced_command) is not None:
            forced = force(command, kind)
            request.kind = forced.kind
            request.original_command = forced.original_command
            request.refusal = forced.refusal
        return True

    # ------------------------------------------------------------------------------- the program

    def session_started(self) -> None:
        """Start the task of the program."""
        self._task = self._served.tasks.spawn(self._live(), name="program")

    async def _live(self) -> None:
        """Run the program and end the channel: output, then exit-status or exit-signal, then close.

        EOF is never sent before the status (RFC 4254 §6.10): some clients close at once on EOF.
        """
        await self._served.openings.begin()
        self._end(await self._run.run())

    def _end(self, end: Exit) -> None:
        chan = self._chan
        if chan is None or chan.is_closing():
            return
        if isinstance(end, ExitStatus):
            chan.exit(end.status)
        else:
            chan.exit_with_signal(end.name, end.core_dumped)

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Pass the terminal's new size on."""
        self._run.resize(WindowSize(width, height, pixwidth, pixheight))

    def signal_received(self, signal: str) -> None:
        """Pass a signal on."""
        self._run.signal(signal)

    def break_received(self, msec: int) -> bool:
        """Pass a break on (RFC 4335)."""
        return self._run.send_break(msec)

    def reader_left(self) -> None:
        """Close the program's stdout, because the client's end of it is closed."""
        self._run.reader_left()

    def data_received(self, data: Buffer, datatype: int | None) -> None:
        """Store input for the program."""
        if datatype is None:
            self._inbound.feed(data)

    def eof_received(self) -> bool:
        """Record the EOF of stdin, and keep the channel open for the program's output."""
        self._inbound.feed_eof()
        return True  # the program's output goes on

    def pause_writing(self) -> None:
        """Stop writing while the channel's send buffer is full."""
        self._outbound.gate.shut()

    def resume_writing(self) -> None:
        """Continue writing."""
        self._outbound.gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the program: the channel is closed."""
        del exc
        self._outbound.gate.open()
        if not self._served.conn.is_over:  # else the record ends with that of the connection
            self._run.client_left()
        if self._task is not None:
            self._task.cancel()
