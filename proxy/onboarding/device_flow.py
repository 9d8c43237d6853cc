"""Device authorization grant, the client's half: RFC 8628 and the deviations of real providers.

    start   POST device_authorization_endpoint  →  Authorization (shown to the user)
    poll    wait · POST token_endpoint · … until the first of: tokens, a final error, expiry

Both are generators that yield a `Send` or a `Wait` and are sent an `Event`; they do no I/O, and request
nothing after the last reply that matters. `drive` executes them.

Accepted deviations, each of them seen (RFC 8628 §3.2-3.5 says otherwise):
    GitHub     errors with status 200, form-encoded replies, `interval` in the body of `slow_down`
    Google     `verification_url`; pending is 428, slow_down and denial are 403
    Dex        pending as 401 in older releases
    Entra      `authorization_declined`, `bad_verification_code`
    any        missing `interval`, numbers as strings, HTML or half a reply from an intermediary;
               a rate limit or an overload as an OAuth error (`temporarily_unavailable`, …) of any status
"""

import json
import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from proxy.errors.login import ApprovalDenied, CodeExpired, ProviderMisconfigured, ProviderUnavailable
from proxy.http.client import Http, HttpFailed, Reply, Request, client_credentials
from proxy.http.clock import REAL, Clock
from proxy.http.secret import Secret
from proxy.settings.urls import check_url

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL_S = 5.0  # RFC 8628 §3.2
SLOW_DOWN_S = 5.0  # RFC 8628 §3.5
START_ATTEMPTS = 3
MAX_BACKOFF_S = 60.0
MAX_RETRY_AFTER_S = 300.0
"""Longest pause between polls that a `Retry-After` gets, because a user waits in a terminal."""
MAX_START_RETRY_AFTER_S = 8.0
"""Longest pause before a code is shown; a provider that asks for more is reported as busy at once."""
MARGIN = 1.2
"""Factor on the requested distance of polls: clocks of virtual machines run fast, and a poll that comes too
early costs five seconds each time (seen with the GitHub command line, cli#9370).
"""

_DENIED = frozenset({"access_denied", "authorization_declined"})
_EXPIRED = frozenset({"expired_token", "token_expired", "code_expired"})
TEMPORARY = frozenset(
    {
        *("temporarily_unavailable", "server_error"),  # RFC 6749 §4.1.2.1, also seen at token endpoints
        *("too_many_requests", "rate_limit_exceeded", "service_unavailable", "internal_server_error"),
    }
)
"""OAuth errors that do not concern the request: the same one may succeed later, with any status."""
_FINAL = frozenset(
    {
        *("authorization_pending", "slow_down", *_DENIED, *_EXPIRED),  # RFC 8628 §3.5
        *("invalid_request", "invalid_client", "invalid_grant", "invalid_scope"),  # RFC 6749 §5.2
        *("unauthorized_client", "unsupported_grant_type"),
        *("bad_verification_code", "incorrect_device_code", "incorrect_client_credentials"),  # GitHub
        "device_flow_disabled",
    }
)
"""OAuth errors that concern the request, even with a status of a failing server."""
_USER_CODE = re.compile(r"[!-~][ -~]{0,63}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
MAX_REFRESH_TOKEN = 16 * 1024
_ERROR_WORD = re.compile(r"[a-zA-Z0-9_.-]{1,64}")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DeviceClient:
    """A client as registered at one provider, and that provider's endpoints."""

    provider: str
    """The name of the provider, for messages."""
    device_url: str
    token_url: str
    client_id: str
    client_secret: Secret | None = None
    basic: bool = False
    """Send the secret as RFC 6749 §2.3.1 Basic credentials rather than in the form."""
    scopes: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    """More parameters of the first request; the development provider shows them to the user."""
    max_lifetime_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Authorization:
    """A code that waits for approval (RFC 8628 §3.2); times by the clock of the flow."""

    device_code: Secret
    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str = field(repr=False)
    """Holds the user code; empty when the provider gives none."""
    expires_at: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of an approval."""

    access: Secret
    id_token: Secret | None = None
    scope: str = ""
    refresh: Secret | None = None
    refresh_lifetime_s: float | None = None
    """Seconds for which `refresh` is good; None when the provider does not say."""


@dataclass(frozen=True, slots=True)
class Send:
    """A step that sends a request; its Event has the reply or the failure."""

    request: Request


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that waits for some seconds; its Event has no reply."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """The result of a step, and the time at which it ended."""

    now: float
    reply: Reply | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A missing or unusable reply; a repetition may help."""

    text: str
    retry_after_s: float = 0.0
    is_busy: bool = False
    """The provider asks for a pause, or fails."""


_NO_TROUBLE = _Trouble("")

Step = Send | Wait
Steps = Generator[Step, Event, _T]


# ------------------------------------------------------------------------------------- the flow


def start(client: DeviceClient) -> Steps[Authorization]:
    """Request a code (RFC 8628 §3.1).

    Raises: ProviderUnavailable after START_ATTEMPTS failures, or at once when `Retry-After` asks for more
        than MAX_START_RETRY_AFTER_S; ProviderMisconfigured when refused.
    """
    form = _form(client, scope=" ".join(client.scopes), **client.extra)
    trouble = _NO_TROUBLE
    for attempt in range(START_ATTEMPTS):
        if attempt:
            yield Wait(max(2.0 ** (attempt - 1), trouble.retry_after_s))
        event = yield Send(_request(client, client.device_url, form))
        answer = _read(event)
        if isinstance(answer, _Trouble):
            trouble = answer
            if trouble.retry_after_s > MAX_START_RETRY_AFTER_S:
                break
        elif error := _error_of(answer):
            _stop(client, error, "the first request")
        elif event.reply is not None and 200 <= event.reply.status < 300:
            return _authorization(client, answer, event.now)
        else:
            trouble = _Trouble("an answer that is neither a code nor an error")
    raise ProviderUnavailable(
        f"{client.provider}: no device code: {trouble.text}", user_message=_away(client.provider, trouble)
    )


def poll(client: DeviceClient, authorization: Authorization, now: float) -> Steps[Tokens]:
    """Poll until there is an answer (RFC 8628 §3.4-3.5); the first poll comes after one interval.

    After an unusable reply the poll is repeated until the code expires, with growing pauses, and not before
    the time that `Retry-After` names (at most MAX_RETRY_AFTER_S).

    Raises: CodeExpired, ApprovalDenied, ProviderMisconfigured; ProviderUnavailable when the code
        expired while the provider was failing.
    """
    form = _form(client, grant_type=GRANT_TYPE, device_code=authorization.device_code)
    interval, failures, trouble = authorization.interval_s, 0, _NO_TROUBLE
    while True:
        pause = min(interval * MARGIN * 2**failures, MAX_BACKOFF_S)
        pause = max(pause, interval, min(trouble.retry_after_s, MAX_RETRY_AFTER_S))
        if now + pause >= authorization.expires_at:
            yield Wait(max(0.0, authorization.expires_at - now))
            _expire(client, trouble)
        now = (yield Wait(pause)).now
        event = yield Send(_request(client, client.token_url, form))
        now = event.now
        answer = _read(event)
        if isinstance(answer, _Trouble):
            failures, trouble = min(failures + 1, 10), answer
            continue
        match _error_of(answer):
            case "":
                return read_tokens(client.provider, answer)
            case "authorization_pending":
                pass
            case "slow_down":
                interval = max(interval + SLOW_DOWN_S, _number(answer.get("interval")) or 0.0)
            case error:
                _stop(client, error, "a poll", after=trouble.text)
        failures, trouble = 0, _NO_TROUBLE


async def drive(
    steps: Steps[_T],
    http: Http,
    *,
    clock: Clock = REAL,
    gate: Callable[[], Awaitable[None]] | None = None,
) -> _T:
    """Execute a flow to its end; `gate` is awaited before each request and may delay it or raise.

    Cancelled: at once, also during a request; nothing more is requested of the provider.
    """
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                await clock.sleep(step.seconds)
                event = Event(clock.now())
            else:
                if gate is not None:
                    await gate()
                event = await _carry(step.request, http, clock)
            step = steps.send(event)
    except StopIteration as end:
        result: _T = end.value
        return result
    finally:
        steps.close()


async def obtain(client: DeviceClient, http: Http, clock: Clock) -> Authorization:
    """Run `start`."""
    return await drive(start(client), http, clock=clock)


async def await_approval(
    client: DeviceClient,
    authorization: Authorization,
    http: Http,
    clock: Clock,
    gate: Callable[[], Awaitable[None]] | None,
) -> Tokens:
    """Run `poll` from now on."""
    return await drive(poll(client, authorization, clock.now()), http, clock=clock, gate=gate)


async def _carry(request: Request, http: Http, clock: Clock) -> Event:
    try:
        reply = await http.send(request)
    except HttpFailed as exc:
        return Event(clock.now(), failure=str(exc))
    return Event(clock.now(), reply)


# ---------------------------------------------------------------------------------- the requests


def _form(client: DeviceClient, **fields: str | Secret) -> dict[str, str | Secret]:
    form: dict[str, str | Secret] = {"client_id": client.client_id}
    if client.client_secret is not None and not client.basic:
        form["client_secret"] = client.client_secret
    return form | {key: value for key, value in fields.items() if value}


def _request(client: DeviceClient, url: str, form: Mapping[str, str | Secret]) -> Request:
    if not client.basic or client.client_secret is None:
        return Request(url, form=form)
    return Request(url, form=form, basic=client_credentials(client.client_id, client.client_secret))


# ----------------------------------------------------------------------------------- the replies


def _read(event: Event) -> "dict[str, Any] | _Trouble":
    """Return the parameters of an OAuth reply, or the trouble with it."""
    reply = event.reply
    if reply is None:
        return _Trouble(event.failure or "no answer")
    answer = parse_answer(reply)
    error = _error_of(answer)
    if is_temporary(reply, answer):
        return _Trouble(f"status {reply.status} {error}".strip(), reply.retry_after_s, is_busy=True)
    if error:
        return answer
    if not 200 <= reply.status < 300:
        return _Trouble(f"status {reply.status} without an OAuth error")
    if not answer:
        return _Trouble(f"status {reply.status} with a body that is no OAuth answer")
    if not ("access_token" in answer or "device_code" in answer):
        return _Trouble(f"status {reply.status} with neither a result nor an error")
    return answer


def is_temporary(reply: Reply, answer: Mapping[str, Any]) -> bool:
    """Return whether a reply only reports a busy or failing provider, in any of the forms seen.

    Shared with the authorization code grant.
    """
    error = _error_of(answer)
    return error in TEMPORARY or (reply.is_passing and error not in _FINAL)


def parse_answer(reply: Reply) -> dict[str, Any]:
    """Parse JSON, or the form encoding that GitHub falls back to; empty when it is neither.

    Shared with the authorization code grant.
    """
    text = reply.body.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        return answer if isinstance(answer, dict) else {}
    if text.startswith("<") or "=" not in text:
        return {}
    try:
        return dict(parse_qsl(text, strict_parsing=True, max_num_fields=50))
    except ValueError:
        return {}


def _error_of(answer: Mapping[str, Any]) -> str:
    """Return the OAuth error, with any status; a reply that has one is no success."""
    error = answer.get("error")
    if not error:
        return ""
    return error if isinstance(error, str) and _ERROR_WORD.fullmatch(error) else "unreadable_error"


def _authorization(client: DeviceClient, answer: Mapping[str, Any], now: float) -> Authorization:
    device_code, user_code = answer.get("device_code"), answer.get("user_code")
    uri = answer.get("verification_uri") or answer.get("verification_url")  # Google
    complete = answer.get("verification_uri_complete") or answer.get("verification_url_complete") or ""
    if not isinstance(device_code, str) or not device_code:
        _unfit(client, "device_code")
    # Both are written to a terminal, where control characters could do harm.
    if not isinstance(user_code, str) or not _USER_CODE.fullmatch(user_code):
        _unfit(client, "user_code")
    if not _is_showable(uri):
        _unfit(client, "verification_uri")
    lifetime = min(_number(answer.get("expires_in")) or 300.0, client.max_lifetime_s)
    interval = _number(answer.get("interval"))
    return Authorization(
        Secret(device_code),
        user_code,
        str(uri),
        complete if _is_showable(complete) else "",
        now + lifetime,
        DEFAULT_INTERVAL_S if interval is None else min(max(interval, 1.0), 300.0),
    )


def read_tokens(provider: str, answer: Mapping[str, Any]) -> Tokens:
    """Read tokens (RFC 6749 §5.1); shared with the authorization code grant.

    Raises: ProviderMisconfigured for a token that cannot be used as a bearer.
    """
    access, id_token = answer.get("access_token"), answer.get("id_token")
    if not isinstance(access, str) or not _TOKEN.fullmatch(access):
        raise ProviderMisconfigured(f"{provider}: unusable access_token", user_message=_unusable(provider))
    if str(answer.get("token_type") or "bearer").lower() != "bearer":
        raise ProviderMisconfigured(f"{provider}: not a bearer token", user_message=_unusable(provider))
    return Tokens(
        Secret(access),
        Secret(id_token) if isinstance(id_token, str) and id_token else None,
        str(answer.get("scope") or ""),
        _refresh_token(answer),
        _refresh_lifetime_s(answer),
    )


def _refresh_token(answer: Mapping[str, Any]) -> Secret | None:
    token = answer.get("refresh_token")
    if not isinstance(token, str) or len(token) > MAX_REFRESH_TOKEN or not _TOKEN.fullmatch(token):
        return None
    return Secret(token)


def _refresh_lifetime_s(answer: Mapping[str, Any]) -> float | None:
    """Return the lifetime of a refresh token, as Keycloak and GitHub give it; 0 is for ever."""
    for name in ("refresh_token_expires_in", "refresh_expires_in"):
        if seconds := _number(answer.get(name)):
            return seconds
    return None


def _is_showable(uri: object) -> bool:
    if not isinstance(uri, str) or len(uri) > 2_000 or not re.fullmatch(r"[!-~]+", uri):
        return False
    try:
        check_url(uri.partition("#")[0])
    except ValueError:
        return False
    return True


def _number(value: object) -> float | None:
    """Return a number of seconds; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 10**9 else None


# ------------------------------------------------------------------------------------- the ends


def _stop(client: DeviceClient, error: str, when: str, *, after: str = "") -> NoReturn:
    if error in _DENIED:
        raise ApprovalDenied(
            f"{client.provider}: {error}", user_message=f"the request was denied at {client.provider}"
        )
    if error in _EXPIRED:
        _expire(client, _NO_TROUBLE)
    if error == "invalid_grant" and after:
        # The lost reply may have been the tokens, and a code is good for one reply only.
        raise ProviderUnavailable(
            f"{client.provider}: the answer was lost ({after})",
            user_message=_away(client.provider, _NO_TROUBLE),
        )
    raise ProviderMisconfigured(
        f"{client.provider}: {error} in answer to {when}", user_message=_unusable(client.provider)
    )


def _expire(client: DeviceClient, trouble: _Trouble) -> NoReturn:
    if trouble.text:
        raise ProviderUnavailable(
            f"{client.provider}: failing until the code expired: {trouble.text}",
            user_message=_away(client.provider, trouble),
        )
    raise CodeExpired(f"{client.provider}: code expired", user_message="the code expired before it was used")


def _unfit(client: DeviceClient, parameter: str) -> NoReturn:
    raise ProviderMisconfigured(
        f"{client.provider}: missing or unusable {parameter} in the device authorization answer",
        user_message=_unusable(client.provider),
    )


def _away(provider: str, trouble: _Trouble) -> str:
    return busy(provider) if trouble.is_busy else f"{provider} does not answer at the moment"


def busy(provider: str) -> str:
    """Return the sentence for a user whose provider reports that it is busy."""
    return f"{provider} is busy at the moment; try again in a few minutes"


def _unusable(provider: str) -> str:
    return f"login by {provider} does not work; its settings need an operator"
