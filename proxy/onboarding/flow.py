"""The onboarding of an unknown user: from a proved key to a user, or to the reason against it.

`begin` joins or starts a flow; `Pending.outcome` waits for its end. A flow belongs to (source, name, key): a
client that reconnects with the same key is shown the same code, and no other client ever shares it. A
provider is polled only while a client waits; a flow without clients ends after `linger_s`.

    begin ── caps ── code to show ── approval ── profile ── key list ── decide ── register ── ApprovedUser
                                        └──────────── every step may end in an OnboardingError
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog

from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.login import (
    CodeExpired,
    KeyNotProved,
    OnboardingError,
    OnboardingRefused,
    ProviderUnavailable,
    Waitlisted,
)
from proxy.errors.stores import KeyInvalid, StoreError
from proxy.http.clock import REAL, Clock
from proxy.http.secret import Secret
from proxy.identity import reserved_names
from proxy.identity.keys import PublicKey, parse_public_key
from proxy.identity.profile import KeyList, Profile
from proxy.onboarding import admission
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.limits import OnboardingLimits
from proxy.onboarding.providers.base import ApprovalFacts, Provider
from proxy.onboarding.providers.keylists import parse_lines
from proxy.onboarding.rules import Rules
from proxy.onboarding.tickets import Confirmer, Ticket
from proxy.settings.onboarding import OnboardingSettings

_log = structlog.get_logger("onboarding")


class Registrar(Protocol):
    """The recorder of users who are admitted."""

    async def register(self, profile: Profile, name: str, key: PublicKey, provider: str) -> None:
        """Add the user of (profile.issuer, profile.subject), with this key; a repetition changes nothing.

        Raises: NameTaken when the name, or that subject, belongs to another record; OnboardingRejected
            when an operator rejected the account; StoreError.
        """

    async def renew(self, profile: Profile, name: str) -> None:
        """Update a known user with the provider's present description of the account.

        Raises: NameTaken when the user is bound to another account; StoreError.
        """

    async def waitlist(self, profile: Profile, name: str, key: PublicKey, source: str) -> None:
        """Put a user on the waiting list, with this key; on repetition, the last key counts.

        `source` is the client's address. Raises: as register.
        """


@dataclass(frozen=True, slots=True)
class DisplayedCode:
    """The texts that the user in the terminal sees."""

    provider: str
    verification_uri: str
    verification_uri_complete: str
    """Holds the code; empty when the provider gives none."""
    user_code: str
    is_code_typed: bool
    """False: the link holds the code, and the user only compares it with the one on the page."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ApprovedUser:
    """A recorded user, with the key that was proved."""

    profile: Profile
    name: str
    key: PublicKey
    is_list_stale: bool = False
    """The provider did not give its key list; the last known one decided."""


KeepGrant = Callable[[str, Profile, Tokens], Awaitable[None]]
"""Keeps the grant of an approval, with which the account of a user is read again later."""


async def discard_grant(name: str, profile: Profile, tokens: Tokens) -> None:
    """Discard the grant of an approval."""


@dataclass(frozen=True, slots=True)
class _Approval:
    profile: Profile
    tokens: Tokens
    listed: KeyList | None


_FlowId = tuple[str, str, bytes, bool]


@dataclass(slots=True)
class _Flow:
    source: str
    name: str
    key: PublicKey
    provider: Provider
    renews: bool
    """The user is known, with this key; the approval only reads the account again."""
    shown: "asyncio.Future[DisplayedCode]"
    result: "asyncio.Future[ApprovedUser]"
    is_awaited: asyncio.Event = field(default_factory=asyncio.Event)
    waiters: int = 0
    approval: _Approval | None = None
    ticket: Ticket | None = None
    """The request on Fairlead's page, where the provider needs one."""
    task: "asyncio.Task[None] | None" = None
    linger: "asyncio.Task[None] | None" = None

    @property
    def id(self) -> "_FlowId":
        return self.source, self.name, self.key.blob, self.renews


class Pending:
    """One connection's share in a flow. To leave, cancel `outcome`."""

    def __init__(self, owner: "Onboarding", flow: _Flow, shown: DisplayedCode) -> None:
        self._owner = owner
        self._flow = flow
        self.shown = shown

    async def outcome(self) -> ApprovedUser:
        """Wait for the approval; ends by itself when the code expires.

        Raises: OnboardingError (each leaf has its own `code` and sentence), StoreError.
        Cancelled: the provider is no longer polled unless another connection waits too.
        """
        return await self._owner.wait(self._flow)

    async def try_key(self, key_blob: bytes) -> ApprovedUser:
        """Decide on another key, proved by the same connection, after `outcome` refused the first.

        Raises: OnboardingError, StoreError.
        """
        return await self._owner.judge(self._flow, parse_key(key_blob))


class Onboarding:
    """The flows of one process."""

    def __init__(
        self,
        providers: Sequence[Provider],
        registrar: Registrar,
        settings: OnboardingSettings,
        confirmer: Confirmer | None = None,
        *,
        clock: Clock = REAL,
        keep: KeepGrant = discard_grant,
    ) -> None:
        self._by_name = {provider.name: provider for provider in providers}
        self._providers = tuple(provider for provider in providers if provider.can_onboard)
        self._keep = keep
        self._registrar = registrar
        self._settings = settings
        self._rules = Rules(settings.rules, settings.otherwise or "refuse")
        self._confirmer = confirmer
        self._clock = clock
        self._intake = OnboardingLimits(settings)
        self._next_poll = 0.0
        self._flows: dict[_FlowId, _Flow] = {}
        self._tasks = TaskOwner("onboarding")

    def __len__(self) -> int:
        """Return the number of pending flows."""
        return len(self._flows)

    @property
    def is_open(self) -> bool:
        """Return whether new users can be onboarded at all."""
        return bool(self._providers)

    async def close(self) -> None:
        """End every flow."""
        await self._tasks.close()

    async def begin(self, source: str, name: str, key_blob: bytes | None) -> Pending:
        """Join or start the flow of this source, name and key, and return when there is a code to show.

        `key_blob` is a key whose signature this connection has verified; None is refused.

        Raises: KeyNotProved, OnboardingRefused (of reserved names too), TooManyPending and below,
            ProviderUnavailable, ProviderMisconfigured.
        Cancelled: the flow continues for `linger_s`, for a client that reconnects.
        """
        if key_blob is None:
            raise KeyNotProved("no key was proved", user_message="a key has to be proved first")
        if not (decision := reserved_names.may_be_account(name)):
            raise OnboardingRefused(decision.reason)
        if not self._providers:
            raise OnboardingRefused(
                "no provider can onboard", user_message="new users cannot register themselves here"
            )
        return await self._join(source, name, parse_key(key_blob), self._providers[0], renews=False)

    async def renew(self, source: str, name: str, key_blob: bytes, provider: str) -> Pending:
        """Ask a known user to approve at `provider` again, as `begin` does; the key is admitted already.

        Raises: ProviderUnavailable, ProviderMisconfigured, TooManyPending and below.
        """
        known = self._by_name.get(provider)
        if known is None:
            raise OnboardingRefused(
                f"there is no provider {provider} any more",
                user_message=f"your account at {provider} cannot be approved here any more",
            )
        return await self._join(source, name, parse_key(key_blob), known, renews=True)

    async def _join(
        self, source: str, name: str, key: PublicKey, provider: Provider, *, renews: bool
    ) -> Pending:
        flow = self._flows.get((source, name, key.blob, renews))
        if flow is None:
            flow = self._start(source, name, key, provider, renews=renews)
        return Pending(self, flow, await asyncio.shield(flow.shown))

    async def wait(self, flow: _Flow) -> ApprovedUser:
        """Wait until the flow ends, counted as waiting; for Pending."""
        flow.waiters += 1
        flow.is_awaited.set()
        if flow.linger is not None:
            flow.linger.cancel()
            flow.linger = None
        try:
            return await asyncio.shield(flow.result)
        finally:
            flow.waiters -= 1
            if not flow.waiters:
                flow.is_awaited.clear()
                self._let_linger(flow)

    async def judge(self, flow: _Flow, key: PublicKey) -> ApprovedUser:
        """Decide on a key with the approval of a flow, and record the user when it is good."""
        approval = flow.approval
        if approval is None:
            raise KeyNotProved("no approval came", user_message="this login was not approved")
        profile, listed = approval.profile, approval.listed
        if flow.renews:
            await self._renewed(flow, profile)
            await self._keep_grant(flow.name, approval)
            return ApprovedUser(profile, flow.name, key)
        request = admission.AdmissionRequest(flow.name, key.blob)
        refusal = admission.decide(request, profile, listed, profile.confirmed, self._rules)
        try:
            if isinstance(refusal, Waitlisted):
                await self._registrar.waitlist(profile, flow.name, key, flow.source)
            if refusal is not None:
                raise refusal
            await self._registrar.register(profile, flow.name, key, profile.provider)
            await self._keep_grant(flow.name, approval)
        except OnboardingError as exc:
            exc.account = profile.login
            raise
        return ApprovedUser(profile, flow.name, key, listed is not None and listed.stale)

    async def _renewed(self, flow: _Flow, profile: Profile) -> None:
        """Update a known user, who needs no rule any more, from the provider."""
        if not profile.active:
            raise admission.inactive(profile)
        try:
            await self._registrar.renew(profile, flow.name)
        except OnboardingError as exc:
            exc.account = profile.login
            raise

    async def _keep_grant(self, name: str, approval: _Approval) -> None:
        try:
            await self._keep(name, approval.profile, approval.tokens)
        except StoreError as exc:  # the user is admitted; the account is read again at a later login
            _log.warning("a grant was not kept", user=name, reason=str(exc))

    # ------------------------------------------------------------------------------------ one flow

    def _start(self, source: str, name: str, key: PublicKey, provider: Provider, *, renews: bool) -> _Flow:
        self._intake.enter(source, name, self._clock.now())
        loop = asyncio.get_running_loop()
        flow = _Flow(source, name, key, provider, renews, loop.create_future(), loop.create_future())
        for future in (flow.shown, flow.result):
            future.add_done_callback(_retrieve)
        self._flows[flow.id] = flow
        flow.task = self._tasks.spawn(self._run(flow), name=f"flow of {name}")
        self._let_linger(flow)
        _log.info("onboarding begun", **_facts(flow))
        return flow

    async def _run(self, flow: _Flow) -> None:
        """Run a flow to its end, and report the end to its waiting connections."""
        try:
            if flow.provider.approval == "confirm":
                profile, tokens = await self._by_page(flow)
            else:
                profile, tokens = await self._by_code(flow)
            async with asyncio.timeout(self._settings.settle_timeout_s):
                # A key that is known already is checked against its list at each login, not here.
                listed = None if flow.renews else await _key_list(flow.provider, profile, tokens.access)
                flow.approval = _Approval(profile, tokens, listed)
                approved = await self.judge(flow, flow.key)
        except asyncio.CancelledError:
            self._end(flow, CodeExpired("no login was waiting", user_message="no login was waiting any more"))
            raise
        except TimeoutError:
            self._end(flow, _too_slow(flow, "profile and keys"))
        except FairleadError as exc:
            self._end(flow, exc)
        except BaseException:
            self._end(flow, OnboardingError("onboarding failed", user_message="internal error"))
            raise
        else:
            self._end(flow, approved)

    async def _by_code(self, flow: _Flow) -> tuple[Profile, Tokens]:
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                authorization = await flow.provider.start_device(_about(flow), self._settings.max_lifetime_s)
        except TimeoutError:
            raise _too_slow(flow, "a device code") from None
        lifetime_s = authorization.expires_at - self._clock.now()
        flow.shown.set_result(
            DisplayedCode(
                flow.provider.name,
                authorization.verification_uri,
                authorization.verification_uri_complete,
                authorization.user_code,
                is_code_typed=True,
                expires_at=datetime.now(UTC) + timedelta(seconds=lifetime_s),
            )
        )
        tokens = await flow.provider.poll_device(authorization, self._gate(flow))
        async with asyncio.timeout(self._settings.settle_timeout_s):
            return await flow.provider.profile(tokens), tokens

    async def _by_page(self, flow: _Flow) -> tuple[Profile, Tokens]:
        assert self._confirmer is not None, "a provider that needs the confirm page has none"
        lifetime_s = self._settings.max_lifetime_s
        ticket = flow.ticket = self._confirmer.open(flow.provider, _about(flow))
        expires_at = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        flow.shown.set_result(
            DisplayedCode(
                flow.provider.name,
                ticket.uri,
                ticket.uri,
                ticket.code,
                is_code_typed=False,
                expires_at=expires_at,
            )
        )
        try:
            async with asyncio.timeout(lifetime_s):
                confirmation = await ticket.done
        except TimeoutError:
            raise CodeExpired("not confirmed", user_message="the link expired before it was used") from None
        finally:
            self._confirmer.close(ticket)
        confirmed = frozenset([flow.key.fingerprint])
        return replace(confirmation.profile, confirmed=confirmed), confirmation.tokens

    def _gate(self, flow: _Flow) -> Callable[[], Awaitable[None]]:
        async def gate() -> None:
            await flow.is_awaited.wait()
            await self._pace()

        return gate

    async def _pace(self) -> None:
        """Space polls out: otherwise flows that began together would be polled together every time."""
        now = self._clock.now()
        self._next_poll = max(now, self._next_poll)
        wait_s = self._next_poll - now
        self._next_poll += 1 / self._settings.polls_per_s
        if wait_s > 0:
            await self._clock.sleep(wait_s)

    def _let_linger(self, flow: _Flow) -> None:
        if not flow.result.done() and flow.linger is None:
            flow.linger = self._tasks.spawn(self._linger(flow), name=f"linger of {flow.name}")

    async def _linger(self, flow: _Flow) -> None:
        await self._clock.sleep(self._settings.linger_s)
        if flow.task is not None and not flow.waiters:
            flow.task.cancel()

    def _end(self, flow: _Flow, result: ApprovedUser | FairleadError) -> None:
        """End a flow for its waiting connections, and make room for a new one.

        Its code is worthless from now on.
        """
        if self._flows.get(flow.id) is flow:
            del self._flows[flow.id]
            self._intake.leave(flow.source, flow.name)
        if flow.linger is not None:
            flow.linger.cancel()
        if flow.ticket is not None:
            flow.ticket.tell(None if isinstance(result, ApprovedUser) else result)
        if isinstance(result, ApprovedUser):
            flow.result.set_result(result)
            what = "approved again" if flow.renews else "onboarded"
            _log.info(what, account=result.profile.login, stale=result.is_list_stale, **_facts(flow))
            return
        for future in (flow.shown, flow.result):
            if not future.done():
                future.set_exception(result)
        _log.info("onboarding ended", code=result.code, reason=str(result), **_facts(flow))


def parse_key(blob: bytes) -> PublicKey:
    """Check a key before the user is asked for anything.

    Raises: OnboardingRefused for a kind or strength that the directory would not keep.
    """
    size = int.from_bytes(blob[:4], "big")
    algorithm = blob[4 : 4 + min(size, 64)].decode("ascii", "replace")
    try:
        return parse_public_key(f"{algorithm} {base64.b64encode(blob).decode()}")
    except KeyInvalid as exc:
        raise OnboardingRefused(
            f"unusable key: {exc}", user_message=f"your key cannot be used: {exc}"
        ) from None


async def _key_list(provider: Provider, profile: Profile, access: Secret) -> KeyList | None:
    if profile.keys is not None:
        return KeyList(parse_lines(profile.keys, len(profile.keys)))
    return await provider.keys(profile.subject, profile.login, access)


def _about(flow: _Flow) -> ApprovalFacts:
    return ApprovalFacts(flow.name, flow.source, flow.key.fingerprint)


def _facts(flow: _Flow) -> dict[str, str]:
    """Return the fields for a log line: neither code nor token."""
    return {
        "user": flow.name,
        "client": flow.source,
        "key": flow.key.fingerprint,
        "provider": flow.provider.name,
    }


def _too_slow(flow: _Flow, what: str) -> ProviderUnavailable:
    name = flow.provider.name
    return ProviderUnavailable(
        f"{name}: {what} took too long", user_message=f"{name} does not answer at the moment"
    )


def _retrieve(future: "asyncio.Future[Any]") -> None:
    """Mark an error as retrieved, because the waiting client may have left."""
    if not future.cancelled():
        future.exception()
