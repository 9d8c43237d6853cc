"""Encryption of grants at rest (Fernet: AES-128-CBC with HMAC), by keys from a file beside the database."""

import base64
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from proxy.errors import SettingsError
from proxy.http.secret import Secret
from proxy.storage.files import create_once

KEY_BYTES = 32
_MAX_FILE_BYTES = 16 * 1024


class Vault:
    """Encryption of secrets for one account each; another account's secret cannot be decrypted."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take keys of KEY_BYTES bytes; the first encrypts, all decrypt."""
        self._cipher = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])

    def seal(self, secret: Secret, issuer: str, subject: str) -> bytes:
        """Encrypt a secret of an account."""
        plain = json.dumps({"issuer": issuer, "subject": subject, "secret": secret.reveal()})
        return self._cipher.encrypt(plain.encode())

    def open(self, sealed: bytes, issuer: str, subject: str) -> Secret | None:
        """Decrypt a secret of an account; None when it is another's, or was encrypted with an unknown key."""
        try:
            plain: Any = json.loads(self._cipher.decrypt(sealed))
        except (InvalidToken, ValueError):
            return None
        if not isinstance(plain, dict) or (plain.get("issuer"), plain.get("subject")) != (issuer, subject):
            return None
        return Secret(str(plain.get("secret", "")))


def load(file: Path, *, create: bool) -> Vault:
    """Read the keys; with `create`, create a missing file (mode 0600) with one key.

    Two processes that start at once agree on one key. Raises: SettingsError naming the file, never a key.
    """
    try:
        if create and not file.exists():
            create_once(file, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        lines = file.read_bytes()[:_MAX_FILE_BYTES].split()
    except OSError as exc:
        raise SettingsError(f"groups.key_file {file}: {exc.strerror}") from exc
    if not lines:
        raise SettingsError(f"groups.key_file {file}: holds no key; `openssl rand -base64 32` makes one")
    return Vault([_key(file, number, line) for number, line in enumerate(lines, start=1)])


def _key(file: Path, number: int, line: bytes) -> bytes:
    try:
        key = base64.b64decode(line.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"groups.key_file {file}: key {number} is not {KEY_BYTES} bytes in base64; "
            "`openssl rand -base64 32` makes one"
        )
    return key
