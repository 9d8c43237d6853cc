"""From settings to a store, a key and those that are trusted."""

from pathlib import Path
from typing import TYPE_CHECKING

from proxy.errors import SettingsError
from proxy.events.publisher import Publisher
from proxy.recording.archive import Archive
from proxy.recording.directory import DirectoryStore
from proxy.recording.recorder import News
from proxy.recording.recording_events import event_of
from proxy.recording.service import Recordings
from proxy.recording.signing import Keyring, load_or_create, load_public
from proxy.recording.store import Store
from proxy.settings import Settings
from proxy.settings.recording import RecordingSettings

if TYPE_CHECKING:
    from proxy.recording.objects import ObjectStore


def open_recordings(settings: Settings, publisher: Publisher) -> Recordings:
    """Make what records, and its key when there is none yet.

    Raises: SettingsError.
    """
    key = load_or_create(settings.recording_key_file)
    keyring = _keyring(settings.recording, settings.recording_key_file)
    store = open_store(settings.recording, settings.recording_dir)

    def tell(news: News) -> None:
        publisher.publish(event_of(news))

    return Recordings(settings.recording, store, key, keyring, proxy_id=settings.proxy_id, tell=tell)


def open_archive(settings: Settings) -> Archive:
    """Make what reads recordings; makes no key. Raises: SettingsError."""
    keyring = _keyring(settings.recording, settings.recording_key_file)
    return Archive(open_store(settings.recording, settings.recording_dir), keyring)


def _keyring(settings: RecordingSettings, own: Path) -> Keyring:
    keys = [load_public(file) for file in settings.trusted_key_files]
    if own.exists():
        keys.append(load_or_create(own).public)
    return Keyring(keys)


def open_store(settings: RecordingSettings, directory: Path) -> Store:
    """Return the store that the settings name, which is not asked yet. Raises: SettingsError."""
    if settings.store == "directory":
        return DirectoryStore(directory)
    return open_bucket(settings)


def open_bucket(settings: RecordingSettings) -> "ObjectStore":
    """Return the bucket that the settings name, which is not asked yet. Raises: SettingsError."""
    try:
        from proxy.recording.objects import ObjectStore  # an extra, and 15 MB
    except ImportError as exc:
        raise SettingsError(f"recording.store: s3 needs the package of the extra `s3`: {exc}") from exc
    return ObjectStore(settings.s3, timeout_s=settings.write_timeout_s)
