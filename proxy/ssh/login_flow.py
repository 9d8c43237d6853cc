"""The login of one connection as a state machine.

    KeyAwaited ──a proved key of a known user───────────────────────────────────────────▶ LoggedIn
     │├──a proved key of a new user──▶ ApprovalAwaited
     │└──the account has to be approved again──▶ RenewalDue ──the key is proved──▶ ApprovalAwaited
     │
     └──a proved certificate (also from RenewalDue and OtherKeyAwaited)─────────────────▶ LoggedIn

    ApprovalAwaited ──code shown──▶ ApprovalShown ──approved──▶ ApprovalGiven───────────▶ LoggedIn
                                      └──approved, but the key is not the account's──▶ OtherKeyDue

    OtherKeyDue ──end of the method──▶ OtherKeyAwaited ──a proved key of the account────▶ LoggedIn

A method that ends in another state than LoggedIn is a partial success (RFC 4252 §5.1): stock clients go on
with the next method in the same connection. A refused step leaves the state as it is.
Nothing is shown, started or charged before the client has proved a key.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from proxy.access.authentication import Authenticator, Standing
from proxy.errors import FairleadError
from proxy.errors.login import (
    AccountEnded,
    KeyNotConfirmed,
    KeyNotListed,
    KeyNotProved,
    LoginRefused,
    OnboardingError,
)
from proxy.errors.stores import KeyInvalid
from proxy.events.schema import AuthFailed
from proxy.identity.keys import check_offered
from proxy.identity.revoked_keys import Revocation, Revocations
from proxy.model import CertificateProof, KeyProof, LoginAttempt, Principal, fingerprint
from proxy.onboarding.flow import DisplayedCode, Pending
from proxy.onboarding.refresher import AccountStanding
from proxy.ssh.asyncssh_ext.certificates import Judgement, decode, judge, proof_of
from proxy.ssh.asyncssh_ext.hooks import AuthReply, Certificate

_MAX_REMEMBERED = 64

PUBLICKEY = "publickey"
KEYBOARD_INTERACTIVE = "keyboard-interactive"


@dataclass(frozen=True, slots=True)
class KeyAwaited:
    """The initial state: no key is proved."""


@dataclass(frozen=True, slots=True)
class RenewalDue:
    """A known user has to approve again; the proof of the key is being answered."""

    pending: Pending


@dataclass(frozen=True, slots=True)
class ApprovalAwaited:
    """A key is proved, and an approval at the provider is needed besides."""

    key: bytes
    """The proved key. The approval counts for this key alone."""
    renewal: Pending | None = None
    """The renewal of a known user; None for a new user, whose onboarding has not begun."""


@dataclass(frozen=True, slots=True)
class ApprovalShown:
    """A login whose client shows the address for the approval; the provider has not answered."""

    key: bytes
    pending: Pending
    is_renewal: bool


@dataclass(frozen=True, slots=True)
class ApprovalGiven:
    """The user approved, and the proved key may be used."""

    key: bytes
    pending: Pending
    is_renewal: bool


@dataclass(frozen=True, slots=True)
class OtherKeyDue:
    """The user approved, but the account has another key; keyboard-interactive is being answered."""

    pending: Pending
    is_renewal: bool


@dataclass(frozen=True, slots=True)
class OtherKeyAwaited:
    """The user approved, and the client may prove the key of the account."""

    pending: Pending
    is_renewal: bool


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The final state."""

    principal: Principal


State = (
    KeyAwaited
    | RenewalDue
    | ApprovalAwaited
    | ApprovalShown
    | ApprovalGiven
    | OtherKeyDue
    | OtherKeyAwaited
    | LoggedIn
)


class LoginFlow:
    """The state of one login and the data of its events; one user name for each connection."""

    def __init__(
        self,
        authenticator: Authenticator,
        attempt: LoginAttempt,
        standing: Standing,
        *,
        client_version: str,
        authorities: frozenset[bytes],
        revocations: Revocations,
        check: Callable[[Principal], None] = lambda _: None,
    ) -> None:
        """Begin in KeyAwaited. `check` is called last; it refuses by raising LoginRefused."""
        self.attempt = attempt
        self.state: State = KeyAwaited()
        self._authenticator = authenticator
        self._standing = standing
        self._client_version = client_version
        self._authorities = authorities
        self._revocations = revocations
        self._check = check
        self._methods: list[str] = []
        self._reasons: list[str] = []
        self._fingerprints: list[str] = []
        self._log = structlog.get_logger("ssh").bind(conn=attempt.peer.conn_id, user=attempt.user_string.user)

    def offers(self, method: str) -> bool:
        """Return whether `method` can bring the login further in this state."""
        match self.state:
            case KeyAwaited() | RenewalDue() | OtherKeyDue() | OtherKeyAwaited():
                return method == PUBLICKEY
            case ApprovalAwaited() | ApprovalShown() | ApprovalGiven():
                return method == KEYBOARD_INTERACTIVE
            case LoggedIn():
                return False

    @property
    def renewal_provider(self) -> str:
        """Name of the provider where a known user has to approve again; empty when that is not needed."""
        match self.state:
            case ApprovalAwaited(renewal=Pending() as pending):
                return pending.shown.provider
            case _:
                return ""

    def failed_method(self, method: str) -> bool:
        """Record a failed method; return True for a new user who asked for approval before proving a key."""
        if method != "none":
            self._note(method)
        skips_key = (
            method == KEYBOARD_INTERACTIVE
            and isinstance(self.state, KeyAwaited)
            and self._standing is Standing.NEW
        )
        if skips_key:
            self.fault(KeyNotProved.code)
        return skips_key

    # ----------------------------------------------------------------------------- offered keys

    async def offered(self, key_blob: bytes) -> str | None:
        """Decide whether the client may sign with this key.

        Return None if it may; else a sentence for the user, empty when the reason is not for the user.
        Raises: StoreError.
        """
        self._note(PUBLICKEY, fingerprint(key_blob))
        judgement = await self._judge_key(key_blob)
        is_any_key_welcome = self._standing is Standing.NEW or isinstance(
            self.state, OtherKeyDue | OtherKeyAwaited
        )
        if judgement and not is_any_key_welcome:
            recognised = await self._authenticator.recognises(self.attempt, key_blob)
            judgement = judgement if recognised else Judgement("key_unknown")
        return self._refusal(judgement)

    async def certificate_offered(self, certificate: Certificate) -> str | None:
        """Decide whether the client may sign with this certificate. Return as `offered` does."""
        self._note(PUBLICKEY, certificate.key.get_fingerprint())
        return self._refusal(await self._judge(certificate))

    def _refusal(self, judgement: Judgement) -> str | None:
        if judgement:
            return None
        self.fault(judgement.reason)
        return judgement.sentence

    async def _judge(self, certificate: Certificate) -> Judgement:
        name, address = self.attempt.user_string.user, self.attempt.peer.host
        judgement = judge(certificate, self._authorities, name, address, datetime.now(UTC))
        return await self._revocation(proof_of(certificate)) if judgement else judgement

    async def _judge_key(self, key_blob: bytes) -> Judgement:
        try:
            check_offered(key_blob)
        except KeyInvalid as exc:
            return Judgement("key_weak", f"this key is not accepted: {exc}")
        return await self._revocation(KeyProof(key_blob))

    async def _revocation(self, proof: KeyProof | CertificateProof) -> Judgement:
        """Look the credential up in the lists of revoked keys. Only the owner of a certificate reads why."""
        match (await self._revocations.current()).of(proof):
            case Revocation.GOOD:
                return Judgement()
            case Revocation.UNKNOWN:
                return Judgement("revocation_unknown")
            case Revocation.REVOKED if isinstance(proof, CertificateProof):
                return Judgement("certificate_revoked", "your certificate was revoked")
            case Revocation.REVOKED:
                return Judgement("key_revoked")

    # ------------------------------------------------------------------------------ proved keys

    async def ask_provider(self, key_blob: bytes) -> None:
        """Read the account of a known user again when that is due; call it before `proved`.

        This takes as long as the provider needs: call it where no other connection waits.

        Raises: OnboardingError for an account that has ended and cannot be approved again now; StoreError.
        """
        if self._standing is not Standing.BOUND or not isinstance(self.state, KeyAwaited | RenewalDue):
            return
        if decode(key_blob) is not None:
            await self._authenticator.refresh(self.attempt)
            return
        pending = await self._renewal(key_blob)
        self.state = KeyAwaited() if pending is None else RenewalDue(pending)

    async def _renewal(self, key_blob: bytes) -> Pending | None:
        """Begin the renewal of a known user at the provider; return None when none is needed or possible.

        A provider that cannot be asked now does not lock out a user whose account has not ended.

        Raises: OnboardingError, StoreError.
        """
        vouch = await self._authenticator.vouch(self.attempt, key_blob)
        if vouch is AccountStanding.GOOD:
            return None
        try:
            return await self._authenticator.begin_renewal(self.attempt, key_blob)
        except OnboardingError as exc:
            if vouch is AccountStanding.ENDED:
                self.fault(exc.code)
                raise
            self._log.info("approval not asked for", code=exc.code, reason=str(exc))
            return None

    async def proved(self, key_blob: bytes) -> AuthReply:
        """Go on after a method succeeded; `key_blob` is the key whose signature was verified last.

        Raises: LoginRefused with a sentence for the user; StoreError.
        """
        if (certificate := decode(key_blob)) is not None:
            return await self._certified(certificate)
        match self.state:
            case KeyAwaited() if self._standing is Standing.NEW:
                await self._authenticator.assure_new()
                self.state = ApprovalAwaited(key_blob)
                return AuthReply.MORE
            case KeyAwaited():
                return await self._enter(key_blob)
            case RenewalDue(pending):
                self.state = ApprovalAwaited(key_blob, pending)
                return AuthReply.MORE
            case ApprovalAwaited() | ApprovalShown() | LoggedIn():
                return AuthReply.REFUSE
            case ApprovalGiven(approved_key):
                # The approval counts for its own key, and for no key that was proved later.
                return await self._enter(approved_key)
            case OtherKeyDue(pending, is_renewal):
                # This call ends the approval: `key_blob` is still the key that was not the account's.
                self.state = OtherKeyAwaited(pending, is_renewal)
                return AuthReply.MORE
            case OtherKeyAwaited(pending, is_renewal):
                return await self._try_other(key_blob, pending, is_renewal=is_renewal)

    async def _certified(self, certificate: Certificate) -> AuthReply:
        match self.state:
            case ApprovalAwaited() | ApprovalShown() | ApprovalGiven() | LoggedIn():
                return AuthReply.REFUSE
            case _:
                pass
        if not await self._judge(certificate):  # it may have expired since it was offered
            return AuthReply.REFUSE
        return await self._let_in(self._authenticator.admit_certified(self.attempt, proof_of(certificate)))

    async def _enter(self, key_blob: bytes) -> AuthReply:
        # Judged again: the key may have been revoked during an approval, which takes minutes.
        if self._refusal(await self._judge_key(key_blob)) is not None:
            return AuthReply.REFUSE
        return await self._let_in(self._authenticator.admit(self.attempt, key_blob))

    async def _let_in(self, admission: Awaitable[Principal | None]) -> AuthReply:
        try:
            principal = await admission
            if principal is not None:
                self._check(principal)
        except (LoginRefused, AccountEnded) as exc:
            self.fault(exc.code)
            raise
        if principal is None:
            self.fault("key_unknown")
            return AuthReply.REFUSE
        self.state = LoggedIn(principal)
        self._authenticator.succeeded(principal, self._client_version, tuple(self._methods))
        return AuthReply.ENTER

    async def _try_other(self, key_blob: bytes, pending: Pending, *, is_renewal: bool) -> AuthReply:
        try:
            approved = await pending.try_key(key_blob)
        except (KeyNotListed, KeyNotConfirmed) as exc:
            self.fault(exc.code)
            return AuthReply.REFUSE
        except FairleadError as exc:
            self._approval_refused(exc, key_blob, pending, is_renewal=is_renewal)
            raise
        if not is_renewal:
            self._authenticator.onboarded(self.attempt, self._client_version, approved)
        return await self._enter(key_blob)

    # --------------------------------------------------------------------------------- approval

    async def begin_approval(self) -> DisplayedCode:
        """Return the code that the client shows; a client that asks again sees the same flow again.

        Raises: OnboardingError.
        """
        self._note(KEYBOARD_INTERACTIVE)
        match self.state:
            case ApprovalAwaited(key, Pending() as pending):
                self.state = ApprovalShown(key, pending, is_renewal=True)
            case ApprovalShown(key, pending, True) | ApprovalGiven(key, pending, True):
                self.state = ApprovalShown(key, pending, is_renewal=True)
            case ApprovalAwaited(key) | ApprovalShown(key) | ApprovalGiven(key):
                pending = await self._begin_onboarding(key)
                self.state = ApprovalShown(key, pending, is_renewal=False)
            case _:
                raise RuntimeError(f"no approval is asked for in {type(self.state).__name__}")
        return pending.shown

    async def _begin_onboarding(self, key_blob: bytes) -> Pending:
        try:
            return await self._authenticator.begin_onboarding(self.attempt, key_blob, self._client_version)
        except FairleadError as exc:
            self.fault(exc.code)
            raise

    async def approval(self) -> str:
        """Wait until the user approves; return a sentence when the account needs another key, else "".

        Raises: OnboardingError with the reason, StoreError.
        """
        match self.state:
            case ApprovalShown(key, pending, is_renewal):
                pass
            case _:
                raise RuntimeError(f"no approval is shown in {type(self.state).__name__}")
        try:
            approved = await pending.outcome()
        except (KeyNotListed, KeyNotConfirmed) as exc:
            self._approval_refused(exc, key, pending, is_renewal=is_renewal)
            self.state = OtherKeyDue(pending, is_renewal)
            return exc.user_message
        except FairleadError as exc:
            self._approval_refused(exc, key, pending, is_renewal=is_renewal)
            raise
        self.state = ApprovalGiven(key, pending, is_renewal)
        if not is_renewal:
            self._authenticator.onboarded(self.attempt, self._client_version, approved)
        return ""

    def _approval_refused(
        self, exc: FairleadError, key_blob: bytes, pending: Pending, *, is_renewal: bool
    ) -> None:
        self.fault(exc.code)
        if is_renewal:
            return  # not an onboarding: the failed login has its own event
        self._authenticator.onboarding_refused(
            self.attempt, key_blob, self._client_version, exc, pending.shown.provider
        )

    # ----------------------------------------------------------------------------------- events

    def _note(self, method: str, shown: str = "") -> None:
        if method not in self._methods:
            self._methods.append(method)
        if shown and shown not in self._fingerprints and len(self._fingerprints) < _MAX_REMEMBERED:
            self._fingerprints.append(shown)

    def fault(self, reason: str) -> None:
        """Add a reason of failure to the event of this login; each reason is listed once."""
        if reason not in self._reasons and len(self._reasons) < _MAX_REMEMBERED:
            self._reasons.append(reason)

    def failed(self, reason: str = "") -> tuple[str, ...]:
        """Publish the end of the connection without a login, and return the reasons; call it once."""
        if reason:
            self.fault(reason)
        if isinstance(self.state, ApprovalAwaited) and KEYBOARD_INTERACTIVE not in self._methods:
            self.fault("approval_not_shown")  # BatchMode, or a client without keyboard-interactive
        if isinstance(self.state, KeyAwaited) and self._standing is Standing.NEW and self._fingerprints:
            self.fault(KeyNotProved.code)
        peer = self.attempt.peer
        reasons = tuple(self._reasons) or ("gave_up",)
        self._authenticator.failed(
            AuthFailed(
                user=self.attempt.user_string.user,
                client_address=peer.host,
                client_port=peer.port,
                client_version=self._client_version,
                connection_id=peer.conn_id,
                methods=tuple(self._methods),
                reasons=reasons,
                fingerprints=tuple(self._fingerprints),
            )
        )
        return reasons
