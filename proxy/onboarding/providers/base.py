"""The interface of providers to onboarding, and their common parts."""

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
from proxy.onboarding.mapping import MappedFields
from proxy.settings.onboarding import Approval, KeyListSettings

Gate = Callable[[], Awaitable[None]]
KeepTokens = Callable[[Tokens], Awaitable[None]]
"""Keeps tokens that a provider gave for a grant, before any other use of them."""
FETCH_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ApprovalFacts:
    """The facts that a user sees before approving."""

    name: str
    """The user name that was typed."""
    source: str
    """Address of the client."""
    fingerprint: str
    """Fingerprint of the proved key."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The common dependencies of every provider."""

    http: Http
    clock: Clock
    keys: KeyListSettings
    keeps_grants: bool = False
    """Whether refresh tokens are kept, so that it makes sense to request them."""


class Provider(Protocol):
    """One configured provider. Errors that leave it are OnboardingErrors."""

    @property
    def name(self) -> str:
        """Return the name in the settings; shown to users, recorded with users."""

    @property
    def approval(self) -> Approval:
        """Return the way of approval: a device code, or Fairlead's page after an authorization code."""

    @property
    def can_onboard(self) -> bool:
        """Return whether new users may use this provider."""

    async def start_device(self, about: ApprovalFacts, max_lifetime_s: float) -> Authorization:
        """Request a device code. Raises: ProviderUnavailable, ProviderMisconfigured."""

    async def poll_device(self, authorization: Authorization, gate: Gate | None = None) -> Tokens:
        """Wait for the approval; `gate` is awaited before every request.

        Raises: CodeExpired, ApprovalDenied, ProviderUnavailable, ProviderMisconfigured.
        """

    async def code_client(self) -> CodeClient:
        """Return the parameters of the authorization code grant. Raises: as start_device."""

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        """Read the account that approved; `nonce` is the one of a WebLogin.

        Raises: ProviderUnavailable, ProviderMisconfigured.
        """

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        """Return the keys that the provider lists for an account; None when it keeps no lists.

        `login` is the account's present name when `access` is its own token; otherwise a hint.
        Raises: ProviderUnavailable when it does not answer and no recent enough list is known.
        """

    @property
    def lists_keys(self) -> bool:
        """Return whether `keys` decides on the admission of keys.

        Else the approval does, while the account lasts.
        """

    def grant_of(self, tokens: Tokens) -> Secret | None:
        """Return the token with which the account can be read again; None when there is none."""

    async def renew(self, subject: str, grant: Secret | None, keep: KeepTokens) -> Profile:
        """Read an account again with the token of `grant_of`; pass replacing tokens to `keep` at once.

        Raises: GrantEnded when the provider refuses the grant; GrantMissing without one, when the provider
            answers; AccountEnded when it reports so; ProviderUnavailable, ProviderMisconfigured.
        """


class _Settings(Protocol):
    """The common settings of every kind of provider."""

    @property
    def title(self) -> str: ...
    @property
    def approval(self) -> Approval: ...
    @property
    def onboard(self) -> bool: ...


_S = TypeVar("_S", bound=_Settings)


class Configured(Generic[_S]):
    """The part of a Provider that its settings define."""

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
    """Read a JSON document; temporary failures are repeated, up to FETCH_ATTEMPTS attempts.

    With `absent_ok`, status 404 gives None.

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
    mapped: MappedFields,
    claims: Mapping[str, Any],
    *,
    active: bool = True,
) -> Profile:
    """Return a profile from the provider's answer and the mapped fields."""
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
    """Return the error of a provider that does not answer; `reason` is for the log."""
    return ProviderUnavailable(
        f"{provider}: {reason}", user_message=f"{provider} does not answer at the moment"
    )


def misconfigured(provider: str, reason: str, *, is_token_refused: bool = False) -> OnboardingError:
    """Return the error of a provider that refuses Fairlead or is not understood; `reason` is for the log."""
    error = ProviderMisconfigured(
        f"{provider}: {reason}",
        user_message=f"login by {provider} does not work; its settings need an operator",
    )
    error.is_token_refused = is_token_refused
    return error


def account_ended(provider: str, reason: str) -> OnboardingError:
    """Return the error of an account that is deleted or disabled; `reason` is for the log."""
    return AccountEnded(
        f"{provider}: {reason}", user_message=f"{provider} does not vouch for this account any more"
    )


def grant_missing(provider: str) -> OnboardingError:
    """Return the error of an account that cannot be read again without its user."""
    return GrantMissing(
        f"{provider}: nothing was given to refresh this account with",
        user_message=f"your account at {provider} has to be approved again",
    )


def same_account(profile: Profile, subject: str) -> Profile:
    """Return a profile unchanged after checking that it is of this account and active.

    Raises: ProviderMisconfigured for another account; AccountEnded for a disabled one.
    """
    if profile.subject != subject:
        raise misconfigured(profile.provider, "a refresh gave another account")
    if not profile.active:
        raise account_ended(profile.provider, f"account {profile.login!r} is disabled")
    return profile
