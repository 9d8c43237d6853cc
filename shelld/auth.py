"""Who may call over TCP: the proxy's certificate name and a token, on every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from shelld.errors import SettingsError, Unauthenticated
from shelld.settings import Settings, Tls
from shelld.token import Caller, read_key, verify

_SCHEME = "bearer "


Metadata = Iterable[tuple[str, str | bytes]]
PeerFacts = Mapping[str, Iterable[bytes]]
Authenticate = Callable[[Metadata, PeerFacts], Caller]
"""Judges one call by its metadata and by what TLS found out about the peer. Raises Unauthenticated."""


def trust_socket(_metadata: Metadata, _peer: PeerFacts) -> Caller:
    """Trust whoever could open a Unix socket of mode 0600: the same account, or root."""
    return Caller()


class TokenAuthenticator:
    """Checks the certificate's name and the token of one call; has no state between calls."""

    def __init__(self, settings: Settings, tls: Tls) -> None:
        """Read the key once. Raises: SettingsError."""
        self._settings = settings
        self._client_name = tls.client_name
        try:
            self._key = read_key(tls.token_key.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError([f"--token-key: {error}"]) from error

    def __call__(self, metadata: Metadata, peer: PeerFacts) -> Caller:
        """Return the caller. Raises: Unauthenticated."""
        if self._client_name not in _peer_names(peer):
            raise Unauthenticated("client certificate has another name")
        return verify(
            _bearer(metadata),
            key=self._key,
            workspace=self._settings.workspace,
            user=self._settings.user,
            now_s=datetime.now(UTC).timestamp(),
        )


def _peer_names(found: PeerFacts) -> set[str]:
    """Return subject alternative names; the common name only when there are none (RFC 6125 section 6.4.4)."""
    names = found.get("x509_subject_alternative_name") or found.get("x509_common_name") or ()
    return {name.decode(errors="replace") for name in names}


def _bearer(metadata: Metadata) -> str:
    values = [value for name, value in metadata if name == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].lower().startswith(_SCHEME):
        raise Unauthenticated("exactly one bearer token is needed")
    return values[0][len(_SCHEME) :]
