"""The recordings of this process: the decision on each, its beginning, and its task."""

from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import RecordingUnavailable
from proxy.model import Exec, ProgramSpec, Subsystem, Visit
from proxy.octets import shown
from proxy.recording import asciicast, sftplog
from proxy.recording.manifest import Format, Manifest
from proxy.recording.recorder import (
    ForwardRecorder,
    ForwardTraffic,
    Job,
    Publish,
    Recorder,
    SftpRecorder,
    TerminalRecorder,
)
from proxy.recording.retention import Sweeper
from proxy.recording.rules import BlueprintFacts, Terms, kinds_of, terms_for
from proxy.recording.signing import Keyring, SigningKey
from proxy.recording.spool import Budget, SpoolContext
from proxy.recording.store import RecordingStore
from proxy.settings.recording import RecordingSettings, RecordKind
from proxy.userstring import format_user_string

_log = structlog.get_logger("recording")

_UNAVAILABLE = "this session has to be recorded, and recordings cannot be stored right now"


class Recordings:
    """All recordings of this process; one for each process."""

    def __init__(
        self,
        settings: RecordingSettings,
        store: RecordingStore,
        key: SigningKey,
        keyring: Keyring,
        *,
        proxy_id: str,
        publish: Publish,
    ) -> None:
        """Create it; `key` signs, and expired recordings are deleted only when `keyring` verifies them."""
        self._settings = settings
        self._context = SpoolContext(settings, store, Budget(settings.total_buffer_bytes))
        self._key = key
        self._proxy_id = proxy_id
        self._publish = publish
        self._tasks = TaskOwner("recordings")
        self._live: set[Recorder] = set()
        self._sweeper = Sweeper(store, settings, keyring)

    def start(self) -> None:
        """Start the deletion of expired recordings."""
        self._tasks.spawn(self._sweeper.run(), name="sweep")

    async def program(
        self,
        visit: Visit,
        spec: ProgramSpec,
        blueprint: BlueprintFacts,
        program_id: str,
    ) -> Recorder | None:
        """Begin the recording of a program; return None when it is not recorded.

        Raises: RecordingUnavailable when it may not run unrecorded and cannot be recorded.
        """
        kinds = kinds_of(spec)
        terms = terms_for(self._settings, visit.actor, blueprint, kinds)
        if terms is None:
            return None
        command = shown(spec.kind.command) if isinstance(spec.kind, Exec) else ""
        is_sftp = isinstance(spec.kind, Subsystem)
        manifest = self._manifest(
            visit,
            terms,
            kinds[0],
            id=program_id,
            format=sftplog.FORMAT if is_sftp else asciicast.FORMAT,
            blueprint=blueprint.name,
            has_terminal=spec.pty is not None,
            command=command,
        )
        about = {"id": program_id, "user": visit.actor.name, "kind": kinds[0]}
        title = f"{manifest.user_string}: {command or kinds[0]}"
        timestamp = int(manifest.started_at.timestamp())
        job = Job(self._context, self._key, manifest, terms, self._publish)
        recorder: Recorder
        if is_sftp:
            header = sftplog.header(timestamp=timestamp, title=title, about=about)
            recorder = SftpRecorder(job, header=header)
        else:
            header = asciicast.header(
                spec, timestamp=timestamp, title=title, shell=blueprint.shell or "", about=about
            )
            recorder = TerminalRecorder(job, header=header, has_terminal=spec.pty is not None)
        await self._begin(recorder, terms)
        return recorder

    async def forward(
        self,
        visit: Visit,
        target: str,
        blueprint: BlueprintFacts,
        forward_id: str,
        traffic: ForwardTraffic,
    ) -> ForwardRecorder | None:
        """Begin the recording of a forward; return None when it is not recorded.

        Raises: RecordingUnavailable, as above.
        """
        terms = terms_for(self._settings, visit.actor, blueprint, ("forward",))
        if terms is None:
            return None
        manifest = self._manifest(
            visit, terms, "forward", id=forward_id, format="", blueprint=blueprint.name, target=target
        )
        job = Job(self._context, self._key, manifest, terms, self._publish)
        recorder = ForwardRecorder(job, traffic=traffic)
        await self._begin(recorder, terms)
        return recorder

    @property
    def held_bytes(self) -> int:
        """Return the bytes that wait for storage."""
        return self._context.budget.used

    async def close(self) -> None:
        """End all recordings, and give them `close_timeout_s` to be stored."""
        for recorder in tuple(self._live):
            recorder.close()
        self._sweeper.stop()
        await self._tasks.close(grace_s=self._settings.close_timeout_s)
        await self._context.store.close()

    async def _begin(self, recorder: Recorder, terms: Terms) -> None:
        self._live.add(recorder)
        task = self._tasks.spawn(recorder.keep(), name=recorder.id)
        task.add_done_callback(lambda _: self._live.discard(recorder))
        if terms.on_failure == "refuse" and not await recorder.is_stored(self._settings.open_timeout_s):
            recorder.close()
            raise RecordingUnavailable("storage of recordings is down", user_message=_UNAVAILABLE)

    def _manifest(
        self,
        visit: Visit,
        terms: Terms,
        kind: RecordKind,
        *,
        id: str,
        format: Format,
        **more: Any,
    ) -> Manifest:
        now = datetime.now(UTC)
        days = terms.retention_days
        return Manifest(
            id=id,
            kind=kind,
            format=format,
            user=visit.actor.name,
            user_string=format_user_string(visit.address),
            connection=visit.principal.client.conn_id,
            client_address=visit.principal.client.host,
            fingerprint=visit.principal.fingerprint,
            proxy_id=self._proxy_id,
            started_at=now,
            # One without an orderly end is kept a day longer than it might have run.
            expires_at=None if days is None else now + timedelta(days=days + 1),
            **more,
        )
