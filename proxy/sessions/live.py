"""Connections and programs while they last: who they are, how far their counts have come, how to reach them.

Counting costs the relay one addition a piece: it counts for itself, and is asked here every few seconds.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from proxy.octets import shown
from proxy.sessions.clients import by_command
from proxy.sessions.records import ConnectionRecord, End, Kind, ProgramRecord

PROGRAMS = frozenset({Kind.SHELL, Kind.EXEC, Kind.SFTP, Kind.SCP, Kind.RSYNC, Kind.GIT})
"""Kinds that are a program in the workspace; the others are connections."""


class Traffic(Protocol):
    """Payload that a channel has carried so far; only ever grows."""

    @property
    def from_client(self) -> int: ...

    @property
    def to_client(self) -> int: ...


class NoTraffic:
    """Of a listener, whose connections count for themselves."""

    from_client = 0
    to_client = 0


class Controls(Protocol):
    """What can be done to a connection or a program from outside; never waits, and harmless after its end."""

    def warn(self, sentence: str) -> None:
        """Tell the person, where there is a place for it."""

    def end(self, sentence: str, end: End) -> None:
        """End it, and say why."""


class LiveProgram:
    """One program, forward, listener or ssh-agent connection."""

    def __init__(
        self,
        owner: "LiveConnection",
        record: ProgramRecord,
        traffic: Traffic,
        controls: Controls,
    ) -> None:
        self._owner = owner
        self.begun = record
        """As of its beginning."""
        self.traffic = traffic
        self.controls = controls
        self.written_total = -1
        """Bytes as the store last took them; -1 when it has to take the record anew."""

    @property
    def id(self) -> str:
        return self.begun.id

    @property
    def kind(self) -> Kind:
        return Kind(self.begun.kind)

    @property
    def bytes_total(self) -> int:
        return self.traffic.from_client + self.traffic.to_client

    def record(self, now: datetime) -> ProgramRecord:
        """Give what is known as of `now`."""
        return replace(
            self.begun,
            updated_at=now,
            bytes_from_client=self.traffic.from_client,
            bytes_to_client=self.traffic.to_client,
        )

    def ended(self, end: End) -> None:
        """Close the record; only the first end counts."""
        self._owner.program_ended(self, end)


class LiveConnection:
    """One connection from login to its end."""

    def __init__(
        self, record: ConnectionRecord, controls: Controls, tell: "Tell", command_chars: int
    ) -> None:
        self._begun = record
        self._tell = tell
        self._command_chars = command_chars
        self._from_client = 0
        self._to_client = 0
        self._count = 0
        self.controls = controls
        self.programs: dict[str, LiveProgram] = {}
        self.written_total = -1
        """As of a program."""
        self.told_total = 0
        """Bytes as events last told."""
        self.version = 0
        """Grows when there is news besides counts."""
        self.is_announced = False
        """Whether an event told that it is there."""
        self.is_open = True

    @property
    def id(self) -> str:
        return self._begun.id

    @property
    def user(self) -> str:
        return self._begun.user

    @property
    def bytes_total(self) -> int:
        ended = self._from_client + self._to_client
        return ended + sum(program.bytes_total for program in self.programs.values())

    def placed(self, workspace: str, blueprint: str) -> None:
        """Learn where the connection leads; empty names when that cannot be told."""
        self._begun = replace(self._begun, workspace=workspace, blueprint=blueprint)
        self.written_total = -1
        self.version += 1
        self._tell.placed(self)

    def record(self, now: datetime) -> ConnectionRecord:
        """Give what is known as of `now`."""
        live = self.programs.values()
        return replace(
            self._begun,
            updated_at=now,
            bytes_from_client=self._from_client + sum(program.traffic.from_client for program in live),
            bytes_to_client=self._to_client + sum(program.traffic.to_client for program in live),
        )

    def begin(
        self,
        kind: Kind,
        traffic: Traffic,
        controls: Controls,
        *,
        command: str = "",
        target: str = "",
        pty: bool = False,
    ) -> LiveProgram:
        """Open the record of something that begins now."""
        self._count += 1
        if client_type := by_command(command):
            self._begun = replace(self._begun, client_type=client_type)
            self.written_total = -1
        now = datetime.now(UTC)
        record = ProgramRecord(
            id=f"{self.id}-{self._count}",
            started_at=now,
            updated_at=now,
            connection=self.id,
            kind=kind.value,
            command=storable(command[: self._command_chars])[: self._command_chars],
            target=storable(target[:1_024])[:1_024],
            pty=pty,
        )
        self.version += 1
        program = self.programs[record.id] = LiveProgram(self, record, traffic, controls)
        self._tell.program_began(self, program)
        return program

    def program_ended(self, program: LiveProgram, end: End) -> None:
        """Close the record of a program; see LiveProgram.ended."""
        if self.programs.pop(program.id, None) is None:
            return
        self.version += 1
        now = datetime.now(UTC)
        record = program.record(now)
        self._from_client += record.bytes_from_client
        self._to_client += record.bytes_to_client
        ended = replace(
            record,
            ended_at=now,
            end_reason=end.reason.value,
            end_detail=storable(end.detail[:1_024]),
            ended_by=storable(end.by),
            exit_status=end.exit_status,
            exit_signal=storable(end.exit_signal[:64]),
        )
        self._tell.program_ended(self, ended)

    def ended(self, end: End) -> None:
        """Close the record, and those of programs that did not end before; only the first end counts."""
        if not self.is_open:
            return
        self.is_open = False
        for program in tuple(self.programs.values()):
            program.ended(end)
        now = datetime.now(UTC)
        ended = replace(
            self.record(now),
            ended_at=now,
            end_reason=end.reason.value,
            end_detail=storable(end.detail[:1_024]),
            ended_by=storable(end.by),
        )
        self._tell.connection_ended(self, ended)


class Tell(Protocol):
    """Who hears of beginnings and ends."""

    def placed(self, connection: LiveConnection) -> None: ...
    def program_began(self, connection: LiveConnection, program: LiveProgram) -> None: ...
    def program_ended(self, connection: LiveConnection, record: ProgramRecord) -> None: ...
    def connection_ended(self, connection: LiveConnection, record: ConnectionRecord) -> None: ...


def storable(text: str) -> str:
    """Show bytes that are not UTF-8, and replace what else a database takes for no text."""
    return shown(text).encode("utf-8", "replace").decode().replace("\0", "\ufffd")
