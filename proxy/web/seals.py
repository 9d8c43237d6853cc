"""Values of our own that are recognised without a look-up, and texts that only we can read.

Every replica of an installation has the same key. A cookie value that this installation never issued is
refused before anything is asked of a store, and is never adopted (session fixation).
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_RANDOM_BYTES, _TAG_BYTES, _NONCE_BYTES = 24, 16, 12
ISSUED_AT = "issued_at"
"""Key of the seconds since 1970 at which a text was sealed."""
MAX_SEALED = 8_192
"""Characters of a sealed text that is read at all."""


class Seals:
    """One per process."""

    def __init__(self, key: bytes) -> None:
        """`key` holds 32 random bytes that no one else knows."""
        self._key = key

    def issue(self, purpose: str) -> str:
        """Make a value of 192 random bits, 54 characters that a cookie and a URL may hold."""
        random = secrets.token_bytes(_RANDOM_BYTES)
        return _encode(random + self._tag(purpose, random))

    def is_issued(self, purpose: str, value: str) -> bool:
        """Tell whether this installation issued a value for `purpose`; says nothing of its age."""
        decoded = _decode(value)
        random, tag = decoded[:_RANDOM_BYTES], decoded[_RANDOM_BYTES:]
        is_ours = hmac.compare_digest(tag, self._tag(purpose, random))
        return is_ours and len(random) == _RANDOM_BYTES and _encode(decoded) == value

    def derive(self, purpose: str, value: str) -> str:
        """Make a secret of 256 bits out of a value: the same every time, and no one else can."""
        return _encode(self._mac(f"derive:{purpose}", value.encode()))

    def seal(self, purpose: str, about: Mapping[str, str]) -> str:
        """Write a text that only this installation can read; it says when it was made."""
        now = f"{datetime.now(UTC).timestamp():.3f}"
        plain = json.dumps({**about, ISSUED_AT: now}).encode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _encode(nonce + self._cipher(purpose).encrypt(nonce, plain, None))

    def open(self, purpose: str, sealed: str, max_age_s: float) -> dict[str, str] | None:
        """Read a value of `seal`; None for any other, and for one older than `max_age_s` seconds."""
        if len(sealed) > MAX_SEALED:
            return None
        decoded = _decode(sealed)
        try:
            plain = self._cipher(purpose).decrypt(decoded[:_NONCE_BYTES], decoded[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            return None
        about: dict[str, str] = json.loads(plain)
        age_s = datetime.now(UTC).timestamp() - float(about[ISSUED_AT])
        return about if age_s <= max_age_s else None

    def _cipher(self, purpose: str) -> AESGCM:
        return AESGCM(self._mac(f"seal:{purpose}", b""))

    def _tag(self, purpose: str, random: bytes) -> bytes:
        return self._mac(f"value:{purpose}", random)[:_TAG_BYTES]

    def _mac(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + data, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Read a value of `_encode`; empty for any other."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
