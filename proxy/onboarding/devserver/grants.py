"""State of the development provider: device codes, authorization codes and tokens, without HTTP.

Every entry expires, their number is bounded, and all are lost with the process. Sources: RFC 8628 §3.2-3.5,
§5.1 and §6.1; RFC 6749 §4.1 and §10.5; RFC 7636 §4.6.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from proxy.http.clock import REAL, Clock
from proxy.http.secret import Secret
from proxy.onboarding.authcode import challenge
from proxy.settings.onboarding import DevAccount, DevSettings

SLOW_DOWN_S = 5.0
CODE_LIFETIME_S = 60.0
TOKEN_LIFETIME_S = 600.0
MAX_WRONG_CODES_PER_MINUTE = 20
_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, so no words
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,62}[a-z0-9_-])?")


class _Expiring(Protocol):
    @property
    def expires_at(self) -> float: ...


_V = TypeVar("_V", bound=_Expiring)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The client's description of the request, for the page; empty where it gave none."""

    name: str = ""
    source: str = ""
    fingerprint: str = ""


@dataclass(slots=True)
class DeviceGrant:
    """A pending device code."""

    user_code: str
    scope: str
    shown: RequestFacts
    expires_at: float
    interval_s: float
    poll_after: float
    state: str = "pending"
    account: DevAccount | None = None
    access: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class CodeGrant:
    """An authorization code."""

    account: DevAccount
    redirect_uri: str
    challenge: str
    nonce: str
    scope: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class AccessSubject:
    """The subject of an access token."""

    account: DevAccount
    scope: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """A token request that succeeded."""

    account: DevAccount
    access: str = field(repr=False)
    scope: str
    nonce: str = ""
    confirmed: str = ""
    """Fingerprint that the user saw when approving."""


class OAuthRefusal(Exception):
    """A request that ends with an OAuth error, which is the text."""


class _ExpiringMap(Generic[_V]):
    """Values by key, at most `limit`, each until it expires."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._values: dict[str, _V] = {}

    def put(self, key: str, value: _V) -> None:
        if len(self._values) >= self._limit:
            now = self._clock.now()
            self._values = {name: kept for name, kept in self._values.items() if kept.expires_at > now}
        if len(self._values) >= self._limit:
            raise OAuthRefusal("temporarily_unavailable")
        self._values[key] = value

    def get(self, key: str) -> _V | None:
        value = self._values.get(key)
        return value if value is not None and value.expires_at > self._clock.now() else None

    def pop(self, key: str) -> _V | None:
        value = self.get(key)
        self._values.pop(key, None)
        return value


class DevGrants:
    """All accounts, codes and tokens of the development provider."""

    def __init__(self, settings: DevSettings, clock: Clock = REAL) -> None:
        self._settings = settings
        self._clock = clock
        self._devices: _ExpiringMap[DeviceGrant] = _ExpiringMap(settings.max_pending, clock)
        self._user_codes: dict[str, str] = {}
        self._codes: _ExpiringMap[CodeGrant] = _ExpiringMap(settings.max_pending, clock)
        self._tokens: _ExpiringMap[AccessSubject] = _ExpiringMap(settings.max_pending, clock)
        self._wrong: list[float] = []

    # ---------------------------------------------------------------------------------- accounts

    def account(self, name: str) -> DevAccount | None:
        """Return an account; unless settings restrict them, every name is one."""
        wanted = name.strip().lower()
        for known in self._settings.accounts:
            if known.name == wanted:
                return known
        if self._settings.any_account and _NAME.fullmatch(wanted):
            return DevAccount(name=wanted, full_name=wanted.capitalize(), email=f"{wanted}@dev.invalid")
        return None

    # ------------------------------------------------------------------------------ device codes

    def begin_device(self, scope: str, shown: RequestFacts) -> tuple[str, DeviceGrant]:
        """Create a device code. Raises: OAuthRefusal when too many are pending."""
        now = self._clock.now()
        device_code, interval = secrets.token_urlsafe(32), float(self._settings.poll_interval_s)
        grant = DeviceGrant(
            user_code=_new_user_code(),
            scope=scope,
            shown=shown,
            expires_at=now + self._settings.code_lifetime_s,
            interval_s=interval,
            poll_after=now,
        )
        self._devices.put(device_code, grant)
        self._user_codes = {
            code: device for code, device in self._user_codes.items() if self._devices.get(device) is not None
        }
        self._user_codes[_bare(grant.user_code)] = device_code
        return device_code, grant

    def find(self, user_code: str) -> DeviceGrant | None:
        """Return the pending grant of a typed code; punctuation and case do not matter.

        Raises: OAuthRefusal after too many wrong codes in a short time (RFC 8628 §5.1).
        """
        now = self._clock.now()
        self._wrong = [moment for moment in self._wrong if now - moment < 60]
        if len(self._wrong) >= MAX_WRONG_CODES_PER_MINUTE:
            raise OAuthRefusal("too many wrong codes; wait a minute")
        grant = self._devices.get(self._user_codes.get(_bare(user_code), ""))
        if grant is None or grant.state != "pending":
            self._wrong.append(now)
            return None
        return grant

    def poll_device(self, device_code: str) -> IssuedTokens:
        """Answer one poll. Raises: OAuthRefusal with the error of RFC 8628 §3.5."""
        grant = self._devices.get(device_code)
        if grant is None:
            raise OAuthRefusal(
                "expired_token" if device_code in self._user_codes.values() else "invalid_grant"
            )
        now = self._clock.now()
        if grant.state == "redeemed":
            for token in grant.access:
                self._tokens.pop(token)
            raise OAuthRefusal("invalid_grant")
        if grant.state == "denied":
            raise OAuthRefusal("access_denied")
        if grant.state == "pending" or grant.account is None:
            if now < grant.poll_after:
                grant.interval_s += SLOW_DOWN_S
                grant.poll_after = now + grant.interval_s
                raise OAuthRefusal("slow_down")
            grant.poll_after = now + grant.interval_s
            raise OAuthRefusal("authorization_pending")
        granted = self._grant(grant.account, grant.scope, confirmed=grant.shown.fingerprint)
        grant.state = "redeemed"
        grant.access.append(granted.access)
        return granted

    # ----------------------------------------------------------------------- authorization codes

    def begin_code(self, account: DevAccount, request: Mapping[str, str]) -> str:
        """Create a code for a checked authorization request. Raises: OAuthRefusal."""
        code = secrets.token_urlsafe(32)
        grant = CodeGrant(
            account,
            request["redirect_uri"],
            request["code_challenge"],
            request.get("nonce", ""),
            request.get("scope", ""),
            self._clock.now() + CODE_LIFETIME_S,
        )
        self._codes.put(code, grant)
        return code

    def redeem_code(self, code: str, redirect_uri: str, verifier: str) -> IssuedTokens:
        """Exchange one code, once. Raises: OAuthRefusal."""
        grant = self._codes.pop(code)
        if grant is None or grant.redirect_uri != redirect_uri:
            raise OAuthRefusal("invalid_grant")
        if not secrets.compare_digest(challenge(Secret(verifier)).encode(), grant.challenge.encode()):
            raise OAuthRefusal("invalid_grant")
        return self._grant(grant.account, grant.scope, nonce=grant.nonce)

    # ------------------------------------------------------------------------------------ tokens

    def bearer(self, token: str) -> AccessSubject | None:
        """Return the subject of an access token, or None."""
        return self._tokens.get(token)

    def _grant(
        self, account: DevAccount, scope: str, *, nonce: str = "", confirmed: str = ""
    ) -> IssuedTokens:
        token = secrets.token_urlsafe(32)
        self._tokens.put(token, AccessSubject(account, scope, self._clock.now() + TOKEN_LIFETIME_S))
        return IssuedTokens(account, token, scope, nonce, confirmed)


def _new_user_code() -> str:
    letters = [secrets.choice(_ALPHABET) for _ in range(8)]
    return "".join(letters[:4]) + "-" + "".join(letters[4:])


def _bare(user_code: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", user_code.upper())[:64]
