"""Authorization code grant with PKCE, the client's half: for pages that need the identity of their reader.

Also the refresh of its tokens (RFC 6749 §6).

Sources: RFC 6749 §4.1, RFC 7636 (S256 only), RFC 9207 (`iss` in the response), OpenID Connect Core §3.1.
The caller keeps a WebLogin on the server, finds it by `state`, once, and has bound it to one browser by a
cookie.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlencode

from proxy.errors.login import (
    ApprovalDenied,
    CodeExpired,
    GrantEnded,
    OnboardingError,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from proxy.http.client import Http, HttpFailed, Request, client_credentials
from proxy.http.secret import Secret
from proxy.onboarding.device_flow import TEMPORARY, Tokens, busy, is_temporary, parse_answer, read_tokens


@dataclass(frozen=True, slots=True)
class CodeClient:
    """A client as registered at one provider, and that provider's endpoints."""

    provider: str
    authorize_url: str
    token_url: str
    client_id: str
    client_secret: Secret | None = None
    basic: bool = False
    scopes: tuple[str, ...] = ()
    issuer: str = ""
    """Compared with `iss` of the response where there is one (RFC 9207)."""
    requires_iss: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    """More parameters of the authorization request."""


_REFRESH_REFUSED = frozenset(
    {
        "invalid_grant",  # RFC 6749 §5.2: expired, revoked, used twice, or its account is gone
        "bad_refresh_token",  # GitHub
        *("interaction_required", "login_required", "consent_required", "access_denied"),  # Entra
    }
)


_CODE_REFUSED = frozenset({"invalid_grant", "bad_verification_code"})
"""RFC 6749 §5.2 and GitHub: expired, used twice, or issued for another redirection."""


def _random(size: int = 32) -> Secret:
    return Secret(secrets.token_urlsafe(size))


@dataclass(frozen=True, slots=True)
class WebLogin:
    """A browser that was sent to the provider and has not returned; every value is used once."""

    redirect_uri: str
    state: Secret = field(default_factory=_random)
    nonce: Secret = field(default_factory=_random)
    verifier: Secret = field(default_factory=lambda: _random(48))


def challenge(verifier: Secret) -> str:
    """Derive the S256 challenge (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.reveal().encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def authorize_url(client: CodeClient, web: WebLogin) -> str:
    """Return the URL to which the browser is sent; it holds `state` and must not be logged."""
    query = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": web.redirect_uri,
        "scope": " ".join(client.scopes),
        "state": web.state.reveal(),
        "nonce": web.nonce.reveal(),
        "code_challenge": challenge(web.verifier),
        "code_challenge_method": "S256",
        **client.extra,
    }
    return f"{client.authorize_url}{'&' if '?' in client.authorize_url else '?'}{urlencode(query)}"


def read_callback(client: CodeClient, query: Mapping[str, str]) -> Secret:
    """Return the code from the parameters that the browser brought back; `state` is checked before.

    Raises: ApprovalDenied, ProviderMisconfigured.
    """
    issuer = query.get("iss")
    if client.issuer and (issuer is not None or client.requires_iss) and issuer != client.issuer:
        raise _misfit(client, "the response is by another issuer (RFC 9207)")
    if error := query.get("error"):
        _stop(client, error)
    if not (code := query.get("code")):
        raise _misfit(client, "the response has no code")
    return Secret(code)


async def redeem(client: CodeClient, web: WebLogin, code: Secret, http: Http) -> Tokens:
    """Exchange a code for tokens (RFC 6749 §4.1.3), once: a lost reply is not requested again.

    Raises: ApprovalDenied, CodeExpired, ProviderMisconfigured, ProviderUnavailable.
    """
    form: dict[str, str | Secret] = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": web.redirect_uri,
        "code_verifier": web.verifier,
    }
    return await _tokens(client, form, http, _stop_code)


async def refresh(client: CodeClient, token: Secret, http: Http) -> Tokens:
    """Exchange a refresh token for new tokens (RFC 6749 §6), once: the token may be good for one use.

    Raises: GrantEnded when the provider refuses the token; ProviderMisconfigured; ProviderUnavailable,
        whose `may_have_acted` shows whether the token may be spent.
    """
    form: dict[str, str | Secret] = {"grant_type": "refresh_token", "refresh_token": token}
    return await _tokens(client, form, http, _stop_refresh)


async def _tokens(
    client: CodeClient, form: dict[str, str | Secret], http: Http, stop: Callable[[CodeClient, str], NoReturn]
) -> Tokens:
    """Send a form to the token endpoint, as this client, and return the tokens."""
    form["client_id"] = client.client_id
    basic = None
    if client.client_secret is not None:
        if client.basic:
            basic = client_credentials(client.client_id, client.client_secret)
        else:
            form["client_secret"] = client.client_secret
    try:
        reply = await http.send(Request(client.token_url, form=form, basic=basic))
    except HttpFailed as exc:
        raise _away(client, str(exc), may_have_acted=exc.was_sent) from None
    answer = parse_answer(reply)
    error = answer.get("error")
    if is_temporary(reply, answer):
        raise _away(
            client,
            f"status {reply.status} in answer to a grant",
            is_busy=True,
            may_have_acted=error not in TEMPORARY,
        )
    if error:
        stop(client, str(error))
    if not 200 <= reply.status < 300 or not answer:
        raise _away(client, f"status {reply.status} in answer to a grant", may_have_acted=True)
    return read_tokens(client.provider, answer)


def _stop_code(client: CodeClient, error: str) -> NoReturn:
    if error in _CODE_REFUSED:
        raise CodeExpired(
            f"{client.provider}: {error}",
            user_message="this sign-in was completed already, or it took too long",
        )
    _stop(client, error)


def _stop_refresh(client: CodeClient, error: str) -> NoReturn:
    if error in _REFRESH_REFUSED:
        raise GrantEnded(
            f"{client.provider}: {error}",
            user_message=f"{client.provider} does not vouch for this account any more",
        )
    _stop(client, error)


def _stop(client: CodeClient, error: str) -> NoReturn:
    word = error if error.replace("_", "").isalnum() and len(error) <= 64 else "unreadable error"
    if word in ("access_denied", "consent_required", "login_required", "interaction_required"):
        raise ApprovalDenied(
            f"{client.provider}: {word}", user_message=f"the request was denied at {client.provider}"
        )
    if word in TEMPORARY:
        raise _away(client, word, is_busy=True)
    raise _misfit(client, word)


def _misfit(client: CodeClient, reason: str) -> OnboardingError:
    return ProviderMisconfigured(
        f"{client.provider}: {reason}",
        user_message=f"login by {client.provider} does not work; its settings need an operator",
    )


def _away(
    client: CodeClient, reason: str, *, is_busy: bool = False, may_have_acted: bool = False
) -> OnboardingError:
    sentence = busy(client.provider) if is_busy else f"{client.provider} does not answer at the moment"
    error = ProviderUnavailable(f"{client.provider}: {reason}", user_message=sentence)
    error.may_have_acted = may_have_acted
    return error
