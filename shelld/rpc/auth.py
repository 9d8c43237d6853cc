"""Authentication of calls over TCP: the proxy's certificate name and a token, on every call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from shelld.errors import SettingsError, Unauthenticated
from shelld.log import Log
from shelld.rpc.token import Caller, read_keys, verify
from shelld.settings import Settings, Tls

_log = Log("shelld.rpc.auth")
_SCHEME = "bearer "


Metadata = Iterable[tuple[str, str | bytes]]
PeerFacts = Mapping[str, Iterable[bytes]]
Authenticate = Callable[[Metadata, PeerFacts], Caller]
"""Authenticates one call by its metadata and by the TLS facts of the peer. Raises Unauthenticated."""


def trust_socket(_metadata: Metadata, _peer: PeerFacts) -> Caller:
    """Trust every caller that could open a Unix socket of mode 0600: the same account, or root."""
    return Caller()


class KeyFile:
    """The keys that sign tokens; read again when the file changes, as it does in a rotation."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises: OSError, ValueError."""
        self._path = path
        self._seen = self._mark()
        self._keys = read_keys(path.read_bytes())

    def keys(self) -> tuple[bytes, ...]:
        """Return the current keys; the former ones when the file cannot be read."""
        try:
            seen = self._mark()
            if seen != self._seen:
                self._seen, self._keys = seen, read_keys(self._path.read_bytes())
                _log.info("token keys read again", count=len(self._keys))
        except (OSError, ValueError) as error:
            _log.warning("token keys not read again", reason=str(error))
        return self._keys

    def _mark(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_mtime_ns, found.st_ino, found.st_size


class TokenAuthenticator:
    """The check of the certificate's name and the token of one call; without state between calls."""

    def __init__(self, settings: Settings, tls: Tls) -> None:
        """Read the keys. Raises: SettingsError."""
        self._settings = settings
        self._client_name = tls.client_name
        try:
            self._key_file = KeyFile(tls.token_key)
        except (OSError, ValueError) as error:
            raise SettingsError([f"--token-key: {error}"]) from error

    def __call__(self, metadata: Metadata, peer: PeerFacts) -> Caller:
        """Return the caller. Raises: Unauthenticated."""
        if self._client_name not in _peer_names(peer):
            raise Unauthenticated("client certificate has another name")
        return verify(
            _bearer(metadata),
            keys=self._key_file.keys(),
            workspace=self._settings.workspace,
            user=self._settings.user,
            now_s=datetime.now(UTC).timestamp(),
        )


def _peer_names(found: PeerFacts) -> set[str]:
    """Return subject alternative names; the common name if there are none (RFC 6125 section 6.4.4)."""
    names = found.get("x509_subject_alternative_name") or found.get("x509_common_name") or ()
    return {name.decode(errors="replace") for name in names}


def _bearer(metadata: Metadata) -> str:
    values = [value for name, value in metadata if name == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].lower().startswith(_SCHEME):
        raise Unauthenticated("exactly one bearer token is needed")
    return values[0][len(_SCHEME) :]
