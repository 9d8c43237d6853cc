"""One login as a state machine; asyncssh asks it what to offer and what to answer.

    KEY ──a proved key of a known user──────────────────────────▶ IN
     ├───the same, but the account is to be approved again──▶ APPROVAL ──approved──▶ IN
     └───a proved key, name is new──▶ APPROVAL ──approved────────▶ IN
                                        └──approved, but the key is not the account's──▶ OTHER_KEY ──▶ IN

Each arrow but those into IN is a partial success (RFC 4252 §5.1), which leads stock clients on in the same
connection. Nothing is shown, started or spent for somebody who has not proved a key.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import Enum

import structlog

from proxy.access.authentication import Logins, Standing
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
from proxy.identity.keys import check_offered, fingerprint
from proxy.identity.revoked_keys import Revocation, Revocations
from proxy.model import CertificateProof, KeyProof, LoginAttempt, Principal
from proxy.onboarding.flow import DisplayedCode, Pending
from proxy.onboarding.refresher import AccountStanding
from proxy.ssh.asyncssh_ext.certificates import Judgement, decode, judge, proof_of
from proxy.ssh.asyncssh_ext.hooks import Certificate, Verdict

_MAX_REMEMBERED = 64

PUBLICKEY = "publickey"
KEYBOARD_INTERACTIVE = "keyboard-interactive"


class Stage(Enum):
    """What has been proved so far, and so what is asked for next."""

    KEY = PUBLICKEY
    APPROVAL = KEYBOARD_INTERACTIVE
    OTHER_KEY = f"another {PUBLICKEY}"
    IN = "in"


class Login:
    """One name on one connection."""

    def __init__(
        self,
        logins: Logins,
        attempt: LoginAttempt,
        standing: Standing,
        *,
        client_version: str,
        authorities: frozenset[bytes],
        revocations: Revocations,
        check: Callable[[Principal], None] = lambda _: None,
    ) -> None:
        """`check` is asked last, and refuses by raising LoginRefused."""
        self.attempt = attempt
        self.principal: Principal | None = None
        self._logins = logins
        self._standing = standing
        self._client_version = client_version
        self._stage = Stage.KEY
        self._authorities = authorities
        self._revocations = revocations
        self._check = check
        self._candidate = b""
        self._pending: Pending | None = None
        self._approved = False
        self._renews = False
        self._leads_on = False
        self._methods: list[str] = []
        self._reasons: list[str] = []
        self._fingerprints: list[str] = []
        self._log = structlog.get_logger("ssh").bind(conn=attempt.peer.conn_id, user=attempt.user_string.user)

    def offers(self, method: str) -> bool:
        """Whether `method` can get the client on from here."""
        wanted = KEYBOARD_INTERACTIVE if self._stage is Stage.APPROVAL else PUBLICKEY
        return self._stage is not Stage.IN and method == wanted

    def failed_method(self, method: str) -> bool:
        """Take note of a method that led nowhere; True for somebody new who skips the key."""
        if method != "none":
            self._note(method)
        skips = method == KEYBOARD_INTERACTIVE and self._stage is Stage.KEY and self._standing is Standing.NEW
        if skips:
            self.fault(KeyNotProved.code)
        return skips

    # ------------------------------------------------------------------------------------- keys

    async def offered(self, key_blob: bytes) -> str | None:
        """Judge whether a key is worth a signature: None, or why not, in words if there are any.

        Raises: StoreError.
        """
        self._note(PUBLICKEY, fingerprint(key_blob))
        judgement = await self._judge_key(key_blob)
        if judgement and self._standing is not Standing.NEW and self._stage is not Stage.OTHER_KEY:
            recognised = await self._logins.recognises(self.attempt, key_blob)
            judgement = judgement if recognised else Judgement("key_unknown")
        return self._refusal(judgement)

    async def certificate_offered(self, certificate: Certificate) -> str | None:
        """Judge whether a certificate is worth a signature: None, or why not, in words if there are any."""
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
        """Judge by the lists of revoked keys; of them only a certificate's owner is told anything."""
        match (await self._revocations.current()).of(proof):
            case Revocation.GOOD:
                return Judgement()
            case Revocation.UNKNOWN:
                return Judgement("revocation_unknown")
            case Revocation.REVOKED if isinstance(proof, CertificateProof):
                return Judgement("certificate_revoked", "your certificate was revoked")
            case Revocation.REVOKED:
                return Judgement("key_revoked")

    async def proved(self, key_blob: bytes) -> Verdict:
        """Go on with the key whose signature was verified last.

        Raises: LoginRefused with a sentence for the person; StoreError.
        """
        if (certificate := decode(key_blob)) is not None:
            return await self._certified(certificate)
        if self._stage is Stage.KEY and self._standing is Standing.NEW:
            await self._logins.assure_new()
            self._candidate = key_blob
            self._stage = Stage.APPROVAL
            return Verdict.MORE
        if self._leads_on:
            self._leads_on = False  # this is the approval's own end; another key may come now
            return Verdict.MORE
        if self._stage is Stage.OTHER_KEY:
            return await self._try_other(key_blob)
        if self._stage is Stage.APPROVAL:
            # Approved for the candidate and for nothing that was proved since.
            return await self._enter(self._candidate) if self._approved else Verdict.REFUSE
        if self._renews:
            self._candidate = key_blob
            self._stage = Stage.APPROVAL
            return Verdict.MORE
        return await self._enter(key_blob)

    async def ask_provider(self, key_blob: bytes) -> None:
        """Have the account of a known user read again when that is due; `proved` comes after this.

        Takes as long as a provider does: call it where no other connection waits.

        Raises: OnboardingError for an account that has ended and cannot be approved again now; StoreError.
        """
        if self._standing is not Standing.BOUND or self._stage is not Stage.KEY:
            return
        if decode(key_blob) is not None:
            await self._logins.refresh(self.attempt)
        else:
            self._renews = await self._is_asked_again(key_blob)

    async def _is_asked_again(self, key_blob: bytes) -> bool:
        """Tell whether a known user has to approve again, and have the provider's answer ready to be shown.

        A provider that cannot be asked now does not lock out a user whose account has not ended.

        Raises: OnboardingError, StoreError.
        """
        vouch = await self._logins.vouch(self.attempt, key_blob)
        if vouch is AccountStanding.GOOD:
            return False
        try:
            self._pending = await self._logins.begin_renewal(self.attempt, key_blob)
        except OnboardingError as exc:
            if vouch is AccountStanding.ENDED:
                self.fault(exc.code)
                raise
            self._log.info("approval not asked for", code=exc.code, reason=str(exc))
            return False
        return True

    @property
    def renewal_provider(self) -> str:
        """Name of the provider at which a known user has to approve again; empty when there is no need."""
        return self._pending.shown.provider if self._renews and self._pending is not None else ""

    async def _certified(self, certificate: Certificate) -> Verdict:
        if self._stage is Stage.APPROVAL:
            return Verdict.REFUSE
        if not await self._judge(certificate):  # it may have expired meanwhile
            return Verdict.REFUSE
        return await self._let_in(self._logins.admit_certified(self.attempt, proof_of(certificate)))

    async def _enter(self, key_blob: bytes) -> Verdict:
        if self._refusal(await self._judge_key(key_blob)) is not None:  # an approval takes minutes
            return Verdict.REFUSE
        return await self._let_in(self._logins.admit(self.attempt, key_blob))

    async def _let_in(self, admission: Awaitable[Principal | None]) -> Verdict:
        try:
            principal = await admission
            if principal is not None:
                self._check(principal)
        except (LoginRefused, AccountEnded) as exc:
            self.fault(exc.code)
            raise
        if principal is None:
            self.fault("key_unknown")
            return Verdict.REFUSE
        self.principal = principal
        self._stage = Stage.IN
        self._logins.succeeded(principal, self._client_version, tuple(self._methods))
        return Verdict.ENTER

    async def _try_other(self, key_blob: bytes) -> Verdict:
        assert self._pending is not None
        try:
            approved = await self._pending.try_key(key_blob)
        except (KeyNotListed, KeyNotConfirmed) as exc:
            self.fault(exc.code)
            return Verdict.REFUSE
        except FairleadError as exc:
            self._refused(exc, key_blob)
            raise
        self._logins.onboarded(self.attempt, self._client_version, approved)
        return await self._enter(key_blob)

    # --------------------------------------------------------------------------------- approval

    async def begin_approval(self) -> DisplayedCode:
        """Get what the person is to see. Raises: OnboardingError."""
        self._note(KEYBOARD_INTERACTIVE)
        if self._renews and self._pending is not None:
            return self._pending.shown
        try:
            self._pending = await self._logins.begin_onboarding(
                self.attempt, self._candidate, self._client_version
            )
        except FairleadError as exc:
            self.fault(exc.code)
            raise
        return self._pending.shown

    async def approval(self) -> str:
        """Wait until the person approved; gives a sentence when another key is needed all the same.

        Raises: OnboardingError with the reason, StoreError.
        """
        assert self._pending is not None
        try:
            approved = await self._pending.outcome()
        except (KeyNotListed, KeyNotConfirmed) as exc:
            self._refused(exc, self._candidate)
            self._stage = Stage.OTHER_KEY
            self._leads_on = True
            return exc.user_message
        except FairleadError as exc:
            self._refused(exc, self._candidate)
            raise
        self._approved = True
        if not self._renews:
            self._logins.onboarded(self.attempt, self._client_version, approved)
        return ""

    def _refused(self, exc: FairleadError, key_blob: bytes) -> None:
        assert self._pending is not None
        self.fault(exc.code)
        if self._renews:
            return  # not an onboarding: the failed login has its own event
        provider = self._pending.shown.provider
        self._logins.onboarding_refused(self.attempt, key_blob, self._client_version, exc, provider)

    # ------------------------------------------------------------------------------- what happened

    def _note(self, method: str, shown: str = "") -> None:
        if method not in self._methods:
            self._methods.append(method)
        if shown and shown not in self._fingerprints and len(self._fingerprints) < _MAX_REMEMBERED:
            self._fingerprints.append(shown)

    def fault(self, reason: str) -> None:
        """Remember for the event why this does not go well."""
        if reason not in self._reasons and len(self._reasons) < _MAX_REMEMBERED:
            self._reasons.append(reason)

    def failed(self, reason: str = "") -> tuple[str, ...]:
        """Tell of the end without a login, once a connection; gives the reasons."""
        if reason:
            self.fault(reason)
        if self._stage is Stage.APPROVAL and KEYBOARD_INTERACTIVE not in self._methods:
            self.fault("approval_not_shown")  # BatchMode, or a client that cannot
        if self._stage is Stage.KEY and self._standing is Standing.NEW and self._fingerprints:
            self.fault(KeyNotProved.code)
        peer = self.attempt.peer
        reasons = tuple(self._reasons) or ("gave_up",)
        self._logins.failed(
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
