"""What the development provider remembers: device codes, authorization codes and tokens. No HTTP here.

Everything ends by itself, is bounded in number, and is lost with the process. Sources: RFC 8628 §3.2-3.5,
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


class _Mortal(Protocol):
    @property
    def expires_at(self) -> float: ...


_V = TypeVar("_V", bound=_Mortal)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a client told about who asks; empty when it told nothing."""

    name: str = ""
    source: str = ""
    fingerprint: str = ""


@dataclass(slots=True)
class DeviceGrant:
    """One device code on its way."""

    user_code: str
    scope: str
    shown: Shown
    expires_at: float
    interval_s: float
    poll_after: float
    state: str = "pending"
    account: DevAccount | None = None
    access: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class CodeGrant:
    """One authorization code."""

    account: DevAccount
    redirect_uri: str
    challenge: str
    nonce: str
    scope: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token stands for."""

    account: DevAccount
    scope: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Granted:
    """A token request that succeeded."""

    account: DevAccount
    access: str = field(repr=False)
    scope: str
    nonce: str = ""
    confirmed: str = ""
    """Fingerprint that the person saw when approving."""


class Refused(Exception):
    """A request that ends with an OAuth error, which is the text."""


class _Shelf(Generic[_V]):
    """At most `limit` values by key, each until it expires."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._values: dict[str, _V] = {}

    def put(self, key: str, value: _V) -> None:
        if len(self._values) >= self._limit:
            now = self._clock.now()
            self._values = {name: kept for name, kept in self._values.items() if kept.expires_at > now}
        if len(self._values) >= self._limit:
            raise Refused("temporarily_unavailable")
        self._values[key] = value

    def get(self, key: str) -> _V | None:
        value = self._values.get(key)
        return value if value is not None and value.expires_at > self._clock.now() else None

    def pop(self, key: str) -> _V | None:
        value = self.get(key)
        self._values.pop(key, None)
        return value


class Grants:
    """All of it."""

    def __init__(self, settings: DevSettings, clock: Clock = REAL) -> None:
        self._settings = settings
        self._clock = clock
        self._devices: _Shelf[DeviceGrant] = _Shelf(settings.max_pending, clock)
        self._user_codes: dict[str, str] = {}
        self._codes: _Shelf[CodeGrant] = _Shelf(settings.max_pending, clock)
        self._tokens: _Shelf[Access] = _Shelf(settings.max_pending, clock)
        self._wrong: list[float] = []

    # ---------------------------------------------------------------------------------- accounts

    def account(self, name: str) -> DevAccount | None:
        """Find an account; unless settings say otherwise, every name is one."""
        wanted = name.strip().lower()
        for known in self._settings.accounts:
            if known.name == wanted:
                return known
        if self._settings.any_account and _NAME.fullmatch(wanted):
            return DevAccount(name=wanted, full_name=wanted.capitalize(), email=f"{wanted}@dev.invalid")
        return None

    # ------------------------------------------------------------------------------ device codes

    def begin_device(self, scope: str, shown: Shown) -> tuple[str, DeviceGrant]:
        """Make a device code. Raises: Refused when too many are pending."""
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
        """Find the pending grant of a code as typed; punctuation and case do not matter.

        Raises: Refused when wrong codes were tried too often of late (RFC 8628 §5.1).
        """
        now = self._clock.now()
        self._wrong = [moment for moment in self._wrong if now - moment < 60]
        if len(self._wrong) >= MAX_WRONG_CODES_PER_MINUTE:
            raise Refused("too many wrong codes; wait a minute")
        grant = self._devices.get(self._user_codes.get(_bare(user_code), ""))
        if grant is None or grant.state != "pending":
            self._wrong.append(now)
            return None
        return grant

    def poll_device(self, device_code: str) -> Granted:
        """Answer one poll. Raises: Refused with the error of RFC 8628 §3.5."""
        grant = self._devices.get(device_code)
        if grant is None:
            raise Refused("expired_token" if device_code in self._user_codes.values() else "invalid_grant")
        now = self._clock.now()
        if grant.state == "redeemed":
            for token in grant.access:
                self._tokens.pop(token)
            raise Refused("invalid_grant")
        if grant.state == "denied":
            raise Refused("access_denied")
        if grant.state == "pending" or grant.account is None:
            if now < grant.poll_after:
                grant.interval_s += SLOW_DOWN_S
                grant.poll_after = now + grant.interval_s
                raise Refused("slow_down")
            grant.poll_after = now + grant.interval_s
            raise Refused("authorization_pending")
        granted = self._grant(grant.account, grant.scope, confirmed=grant.shown.fingerprint)
        grant.state = "redeemed"
        grant.access.append(granted.access)
        return granted

    # ----------------------------------------------------------------------- authorization codes

    def begin_code(self, account: DevAccount, request: Mapping[str, str]) -> str:
        """Make a code for a checked authorization request. Raises: Refused."""
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

    def redeem_code(self, code: str, redirect_uri: str, verifier: str) -> Granted:
        """Answer one code, once. Raises: Refused."""
        grant = self._codes.pop(code)
        if grant is None or grant.redirect_uri != redirect_uri:
            raise Refused("invalid_grant")
        if not secrets.compare_digest(challenge(Secret(verifier)).encode(), grant.challenge.encode()):
            raise Refused("invalid_grant")
        return self._grant(grant.account, grant.scope, nonce=grant.nonce)

    # ------------------------------------------------------------------------------------ tokens

    def bearer(self, token: str) -> Access | None:
        """Find what an access token stands for."""
        return self._tokens.get(token)

    def _grant(self, account: DevAccount, scope: str, *, nonce: str = "", confirmed: str = "") -> Granted:
        token = secrets.token_urlsafe(32)
        self._tokens.put(token, Access(account, scope, self._clock.now() + TOKEN_LIFETIME_S))
        return Granted(account, token, scope, nonce, confirmed)


def _new_user_code() -> str:
    letters = [secrets.choice(_ALPHABET) for _ in range(8)]
    return "".join(letters[:4]) + "-" + "".join(letters[4:])


def _bare(user_code: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", user_code.upper())[:64]
