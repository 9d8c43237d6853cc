"""Conversion of notices about recordings into events. Pure."""

from proxy.events import schema
from proxy.recording.recorder import RecordingNotice


def event_of(news: RecordingNotice) -> schema.Event:
    """Return the event of a notice."""
    manifest = news.manifest
    user, connection, kind = manifest.user, manifest.connection, manifest.kind
    if news.what == "closed":
        return schema.RecordingClosed(
            user=user,
            connection_id=connection,
            recording_id=manifest.id,
            kind=kind,
            complete=news.complete,
            gaps=manifest.gaps,
            blocks=manifest.blocks,
            hash=manifest.last,
        )
    event = schema.RecordingLostEvent if news.what == "lost" else schema.RecordingInterrupted
    return event(user=user, connection_id=connection, recording_id=manifest.id, kind=kind)
