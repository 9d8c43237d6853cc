"""Authentication and admission of users, and the events about them.

Independent of SSH, SQL and HTTP: `ssh.login_flow` holds the state of one login, `identity` the records.
"""

from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import TypedDict

import structlog

from proxy import metrics
from proxy.access import policy
from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.login import (
    AccountEnded,
    LockedOut,
    OnboardingError,
    OnboardingRefused,
    UserExpired,
    Waitlisted,
)
from proxy.events import schema
from proxy.events.publisher import Publisher
from proxy.identity.directory import Directory, KeyStanding
from proxy.model import CertificateProof, KeyProof, LoginAttempt, Peer, Principal, User, fingerprint
from proxy.onboarding.flow import ApprovedUser, Onboarding, Pending
from proxy.onboarding.keysource import KeyChange, KeySource
from proxy.onboarding.refresher import AccountStanding, Refresher

_log = structlog.get_logger("logins")

CERTIFICATE = "certificate"
"""Origin of keys that come from no provider and no operator."""


class _Connection(TypedDict):
    """Fields of every event of a connection."""

    user: str
    client_address: str
    client_port: int
    client_version: str
    connection_id: str


class Standing(Enum):
    """The relation of a user name to the directory, before the client proves anything."""

    KNOWN = "known"
    BOUND = "bound"
    """Known, and bound to an account at a provider."""
    NEW = "new"
    """Unknown, while new users may log in through a provider."""
    UNKNOWN = "unknown"
    """Unknown, while no new user may log in; treated as a known user with other keys."""


class Authenticator:
    """The authentication of users; one for each process, shared by all connections."""

    def __init__(
        self,
        directory: Directory,
        keys: KeySource,
        publisher: Publisher,
        onboarding: Onboarding | None,
        accounts: Refresher | None = None,
    ) -> None:
        """Create it; `accounts` refreshes known users from their providers (None: no refresh)."""
        self._accounts = accounts
        self._directory = directory
        self._keys = keys
        self._publisher = publisher
        self._onboarding = onboarding
        self._tasks = TaskOwner("logins")

    async def standing(self, attempt: LoginAttempt) -> Standing:
        """Look the name up. Raises: StoreError."""
        user = await self._directory.find(attempt.user_string.user)
        if user is not None:
            return Standing.BOUND if user.provider else Standing.KNOWN
        is_open = self._onboarding is not None and self._onboarding.is_open
        return Standing.NEW if is_open else Standing.UNKNOWN

    async def recognises(self, attempt: LoginAttempt, key_blob: bytes) -> bool:
        """Return whether this key would log the user in; this proves nothing.

        Unknown users take the same queries as known ones, so that their time gives nothing away. For a user
        who is bound to a provider, the provider is asked besides.
        Raises: StoreError.
        """
        return await self._keys.recognises(attempt.user_string.user, key_blob)

    async def vouch(self, attempt: LoginAttempt, key_blob: bytes) -> AccountStanding:
        """Return the step that a proved key needs before a login; GOOD for a key of another user.

        Call only after the signature was verified. Raises: StoreError.
        """
        name = attempt.user_string.user
        if self._accounts is None or (key := await self._keys.key_of(name, key_blob)) is None:
            return AccountStanding.GOOD
        user = await self._directory.find(name)
        if user is None or not user.provider or not policy.may_login(user, datetime.now(UTC)):
            return AccountStanding.GOOD  # `admit` gives the reason
        return await self._accounts.vouch(name, key.origin)

    async def refresh(self, attempt: LoginAttempt) -> None:
        """Read the account of a user with a certificate again when that is due.

        Raises: StoreError.
        """
        if self._accounts is not None:
            await self._accounts.vouch(attempt.user_string.user, CERTIFICATE)

    async def admit(self, attempt: LoginAttempt, key_blob: bytes) -> Principal | None:
        """Return the principal of a proved key; None when it is not a key of the user.

        Call only after the signature was verified. Raises: StoreError; LoginRefused, which may name its
        reason because the key has identified the user.
        """
        name = attempt.user_string.user
        key = await self._keys.key_of(name, key_blob)
        if key is None:
            return None
        pair = name, key.key.fingerprint
        # User and key by one query: the name may have another owner since the key was found.
        standing = (await self._directory.standing_of({pair}))[pair]
        user = standing.user
        if user is None or not standing.has_key:
            return None
        self._check(user)
        _check_account(name, standing)
        self._tasks.spawn(self._directory.touch_key(key.id), name="touch key")
        return Principal(attempt.peer, user, KeyProof(key_blob))

    async def admit_certified(self, attempt: LoginAttempt, proof: CertificateProof) -> Principal | None:
        """Return the principal of a proved key with a certificate; None for an unknown user.

        Raises: StoreError, LoginRefused.
        """
        user = await self._directory.find(attempt.user_string.user)
        if user is None:
            return None
        self._check(user)
        return Principal(attempt.peer, user, proof)

    def _check(self, user: User) -> None:
        if not (decision := policy.may_login(user, datetime.now(UTC))):
            refusal = LockedOut if user.locked else UserExpired
            raise refusal(f"{user.name}: {decision.reason}", user_message=decision.reason)

    # ------------------------------------------------------------------------------- onboarding

    async def assure_new(self) -> None:
        """Check that an unknown name is really new, before its owner is offered an onboarding.

        Raises: StoreError when the directory lost users, because this may be one of them.
        """
        await self._directory.assure()

    async def begin_renewal(self, attempt: LoginAttempt, key_blob: bytes) -> Pending:
        """Ask a known user, whose key was proved, to approve at the provider of the account again.

        Raises: OnboardingError, StoreError.
        """
        name = attempt.user_string.user
        account = await self._directory.account_of(name)
        if self._onboarding is None or account is None:
            raise OnboardingRefused(
                f"{name} cannot be approved again",
                user_message="an approval is not possible here at the moment",
            )
        return await self._onboarding.renew(attempt.peer.host, name, key_blob, account.provider)

    async def begin_onboarding(self, attempt: LoginAttempt, key_blob: bytes, client_version: str) -> Pending:
        """Begin the onboarding of a new user whose key was proved; the result holds the texts to show.

        Raises: OnboardingError.
        """
        assert self._onboarding is not None
        name = attempt.user_string.user
        try:
            pending = await self._onboarding.begin(attempt.peer.host, name, key_blob)
        except OnboardingError as exc:
            self.onboarding_refused(attempt, key_blob, client_version, exc)
            raise
        self._publisher.publish(
            schema.OnboardingStarted(
                **_connection(attempt.peer, attempt.user_string.user, client_version),
                provider=pending.shown.provider,
                fingerprint=fingerprint(key_blob),
            )
        )
        return pending

    def onboarded(self, attempt: LoginAttempt, client_version: str, approved: ApprovedUser) -> None:
        """Publish that a new user is onboarded."""
        self._publisher.publish(
            schema.Onboarded(
                **_connection(attempt.peer, attempt.user_string.user, client_version),
                provider=approved.profile.provider,
                account=approved.profile.login,
                fingerprint=approved.key.fingerprint,
            )
        )

    def onboarding_refused(
        self,
        attempt: LoginAttempt,
        key_blob: bytes,
        client_version: str,
        exc: FairleadError,
        provider: str = "",
    ) -> None:
        """Publish that an onboarding ended without a user; `provider` is empty when it showed no code."""
        account = exc.account if isinstance(exc, OnboardingError) else ""
        refused = schema.OnboardingRefusedEvent(
            **_connection(attempt.peer, attempt.user_string.user, client_version),
            provider=provider,
            account=account,
            fingerprint=fingerprint(key_blob),
            reasons=(exc.code,),
        )
        if isinstance(exc, Waitlisted):
            facts = {item.name: getattr(refused, item.name) for item in fields(schema.WaitlistedEvent)}
            self._publisher.publish(schema.WaitlistedEvent(**facts))
        else:
            self._publisher.publish(refused)

    # ------------------------------------------------------------------------------- what is facts

    def failed(self, event: schema.AuthFailed) -> None:
        """Count and publish a connection that ended without a login."""
        metrics.LOGINS.labels("failed", next(iter(event.reasons), "gave_up")).inc()
        self._publisher.publish(event)

    def succeeded(self, principal: Principal, client_version: str, methods: tuple[str, ...]) -> None:
        """Count and publish a login."""
        metrics.LOGINS.labels("succeeded", "").inc()
        self._publisher.publish(
            schema.AuthSucceeded(
                **_connection(principal.client, principal.user.name, client_version),
                methods=methods,
                fingerprint=principal.fingerprint,
                certificate=principal.certificate,
            )
        )


def _check_account(name: str, standing: KeyStanding) -> None:
    """Refuse a key whose account the provider ended. Raises: AccountEnded."""
    if standing.ended_at_provider:
        decision = policy.account_ended(standing.ended_at_provider)
        raise AccountEnded(f"{name}: {decision.reason}", user_message=decision.reason)


def key_event(change: KeyChange) -> schema.Event:
    """Return the event of a key that a provider added or removed."""
    make = schema.KeyAdded if change.is_added else schema.KeyRemoved
    return make(
        user=change.user,
        actor=f"provider:{change.provider}",
        fingerprint=change.fingerprint,
        key_type=change.key_type,
        origin=change.provider,
    )


def _connection(peer: Peer, user: str, client_version: str) -> _Connection:
    return {
        "user": user,
        "client_address": peer.host,
        "client_port": peer.port,
        "client_version": client_version,
        "connection_id": peer.conn_id,
    }
