"""The manifest of a recording: signed JSON, written at its beginning and at its end."""

import json
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from proxy.recording.signing import Keyring, SigningKey
from proxy.settings.recording import RecordKind

Format = Literal["asciicast-2", "sftp-log-1", ""]
"""Format of the body; a forward has none."""


class Place(NamedTuple):
    """The name of a recording in any store."""

    day: str
    """Day of its beginning, as `2026-02-03` (UTC)."""
    id: str
    format: Format


class Manifest(BaseModel):
    """The facts about one recording. Unknown fields of a newer release are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: RecordKind
    format: Format
    user: str
    user_string: str
    blueprint: str
    connection: str
    """The connection id, which users see as reference."""
    client_address: str
    fingerprint: str
    """Fingerprint of the key that opened the connection."""
    has_terminal: bool = False
    command: str = ""
    target: str = ""
    """Target of a forward."""
    proxy_id: str
    started_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    """None while it runs, and for ever when the proxy ended first."""
    expires_at: AwareDatetime | None = None
    """Time of deletion; None: never."""
    end: str = ""
    """The end of the program, in words."""
    blocks: int = 0
    size: int = 0
    """Bytes of the body."""
    last: str = ""
    """Hash of the last block."""
    gaps: int = 0
    lost_bytes: int = 0
    """Bytes in gaps, as they would have been recorded."""
    bytes_up: int = 0
    bytes_down: int = 0
    """Payload of a forward: from the client, to the client."""

    @property
    def place(self) -> Place:
        """Return the place of the recording in the store."""
        return Place(day_of(self.started_at), self.id, self.format)


class Signed(NamedTuple):
    """A manifest as found in the store."""

    manifest: Manifest
    key: str
    """Fingerprint of the key that is named as the signer."""
    trusted: bool
    """Whether the key is in the keyring and the signature is valid."""


def day_of(moment: datetime) -> str:
    """Return the day of a moment, in UTC."""
    return moment.strftime("%Y-%m-%d")


def write(manifest: Manifest, key: SigningKey) -> bytes:
    """Serialise and sign."""
    content = manifest.model_dump(mode="json")
    signature = key.sign(_canonical(content))
    sealed = {"recording": content, "key": key.public.fingerprint, "signature": signature}
    return json.dumps(sealed, indent=1).encode() + b"\n"


def read(raw: bytes, keyring: Keyring) -> Signed | None:
    """Parse the output of `write`; return None for anything else."""
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
