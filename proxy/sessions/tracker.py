"""The tracker of this process's connections: counts in memory, batches to the store, events to subscribers.

    relay ──counts──▶ LiveConnection ──begin · end──▶ Tracker ──every few seconds──▶ SessionStore
                                                        └──at once──▶ events

No login and no byte waits for it. Writes to an unavailable store are repeated. Records that end meanwhile
wait in a bounded queue; records that do not fit are dropped and counted.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events.publisher import Publisher
from proxy.model import Visit
from proxy.sessions import session_events
from proxy.sessions.clients import by_version
from proxy.sessions.live import Controls, LiveConnection, LiveProgram, storable
from proxy.sessions.records import ConnectionRecord, End, EndReason, ProgramRecord
from proxy.sessions.store import ProxyProcess, SessionStore
from proxy.settings.sessions import SessionSettings

_log = structlog.get_logger("sessions")

_BATCH = 10_000
_CONNECTIONS_PER_TURN = 500


class Tracker:
    """The tracker; one for each process."""

    def __init__(
        self, store: SessionStore, publisher: Publisher, settings: SessionSettings, proxy: ProxyProcess
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._settings = settings
        self._proxy = proxy
        self._live: dict[str, LiveConnection] = {}
        self._ended: dict[str, ConnectionRecord | ProgramRecord] = {}
        self._has_changes = asyncio.Event()
        self._is_unavailable = False
        self._published_at = datetime.min.replace(tzinfo=UTC)
        self._tasks = TaskOwner("sessions")
        self.dropped = 0
        """Records that were dropped while the store was unavailable."""

    @property
    def live(self) -> Collection[LiveConnection]:
        """Live connections, oldest first."""
        return self._live.values()

    def find(self, session: str) -> LiveConnection | LiveProgram | None:
        """Return a live connection or program by its id."""
        if connection := self._live.get(session):
            return connection
        connection = self._live.get(session.partition("-")[0])
        return connection.programs.get(session) if connection else None

    def start(self) -> None:
        """Start writing."""
        self._tasks.spawn(self._run(), name="write")

    async def close(self) -> None:
        """End open records, write the remaining changes, and deregister this process."""
        await self._tasks.close()
        for connection in tuple(self._live.values()):
            connection.ended(End(EndReason.SHUTDOWN))
        while self._ended and await self.write():
            pass
        if self._ended:
            self.dropped += len(self._ended)
            _log.error("session records lost at shutdown", records=len(self._ended))
            return
        with suppress(StoreError):
            await self._store.leave(self._proxy)

    def open(
        self, visit: Visit, client_version: str, controls: Controls, *, client_type: str = ""
    ) -> LiveConnection:
        """Open the record of a user who logged in just now; the version tells the type by default."""
        principal, client = visit.principal, visit.principal.client
        now = datetime.now(UTC)
        record = ConnectionRecord(
            id=client.conn_id,
            started_at=now,
            updated_at=now,
            proxy=self._proxy.token,
            proxy_id=self._proxy.proxy_id,
            pid=self._proxy.pid,
            user=principal.user.name,
            workspace="",
            blueprint="",
            account=storable(visit.account),
            client_address=client.host,
            client_port=client.port,
            client_version=storable(client_version[:256]),
            client_type=client_type or by_version(client_version),
            fingerprint=principal.fingerprint,
            certificate=storable(principal.certificate[:1_024]),
            owner=visit.owner.name,
        )
        connection = LiveConnection(record, controls, self, self._settings.command_chars)
        self._live[connection.id] = connection
        self._has_changes.set()
        return connection

    # ------------------------------------------------------------------- what the live ones tell

    def placed(self, connection: LiveConnection) -> None:
        """Publish a connection once workspace and blueprint are known, or cannot be found."""
        if connection.is_announced:
            return
        connection.is_announced = True
        self._publisher.publish(session_events.opened(connection.record(datetime.now(UTC))))

    def program_began(self, connection: LiveConnection, program: LiveProgram) -> None:
        """Publish the beginning of a program, and write soon."""
        self._publisher.publish(session_events.program_started(connection.user, program.begun))
        self._has_changes.set()

    def program_ended(self, connection: LiveConnection, record: ProgramRecord) -> None:
        """Publish the end of a program, and queue its record."""
        self._publisher.publish(session_events.program_ended(connection.user, record))
        self._keep(record)

    def connection_ended(self, connection: LiveConnection, record: ConnectionRecord) -> None:
        """Publish the end of a connection, and queue its record."""
        self.placed(connection)
        del self._live[connection.id]
        self._publisher.publish(session_events.closed(record))
        self._keep(record)

    def _keep(self, record: ConnectionRecord | ProgramRecord) -> None:
        self._ended[record.id] = record
        if len(self._ended) > self._settings.queue_size:
            del self._ended[next(iter(self._ended))]
            self.dropped += 1
        self._has_changes.set()

    # ----------------------------------------------------------------------------------- writing

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.write_every_s):
                    await self._has_changes.wait()
                    await asyncio.sleep(self._settings.write_soon_s)  # collects further changes
            self._has_changes.clear()
            try:
                await self.write()
                await self._publish_counts()
            except Exception:  # noqa: BLE001 (a bug in one batch must not end all later ones)
                _log.exception("session records failed")

    async def write(self) -> bool:
        """Write the changes since the last write, and the heartbeat of this process.

        Return False when the store did not take it; it is repeated with the next write.
        """
        ended = dict(list(self._ended.items())[:_BATCH])
        batch = _Batch(datetime.now(UTC))
        for record in ended.values():
            batch.add(record)
        for number, connection in enumerate(tuple(self._live.values())):
            if number % _CONNECTIONS_PER_TURN == 0:
                await asyncio.sleep(0)
            batch.add_changes(connection)
        try:
            is_known = await self._store.write(self._proxy, batch.at, batch.connections, batch.programs)
        except StoreError as exc:
            for one in batch.live:
                one.written_total = -1
            self._log_outage(str(exc))
            return False
        self._log_outage("")
        for id_, record in ended.items():
            if self._ended.get(id_) is record:
                del self._ended[id_]
        if not is_known:
            self._mark_all_unwritten()
        return True

    def _mark_all_unwritten(self) -> None:
        """Mark all live records as unwritten, because the store may have closed them as lost."""
        for connection in self._live.values():
            connection.written_total = -1
            for program in connection.programs.values():
                program.written_total = -1
        if self._live:
            self._has_changes.set()

    def _log_outage(self, reason: str) -> None:
        """Log an outage once when it begins and once when it ends."""
        if reason and not self._is_unavailable:
            _log.warning("session records cannot be written", reason=reason)
        elif not reason and self._is_unavailable:
            _log.info("session records are written again", dropped=self.dropped)
        self._is_unavailable = bool(reason)

    async def _publish_counts(self) -> None:
        now = datetime.now(UTC)
        if (now - self._published_at).total_seconds() < self._settings.event_every_s:
            return
        self._published_at = now
        for number, connection in enumerate(tuple(self._live.values())):
            if number % _CONNECTIONS_PER_TURN == 0:
                await asyncio.sleep(0)
            if (
                connection.is_open
                and connection.is_announced
                and connection.bytes_total != connection.published_total
            ):
                connection.published_total = connection.bytes_total
                self._publisher.publish(session_events.updated(connection.record(now)))


class _Batch:
    """The records of one transaction."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.connections: list[ConnectionRecord] = []
        self.programs: list[ProgramRecord] = []
        self.live: list[LiveConnection | LiveProgram] = []

    def add(self, record: ConnectionRecord | ProgramRecord) -> None:
        if isinstance(record, ConnectionRecord):
            self.connections.append(record)
        else:
            self.programs.append(record)

    def add_changes(self, connection: LiveConnection) -> None:
        """Add the differences from the store; an end is added by itself."""
        if not connection.is_open:
            return
        everything: list[LiveConnection | LiveProgram] = [connection, *connection.programs.values()]
        for one in everything:
            total = one.bytes_total
            if one.written_total != total:
                one.written_total = total
                self.live.append(one)
                self.add(one.record(self.at))
