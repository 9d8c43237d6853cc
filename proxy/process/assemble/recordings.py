"""The recording service and the archive, from the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.errors import SettingsError
from proxy.process.assemble.common import Common
from proxy.process.parts import running
from proxy.recording.archive import Archive
from proxy.recording.directory import DirectoryStore
from proxy.recording.recorder import RecordingNotice
from proxy.recording.recording_events import event_of
from proxy.recording.service import Recordings
from proxy.recording.signing import Keyring, load_or_create, load_public
from proxy.recording.store import RecordingStore
from proxy.settings import Settings
from proxy.settings.recording import RecordingSettings

if TYPE_CHECKING:
    from proxy.recording.objects import ObjectStore


@asynccontextmanager
async def open_recordings(common: Common) -> AsyncIterator[Recordings]:
    """Hold the recording service; its key is created if there is none yet.

    Raises: SettingsError.
    """
    settings = common.settings
    key = load_or_create(settings.recording_key_file)
    keyring = _keyring(settings.recording, settings.recording_key_file)
    store = open_store(settings.recording, settings.recording_dir)

    def publish(news: RecordingNotice) -> None:
        common.bus.publish(event_of(news))

    proxy_id = settings.proxy_id
    recordings = Recordings(settings.recording, store, key, keyring, proxy_id=proxy_id, publish=publish)
    async with running(recordings):
        yield recordings


def open_archive(settings: Settings) -> Archive:
    """Create the reader of recordings; no key is created. Raises: SettingsError."""
    keyring = _keyring(settings.recording, settings.recording_key_file)
    return Archive(open_store(settings.recording, settings.recording_dir), keyring)


def _keyring(settings: RecordingSettings, own: Path) -> Keyring:
    keys = [load_public(file) for file in settings.trusted_key_files]
    if own.exists():
        keys.append(load_or_create(own).public)
    return Keyring(keys)


def open_store(settings: RecordingSettings, directory: Path) -> RecordingStore:
    """Return the store that the settings name, which is not asked yet. Raises: SettingsError."""
    if settings.store == "directory":
        return DirectoryStore(directory)
    return open_bucket(settings)


def open_bucket(settings: RecordingSettings) -> "ObjectStore":
    """Return the bucket that the settings name, which is not asked yet. Raises: SettingsError."""
    try:
        from proxy.recording.objects import ObjectStore  # an optional extra of 15 MB
    except ImportError as exc:
        raise SettingsError(f"recording.store: s3 needs the package of the extra `s3`: {exc}") from exc
    return ObjectStore(settings.s3, timeout_s=settings.write_timeout_s)
