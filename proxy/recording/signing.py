"""The key that signs recordings (Ed25519, RFC 8032), and the keys that are trusted to have signed them."""

import base64
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from proxy.errors import SettingsError
from proxy.model import fingerprint
from proxy.storage.files import create_once

_CONTEXT = b"fairlead recording 1\0"  # separates these signatures from all others of the key


class SigningKey:
    """A private key that signs recordings."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = VerifyingKey(key.public_key())

    def sign(self, message: bytes) -> str:
        """Return the signature of `message` in base64."""
        return base64.b64encode(self._key.sign(_CONTEXT + message)).decode()


class VerifyingKey:
    """A public key that verifies recordings."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.fingerprint = fingerprint(key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    def has_signed(self, message: bytes, signature: str) -> bool:
        """Return whether `signature` is this key's signature of `message`."""
        try:
            raw = base64.b64decode(signature, validate=True)
            if base64.b64encode(raw).decode() != signature:
                return False  # the same bytes in another base64 form: not written by us
            self._key.verify(raw, _CONTEXT + message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Keyring:
    """Public keys by fingerprint."""

    def __init__(self, keys: Iterable[VerifyingKey]) -> None:
        self._keys = {key.fingerprint: key for key in keys}

    def find(self, fingerprint: str) -> VerifyingKey | None:
        """Return the key with this fingerprint; None if it is not here."""
        return self._keys.get(fingerprint)


def load_or_create(file: Path) -> SigningKey:
    """Read the key; create one (mode 0600) if there is none.

    Two processes that start at once agree on one key. Raises: SettingsError.
    """
    try:
        if not file.exists():
            _create(file)
        return SigningKey(_private(file))
    except OSError as exc:
        raise SettingsError(f"recording.signing_key_file {file}: {exc.strerror}") from exc


def load_public(file: Path) -> VerifyingKey:
    """Read a public key in PEM. Raises: SettingsError."""
    try:
        key: object = load_pem_public_key(file.read_bytes())
    except OSError as exc:
        raise SettingsError(f"recording.trusted_key_files {file}: {exc.strerror}") from exc
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"recording.trusted_key_files {file}: not an Ed25519 public key in PEM")
    return VerifyingKey(key)


def _private(file: Path) -> Ed25519PrivateKey:
    try:
        key: object = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"recording.signing_key_file {file}: not an Ed25519 key in PEM, or encrypted")
    return key


def _create(file: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    create_once(file, pem)
