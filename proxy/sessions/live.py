"""Live connections and programs: their records, their byte counts, and the means to warn or end them.

Counting costs the relay one addition for each piece. The relay counts for itself, and is asked for its counts
every few seconds.
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
    """Payload bytes that a channel has carried so far; counts never decrease."""

    @property
    def from_client(self) -> int:
        """Return the bytes from the client."""

    @property
    def to_client(self) -> int:
        """Return the bytes to the client."""


class NoTraffic:
    """The counts of a listener: zero, because its connections count for themselves."""

    from_client = 0
    to_client = 0


class Controls(Protocol):
    """Controls of a connection or a program for operators and limits.

    They never wait, and do nothing after its end.
    """

    def warn(self, sentence: str) -> None:
        """Show a sentence to the user, where there is a place for it."""

    def end(self, sentence: str, end: End) -> None:
        """End it, with a sentence for the user and a reason for the record."""


class LiveProgram:
    """One live program, forward, listener or ssh-agent connection."""

    def __init__(
        self,
        owner: "LiveConnection",
        record: ProgramRecord,
        traffic: Traffic,
        controls: Controls,
    ) -> None:
        self._owner = owner
        self.begun = record
        """The record as of its beginning."""
        self.traffic = traffic
        self.controls = controls
        self.written_total = -1
        """Byte count that the store has; -1 when the whole record has to be written again."""

    @property
    def id(self) -> str:
        """Id of the record."""
        return self.begun.id

    @property
    def user(self) -> str:
        """Name of the user."""
        return self._owner.user

    @property
    def kind(self) -> Kind:
        """Kind of the program or connection."""
        return Kind(self.begun.kind)

    @property
    def bytes_total(self) -> int:
        """Return the bytes in both directions."""
        return self.traffic.from_client + self.traffic.to_client

    def record(self, now: datetime) -> ProgramRecord:
        """Return the record as of `now`."""
        return replace(
            self.begun,
            updated_at=now,
            bytes_from_client=self.traffic.from_client,
            bytes_to_client=self.traffic.to_client,
        )

    def ended(self, end: End) -> None:
        """Close the record; only the first call counts."""
        self._owner.program_ended(self, end)


class LiveConnection:
    """One live connection from login to its end."""

    def __init__(
        self, record: ConnectionRecord, controls: Controls, observer: "SessionObserver", command_chars: int
    ) -> None:
        self._begun = record
        self._observer = observer
        self._command_chars = command_chars
        self._from_client = 0
        self._to_client = 0
        self._count = 0
        self.controls = controls
        self.programs: dict[str, LiveProgram] = {}
        self.written_total = -1
        """As of a program."""
        self.published_total = 0
        """Byte count in the last published event."""
        self.version = 0
        """Incremented for every change except counts."""
        self.is_announced = False
        """Whether the event of its beginning was published."""
        self.is_open = True

    @property
    def id(self) -> str:
        """Id of the record."""
        return self._begun.id

    @property
    def user(self) -> str:
        """Name of the user."""
        return self._begun.user

    @property
    def bytes_total(self) -> int:
        """Return the bytes of all programs in both directions."""
        ended = self._from_client + self._to_client
        return ended + sum(program.bytes_total for program in self.programs.values())

    def placed(self, workspace: str, blueprint: str) -> None:
        """Set workspace and blueprint; empty names when they are unknown."""
        self._begun = replace(self._begun, workspace=workspace, blueprint=blueprint)
        self.written_total = -1
        self.version += 1
        self._observer.placed(self)

    def record(self, now: datetime) -> ConnectionRecord:
        """Return the record as of `now`."""
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
        """Open the record of a program or connection that begins now."""
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
        self._observer.program_began(self, program)
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
        self._observer.program_ended(self, ended)

    def ended(self, end: End) -> None:
        """Close the record, and those of programs that have not ended; only the first call counts."""
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
        self._observer.connection_ended(self, ended)


class SessionObserver(Protocol):
    """An observer of beginnings and ends."""

    def placed(self, connection: LiveConnection) -> None:
        """Handle that workspace and blueprint of a connection are known or cannot be found."""

    def program_began(self, connection: LiveConnection, program: LiveProgram) -> None:
        """Handle the beginning of a program."""

    def program_ended(self, connection: LiveConnection, record: ProgramRecord) -> None:
        """Handle the end of a program."""

    def connection_ended(self, connection: LiveConnection, record: ConnectionRecord) -> None:
        """Handle the end of a connection."""


def storable(text: str) -> str:
    """Show bytes that are not UTF-8, and replace the other characters that a database rejects in text."""
    return shown(text).encode("utf-8", "replace").decode().replace("\0", "\ufffd")
