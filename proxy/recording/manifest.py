"""What is known of a recording beside its body: signed JSON, written when it begins and when it ends."""

import json
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from proxy.recording.signing import Keyring, SigningKey
from proxy.settings.recording import RecordKind

Format = Literal["asciicast-2", "sftp-log-1", ""]
"""Of the body; a forward has none."""


class Place(NamedTuple):
    """Where a recording is kept, in whatever store."""

    day: str
    """On which it began, as `2026-02-03` (UTC)."""
    id: str
    format: Format


class Manifest(BaseModel):
    """One recording. What a newer release added is kept out, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: RecordKind
    format: Format
    user: str
    user_string: str
    blueprint: str
    connection: str
    """The reference that the person was shown."""
    client_address: str
    fingerprint: str
    """Of the key that opened the connection."""
    has_terminal: bool = False
    command: str = ""
    target: str = ""
    """Of a forward."""
    proxy_id: str
    started_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    """None while it runs, and for ever when the proxy ended first."""
    expires_at: AwareDatetime | None = None
    """When it may be deleted; None: never."""
    end: str = ""
    """How the program ended, in words."""
    blocks: int = 0
    size: int = 0
    """Bytes of the body."""
    last: str = ""
    """Hash of the last block."""
    gaps: int = 0
    lost_bytes: int = 0
    """What the gaps left out: bytes as recorded, not as sent."""
    bytes_up: int = 0
    bytes_down: int = 0
    """Payload of a forward: from the client, to the client."""

    @property
    def place(self) -> Place:
        return Place(day_of(self.started_at), self.id, self.format)


class Signed(NamedTuple):
    """A manifest as found in the store."""

    manifest: Manifest
    key: str
    """Fingerprint of the key that is said to have signed it."""
    trusted: bool
    """Whether it is one of ours and really did."""


def day_of(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def write(manifest: Manifest, key: SigningKey) -> bytes:
    """Render and sign."""
    content = manifest.model_dump(mode="json")
    signature = key.sign(_canonical(content))
    sealed = {"recording": content, "key": key.public.fingerprint, "signature": signature}
    return json.dumps(sealed, indent=1).encode() + b"\n"


def read(raw: bytes, keyring: Keyring) -> Signed | None:
    """Read what `write` wrote; None for anything else."""
    try:
        sealed = json.loads(raw)
        manifest = Manifest.model_validate(sealed["recording"])
        fingerprint, signature = str(sealed["key"]), str(sealed["signature"])
        content = _canonical(sealed["recording"])
    except (ValueError, RecursionError, KeyError, TypeError, ValidationError):
        return None
    key = keyring.find(fingerprint)
    return Signed(manifest, fingerprint, key is not None and key.has_signed(content, signature))


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
