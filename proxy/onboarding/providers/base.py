"""What onboarding asks of a provider, and what providers have in common."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from proxy.errors.login import (
    AccountEnded,
    GrantMissing,
    OnboardingError,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from proxy.http.client import Http, HttpFailed, Request
from proxy.http.clock import Clock
from proxy.http.secret import Secret
from proxy.identity.profile import KeyList, Profile
from proxy.onboarding.authcode import CodeClient
from proxy.onboarding.device_flow import Authorization, Tokens
from proxy.onboarding.mapping import Mapped
from proxy.settings.onboarding import Approval, KeyListSettings

Gate = Callable[[], Awaitable[None]]
Keep = Callable[[Tokens], Awaitable[None]]
"""Keeps tokens that a provider gave for a grant, before anything else is done with them."""
FETCH_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class About:
    """What a person should see before approving."""

    name: str
    """The user name that was typed."""
    source: str
    """Address of the client."""
    fingerprint: str
    """Of the key that was proved."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every provider is built with."""

    http: Http
    clock: Clock
    keys: KeyListSettings
    keeps_grants: bool = False
    """Whether refresh tokens are kept, so that it makes sense to ask for them."""


class Provider(Protocol):
    """One configured provider. Errors that leave it are OnboardingErrors."""

    @property
    def name(self) -> str:
        """From settings; shown to people, recorded with users."""

    @property
    def approval(self) -> Approval:
        """How a person approves: by a device code, or on our page behind an authorization code."""

    @property
    def can_onboard(self) -> bool:
        """Whether somebody new may come in this way."""

    async def start_device(self, about: About, max_lifetime_s: float) -> Authorization:
        """Ask for a device code. Raises: ProviderUnavailable, ProviderMisconfigured."""

    async def poll_device(self, authorization: Authorization, gate: Gate | None = None) -> Tokens:
        """Wait for the person; `gate` is awaited before every request.

        Raises: CodeExpired, ApprovalDenied, ProviderUnavailable, ProviderMisconfigured.
        """

    async def code_client(self) -> CodeClient:
        """Give what the authorization code grant needs. Raises: as start_device."""

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        """Read the account that approved; `nonce` is the one of a WebLogin.

        Raises: ProviderUnavailable, ProviderMisconfigured.
        """

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        """Give the keys that the provider lists for an account; None when it keeps no lists.

        `login` is the account's present name when `access` is its own token; otherwise a hint.
        Raises: ProviderUnavailable when it cannot be asked and is not remembered well enough.
        """

    @property
    def lists_keys(self) -> bool:
        """Whether `keys` decides what lets an account in; else its approval does, while the account lasts."""

    def grant_of(self, tokens: Tokens) -> Secret | None:
        """Give what is worth keeping to read the account again; None when nothing is."""

    async def renew(self, subject: str, grant: Secret | None, keep: Keep) -> Profile:
        """Read an account again with what `grant_of` gave; tokens that replace it go to `keep` at once.

        Raises: GrantEnded when the provider refuses the grant; GrantMissing without one, when the provider
            answers; AccountEnded when it says so; ProviderUnavailable, ProviderMisconfigured.
        """


class _Settings(Protocol):
    """What the settings of every kind of provider say."""

    @property
    def title(self) -> str: ...
    @property
    def approval(self) -> Approval: ...
    @property
    def onboard(self) -> bool: ...


_S = TypeVar("_S", bound=_Settings)


class Configured(Generic[_S]):
    """What a Provider says of itself stands in its settings."""

    def __init__(self, settings: _S) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """See Provider."""
        return self._settings.title

    @property
    def approval(self) -> Approval:
        """See Provider."""
        return self._settings.approval

    @property
    def can_onboard(self) -> bool:
        """See Provider."""
        return self._settings.onboard

    @property
    def lists_keys(self) -> bool:
        """See Provider."""
        return True

    def grant_of(self, tokens: Tokens) -> Secret | None:
        """See Provider."""
        return tokens.refresh


async def get_json(tools: Tools, provider: str, request: Request, *, absent_ok: bool = False) -> Any:
    """Read a JSON document; what may be passing is tried FETCH_ATTEMPTS times.

    `absent_ok` makes None of status 404.

    Raises: ProviderUnavailable, ProviderMisconfigured.
    """
    problem = ""
    for attempt in range(FETCH_ATTEMPTS):
        if attempt:
            await tools.clock.sleep(0.5 * 2 ** (attempt - 1))
        try:
            reply = await tools.http.send(request)
            if 200 <= reply.status < 300:
                return reply.json()
        except (HttpFailed, ValueError) as exc:
            problem = f"{request!r}: {exc}"
            continue
        if reply.status == 404 and absent_ok:
            return None
        problem = f"{request!r}: status {reply.status}"
        if not reply.is_passing:
            raise misconfigured(
                provider, problem, is_token_refused=reply.status == 401 and request.bearer is not None
            )
    raise unavailable(provider, problem)


def make_profile(
    provider: str,
    issuer: str,
    subject: str,
    login: str,
    mapped: Mapped,
    claims: Mapping[str, Any],
    *,
    active: bool = True,
) -> Profile:
    """Join what the provider says with what our mapping makes of it."""
    return Profile(
        provider=provider,
        issuer=issuer,
        subject=subject,
        login=login,
        name=mapped.name,
        full_name=mapped.full_name,
        email=mapped.email,
        groups=mapped.groups,
        uid=mapped.uid,
        keys=mapped.keys,
        active=active,
        claims=claims,
    )


def unavailable(provider: str, reason: str) -> OnboardingError:
    """Make the error of a provider that does not answer; `reason` is for the log."""
    return ProviderUnavailable(
        f"{provider}: {reason}", user_message=f"{provider} does not answer at the moment"
    )


def misconfigured(provider: str, reason: str, *, is_token_refused: bool = False) -> OnboardingError:
    """Make the error of a provider that refuses us or is not understood; `reason` is for the log."""
    error = ProviderMisconfigured(
        f"{provider}: {reason}",
        user_message=f"login by {provider} does not work; its settings need an operator",
    )
    error.is_token_refused = is_token_refused
    return error


def account_ended(provider: str, reason: str) -> OnboardingError:
    """Make the error of an account that is no more, or is disabled; `reason` is for the log."""
    return AccountEnded(
        f"{provider}: {reason}", user_message=f"{provider} does not vouch for this account any more"
    )


def grant_missing(provider: str) -> OnboardingError:
    """Make the error of an account that cannot be read again without its person."""
    return GrantMissing(
        f"{provider}: nothing was given to refresh this account with",
        user_message=f"your account at {provider} has to be approved again",
    )


def same_account(profile: Profile, subject: str) -> Profile:
    """Give back a profile that is of this account and alive.

    Raises: ProviderMisconfigured for another account; AccountEnded for a disabled one.
    """
    if profile.subject != subject:
        raise misconfigured(profile.provider, "a refresh gave another account")
    if not profile.active:
        raise account_ended(profile.provider, f"account {profile.login!r} is disabled")
    return profile
