"""ID tokens: signature by the provider's published keys, then every claim that OpenID Connect checks.

Sources: OpenID Connect Core 1.0 §3.1.3.7, RFC 7517 (key sets), RFC 8725 (threats to JWT). Keys come from the
provider's `jwks_uri` alone; a token's statements about its own keys (`jku`, `jwk`, `x5u`) are not read. The
only module that reads tokens of other issuers.
"""

import asyncio
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning
from joserfc.jwk import KeySet

from proxy.errors.login import ProviderMisconfigured, ProviderUnavailable
from proxy.http.client import Http, HttpFailed, Request
from proxy.http.clock import REAL, Clock
from proxy.http.secret import Secret

FRESH_S = 600.0
COOLDOWN_S = 30.0
LEEWAY_S = 60
MAX_TOKEN_CHARACTERS = 64 * 1024
_KINDS = ("RSA", "EC", "OKP")


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """The claims that a token must have to be meant for this client."""

    provider: str
    issuers: tuple[str, ...]
    audience: str
    algorithms: tuple[str, ...]


class Jwks:
    """The signing keys of one provider, fetched when needed.

    An unknown key causes a new fetch at once, and then at most one in COOLDOWN_S. While the provider is down,
    the last known keys stay in use.
    """

    def __init__(self, provider: str, url: str, http: Http, *, clock: Clock = REAL) -> None:
        self._provider = provider
        self.url = url
        self._http = http
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._tried_at = self._lacked_at = float("-inf")
        self._problem = ""
        self._lock = asyncio.Lock()

    async def keys(self, *, unknown_in: KeySet | None = None) -> KeySet:
        """Return the keys; `unknown_in` is a set that lacked one, and requests a newer set.

        Raises: ProviderUnavailable when there are none and none can be fetched.
        """
        async with self._lock:
            now = self._clock.now()
            is_old = self._keys is None or now - self._fetched_at > FRESH_S
            is_lacking = unknown_in is not None and unknown_in is self._keys
            if is_lacking and now - self._lacked_at >= COOLDOWN_S:
                self._lacked_at = now
                await self._fetch(now)
            elif is_old and now - self._tried_at >= COOLDOWN_S:
                await self._fetch(now)
        if self._keys is None:
            raise ProviderUnavailable(
                f"{self._provider}: no keys to check its tokens: {self._problem}",
                user_message=f"{self._provider} does not answer at the moment",
            )
        return self._keys

    async def _fetch(self, now: float) -> None:
        self._tried_at = now
        try:
            reply = await self._http.send(Request(self.url))
            if reply.status != 200:
                raise ValueError(f"status {reply.status}")  # noqa: TRY301 - one exit for every fault
            self._keys = _key_set(reply.json())
        except (HttpFailed, ValueError) as exc:
            self._problem = str(exc)
        else:
            self._fetched_at = now


async def verify(
    token: Secret, keys: Jwks, expected: ExpectedClaims, *, nonce: Secret | None = None
) -> Mapping[str, Any]:
    """Return the claims of a token that the provider issued for this client, now, and for this request.

    `nonce` is the one that was sent, None where the grant has none (RFC 8628).

    Raises: ProviderMisconfigured for every token that fails a check; ProviderUnavailable without keys.
    """
    decoded = await _decode_fresh(token, keys, expected)
    if str(decoded.header.get("typ", "JWT")).lower() not in ("jwt", "application/jwt"):
        raise _refuse(expected, "it is a token of another type")
    _check(decoded.claims, expected, datetime.now(UTC).timestamp(), nonce)
    return decoded.claims


LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LOGOUT_AGE_S = 300
"""A provider sends a logout token at once, and may try again for a while."""


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """An end of sessions at a provider: of one session, or without `sid` of all sessions of an account."""

    issuer: str
    subject: str
    sid: str
    at: datetime
    """When the provider said so; aware UTC."""


async def verify_logout(token: Secret, keys: Jwks, expected: ExpectedClaims) -> LoggedOut:
    """Read a logout token (OpenID Connect Back-Channel Logout 1.0 §2.6).

    Raises: ProviderMisconfigured for every token that fails a check; ProviderUnavailable without keys.
    """
    decoded = await _decode_fresh(token, keys, expected)
    claims = decoded.claims
    if str(decoded.header.get("typ", "JWT")).lower() not in ("jwt", "logout+jwt", "application/logout+jwt"):
        raise _refuse(expected, "it is a token of another type")
    subject, sid, events = claims.get("sub", ""), claims.get("sid", ""), claims.get("events")
    if "nonce" in claims or not isinstance(events, dict) or LOGOUT_EVENT not in events:
        raise _refuse(expected, "it is no logout token")
    if not isinstance(subject, str) or not isinstance(sid, str) or not (subject or sid):
        raise _refuse(expected, "it names neither subject nor session")
    now = datetime.now(UTC)
    # An ID token has a subject, and a logout token may have none: the other checks are the same.
    _check({**claims, "sub": subject or sid}, expected, now.timestamp(), None)
    issued = datetime.fromtimestamp(float(claims["iat"]), UTC)
    if (now - issued).total_seconds() > _LOGOUT_AGE_S:
        raise _refuse(expected, "it is too old")
    return LoggedOut(str(claims["iss"]), subject, sid, issued)


async def _decode_fresh(token: Secret, keys: Jwks, expected: ExpectedClaims) -> jwt.Token:
    """Check a signature, by newer keys when the known ones lack that one."""
    key_set = await keys.keys()
    try:
        return _decode(token, key_set, expected)
    except InvalidKeyIdError:
        return _decode_again(token, await keys.keys(unknown_in=key_set), expected)


def _decode_again(token: Secret, key_set: KeySet, expected: ExpectedClaims) -> jwt.Token:
    try:
        return _decode(token, key_set, expected)
    except InvalidKeyIdError:
        raise _refuse(expected, "it is signed by a key that the provider does not publish") from None


def _decode(token: Secret, key_set: KeySet, expected: ExpectedClaims) -> jwt.Token:
    text = token.reveal()
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise _refuse(expected, "it is too long")
    try:
        with warnings.catch_warnings():
            # "EdDSA" is deprecated in favour of "Ed25519" (RFC 9864), but most providers still use it.
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.decode(text, key_set, algorithms=list(expected.algorithms))
    except InvalidKeyIdError:
        raise
    except JoseError as exc:
        raise _refuse(expected, exc.error.replace("_", " ")) from None
    except (ValueError, TypeError) as exc:
        raise _refuse(expected, type(exc).__name__) from None


def _check(claims: Mapping[str, Any], expected: ExpectedClaims, now: float, nonce: Secret | None) -> None:
    """Check claims by OpenID Connect Core §3.1.3.7. Raises: as `verify`."""
    audience = claims.get("aud")
    audiences: Collection[Any] = audience if isinstance(audience, list) else [audience]
    subject, expires, issued = claims.get("sub"), _time(claims.get("exp")), _time(claims.get("iat"))
    problem = ""
    if claims.get("iss") not in expected.issuers:
        problem = "it is by another issuer"
    elif expected.audience not in audiences:
        problem = "it is for another client"
    elif len(audiences) > 1 and claims.get("azp") != expected.audience:
        problem = "it was given to another client"
    elif expires is None or expires + LEEWAY_S <= now:
        problem = "it has expired (or one of the clocks is wrong)"
    elif issued is None or issued - LEEWAY_S > now:
        problem = "it is not valid yet (or one of the clocks is wrong)"
    elif not isinstance(subject, str) or not 0 < len(subject) <= 255:
        problem = "it has no subject"
    elif nonce is not None and Secret(str(claims.get("nonce", ""))) != nonce:
        problem = "it belongs to another login"
    if problem:
        raise _refuse(expected, problem)


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _refuse(expected: ExpectedClaims, reason: str) -> ProviderMisconfigured:
    return ProviderMisconfigured(
        f"{expected.provider}: its ID token is refused: {reason}",
        user_message=f"login by {expected.provider} does not work; its settings need an operator",
    )


def _key_set(document: object) -> KeySet:
    """Return the public signature keys of a set, without those of unknown types.

    Raises: ValueError.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the reply is no key set")  # noqa: TRY004 - a document of the wrong shape
    keys = []
    for entry in entries[:100]:
        if isinstance(entry, dict) and entry.get("kty") in _KINDS and entry.get("use", "sig") == "sig":
            try:
                keys.extend(KeySet.import_key_set({"keys": [entry]}).keys)
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    if not keys:
        raise ValueError("the key set holds no usable key")
    return KeySet(keys)
