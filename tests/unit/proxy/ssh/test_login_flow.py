"""Every transition of a login, with an authenticator and a provider that answer as the test says."""

from datetime import UTC, datetime
from typing import cast

import asyncssh
import pytest

from proxy.access.authentication import Authenticator, Standing
from proxy.errors import FairleadError
from proxy.errors.login import (
    KeyNotListed,
    KeyNotProved,
    LoginRefused,
    OnboardingRejected,
    ProviderUnavailable,
)
from proxy.events.schema import AuthFailed
from proxy.identity.revoked_keys import Revocation, Revocations
from proxy.model import CertificateProof, KeyProof, LoginAttempt, Principal, User
from proxy.onboarding.flow import ApprovedUser, DisplayedCode, Pending
from proxy.onboarding.refresher import AccountStanding
from proxy.ssh.asyncssh_ext.certificates import decode
from proxy.ssh.asyncssh_ext.hooks import AuthReply
from proxy.ssh.login_flow import (
    KEYBOARD_INTERACTIVE,
    PUBLICKEY,
    ApprovalAwaited,
    ApprovalGiven,
    ApprovalShown,
    KeyAwaited,
    LoggedIn,
    LoginFlow,
    OtherKeyAwaited,
    OtherKeyDue,
    RenewalDue,
)
from proxy.userstring import parse
from tests.fakes.visits import PEER

ALICE = User("alice")
AUTHORITY = asyncssh.generate_private_key("ssh-ed25519")


def key() -> bytes:
    return asyncssh.generate_private_key("ssh-ed25519").public_data


def certificate(name: str = "alice") -> bytes:
    subject = asyncssh.generate_private_key("ssh-ed25519")
    return AUTHORITY.generate_user_certificate(subject, "id", principals=[name]).public_data


class FakePending(Pending):
    """A flow whose provider answers with `answer`."""

    def __init__(self, answer: FairleadError | None = None) -> None:
        self.answer = answer
        self.tried: list[bytes] = []
        self.shown = DisplayedCode(
            "forge",
            "https://forge.example/device",
            "",
            "CODE",
            is_code_typed=True,
            expires_at=datetime.now(UTC),
        )

    async def outcome(self) -> ApprovedUser:
        return self._approved()

    async def try_key(self, key_blob: bytes) -> ApprovedUser:
        self.tried.append(key_blob)
        return self._approved()

    def _approved(self) -> ApprovedUser:
        if self.answer is not None:
            raise self.answer
        return cast(ApprovedUser, object())


class FakeAuthenticator:
    """A directory with one user, and a record of what was published."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = set(keys)
        self.certified = True
        self.vouched = AccountStanding.GOOD
        self.refusal: FairleadError | None = None
        self.renewal: FakePending | FairleadError = FakePending()
        self.onboarding: FakePending | FairleadError = FakePending()
        self.published: list[str] = []
        self.failure: AuthFailed | None = None
        self.methods: tuple[str, ...] = ()

    async def recognises(self, attempt: LoginAttempt, key_blob: bytes) -> bool:
        return key_blob in self.keys

    async def vouch(self, attempt: LoginAttempt, key_blob: bytes) -> AccountStanding:
        return self.vouched

    async def refresh(self, attempt: LoginAttempt) -> None:
        self.published.append("refreshed")

    async def assure_new(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def admit(self, attempt: LoginAttempt, key_blob: bytes) -> Principal | None:
        if self.refusal is not None:
            raise self.refusal
        return Principal(PEER, ALICE, KeyProof(key_blob)) if key_blob in self.keys else None

    async def admit_certified(self, attempt: LoginAttempt, proof: CertificateProof) -> Principal | None:
        return Principal(PEER, ALICE, proof) if self.certified else None

    async def begin_renewal(self, attempt: LoginAttempt, key_blob: bytes) -> Pending:
        return self._answer(self.renewal)

    async def begin_onboarding(self, attempt: LoginAttempt, key_blob: bytes, client_version: str) -> Pending:
        return self._answer(self.onboarding)

    def _answer(self, answer: FakePending | FairleadError) -> Pending:
        if isinstance(answer, FairleadError):
            raise answer
        return answer

    def onboarded(self, attempt: LoginAttempt, client_version: str, approved: ApprovedUser) -> None:
        self.published.append("onboarded")

    def onboarding_refused(self, *args: object) -> None:
        self.published.append("onboarding refused")

    def succeeded(self, principal: Principal, client_version: str, methods: tuple[str, ...]) -> None:
        self.published.append("succeeded")
        self.methods = methods

    def failed(self, event: AuthFailed) -> None:
        self.failure = event


class FakeRevocations:
    def __init__(self) -> None:
        self.revoked: set[bytes] = set()
        self.is_readable = True

    async def current(self) -> "FakeRevocations":
        return self

    def of(self, proof: KeyProof | CertificateProof) -> Revocation:
        if not self.is_readable:
            return Revocation.UNKNOWN
        return Revocation.REVOKED if proof.key in self.revoked else Revocation.GOOD


class Scene:
    def __init__(self, standing: Standing, *keys: bytes) -> None:
        self.authenticator = FakeAuthenticator(*keys)
        self.revocations = FakeRevocations()
        self.refusal: LoginRefused | None = None
        self.flow = LoginFlow(
            cast(Authenticator, self.authenticator),
            LoginAttempt(PEER, parse("alice")),
            standing,
            client_version="OpenSSH_9.9",
            authorities=frozenset({AUTHORITY.public_data}),
            revocations=cast(Revocations, self.revocations),
            check=self._check,
        )

    def _check(self, principal: Principal) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def prove(self, key_blob: bytes) -> AuthReply:
        await self.flow.ask_provider(key_blob)
        return await self.flow.proved(key_blob)

    def failure(self) -> AuthFailed:
        self.flow.failed()
        assert self.authenticator.failure is not None
        return self.authenticator.failure


# -------------------------------------------------------------------------------------- KeyAwaited


async def test_a_known_user_is_in_by_the_proved_key() -> None:
    mine = key()
    scene = Scene(Standing.KNOWN, mine)
    assert isinstance(scene.flow.state, KeyAwaited)
    assert await scene.prove(mine) is AuthReply.ENTER
    assert scene.flow.state == LoggedIn(Principal(PEER, ALICE, KeyProof(mine)))
    assert scene.authenticator.published == ["succeeded"]


async def test_a_key_of_another_user_leaves_the_login_where_it_was() -> None:
    scene = Scene(Standing.KNOWN)
    assert await scene.prove(key()) is AuthReply.REFUSE
    assert isinstance(scene.flow.state, KeyAwaited)
    assert scene.failure().reasons == ("key_unknown",)


async def test_an_unknown_name_is_answered_as_a_known_one() -> None:
    scene = Scene(Standing.UNKNOWN)
    assert scene.flow.offers(PUBLICKEY)
    assert not scene.flow.offers(KEYBOARD_INTERACTIVE)
    assert await scene.flow.offered(key()) == ""
    assert await scene.prove(key()) is AuthReply.REFUSE


async def test_a_new_user_with_a_proved_key_is_asked_for_approval() -> None:
    mine = key()
    scene = Scene(Standing.NEW)
    assert await scene.flow.offered(mine) is None
    assert await scene.prove(mine) is AuthReply.MORE
    assert scene.flow.state == ApprovalAwaited(mine)
    assert scene.flow.offers(KEYBOARD_INTERACTIVE)
    assert not scene.flow.offers(PUBLICKEY)
    assert scene.flow.renewal_provider == ""


async def test_a_directory_that_lost_users_onboards_no_user() -> None:
    scene = Scene(Standing.NEW)
    scene.authenticator.refusal = ProviderUnavailable("lost")
    with pytest.raises(ProviderUnavailable):
        await scene.prove(key())
    assert isinstance(scene.flow.state, KeyAwaited)


async def test_a_refusal_of_the_policy_is_raised_and_is_a_reason() -> None:
    mine = key()
    scene = Scene(Standing.KNOWN, mine)
    scene.refusal = LoginRefused("too many sessions")
    with pytest.raises(LoginRefused):
        await scene.prove(mine)
    assert isinstance(scene.flow.state, KeyAwaited)
    assert scene.failure().reasons == (LoginRefused.code,)


# --------------------------------------------------------------------------- certificates


async def test_a_certificate_logs_a_known_user_in() -> None:
    scene = Scene(Standing.KNOWN)
    assert await scene.prove(certificate()) is AuthReply.ENTER
    assert isinstance(scene.flow.state, LoggedIn)
    assert scene.flow.state.principal.certificate == "id"


async def test_the_account_of_a_bound_user_is_read_again_by_a_certificate_too() -> None:
    scene = Scene(Standing.BOUND)
    assert await scene.prove(certificate()) is AuthReply.ENTER
    assert scene.authenticator.published == ["refreshed", "succeeded"]


async def test_a_certificate_logs_in_while_a_renewal_is_due() -> None:
    mine = key()
    scene = Scene(Standing.BOUND, mine)
    scene.authenticator.vouched = AccountStanding.ASK
    await scene.flow.ask_provider(mine)
    assert isinstance(scene.flow.state, RenewalDue)
    assert await scene.prove(certificate()) is AuthReply.ENTER


async def test_a_certificate_for_another_user_is_refused_with_the_reason() -> None:
    scene = Scene(Standing.KNOWN)
    blob = certificate("bob")
    decoded = decode(blob)
    assert decoded is not None
    assert await scene.flow.certificate_offered(decoded) == "your certificate is for bob, not for alice"
    assert await scene.prove(blob) is AuthReply.REFUSE
    assert isinstance(scene.flow.state, KeyAwaited)


async def test_a_certificate_of_an_unknown_user_is_refused() -> None:
    scene = Scene(Standing.UNKNOWN)
    scene.authenticator.certified = False
    assert await scene.prove(certificate()) is AuthReply.REFUSE
    assert scene.failure().reasons == ("key_unknown",)


async def test_only_the_owner_of_a_revoked_certificate_reads_that_it_is_revoked() -> None:
    mine = key()
    scene = Scene(Standing.KNOWN, mine)
    blob = certificate()
    decoded = decode(blob)
    assert decoded is not None
    scene.revocations.revoked = {decoded.key.public_data, mine}
    assert await scene.flow.certificate_offered(decoded) == "your certificate was revoked"
    assert await scene.flow.offered(mine) == ""
    assert scene.failure().reasons == ("certificate_revoked", "key_revoked")


async def test_a_certificate_does_not_replace_an_approval() -> None:
    scene = Scene(Standing.NEW)
    await scene.prove(key())
    awaited = scene.flow.state
    assert await scene.prove(certificate()) is AuthReply.REFUSE
    assert scene.flow.state is awaited
    await scene.flow.begin_approval()
    assert await scene.prove(certificate()) is AuthReply.REFUSE
    await scene.flow.approval()
    assert await scene.prove(certificate()) is AuthReply.REFUSE
    assert isinstance(scene.flow.state, ApprovalGiven)


# ------------------------------------------------------------------------------------- onboarding


async def test_the_approval_of_a_new_user_counts_for_the_key_proved_before_it() -> None:
    mine, other = key(), key()
    scene = Scene(Standing.NEW, mine, other)
    await scene.prove(mine)
    shown = await scene.flow.begin_approval()
    assert shown.user_code == "CODE"
    assert isinstance(scene.flow.state, ApprovalShown)
    assert await scene.flow.approval() == ""
    assert isinstance(scene.flow.state, ApprovalGiven)
    assert await scene.prove(other) is AuthReply.ENTER
    assert scene.flow.state == LoggedIn(Principal(PEER, ALICE, KeyProof(mine)))
    assert scene.authenticator.published == ["onboarded", "succeeded"]
    assert scene.authenticator.methods == (KEYBOARD_INTERACTIVE,)


async def test_nothing_logs_in_before_the_provider_has_answered() -> None:
    mine = key()
    scene = Scene(Standing.NEW, mine)
    await scene.prove(mine)
    assert await scene.prove(mine) is AuthReply.REFUSE
    await scene.flow.begin_approval()
    assert await scene.prove(mine) is AuthReply.REFUSE
    assert isinstance(scene.flow.state, ApprovalShown)


async def test_a_client_that_asks_again_is_shown_the_approval_again() -> None:
    scene = Scene(Standing.NEW)
    await scene.prove(key())
    await scene.flow.begin_approval()
    first = scene.flow.state
    await scene.flow.begin_approval()
    assert scene.flow.state == first


async def test_a_failed_start_of_an_onboarding_leaves_the_approval_to_be_asked_for() -> None:
    scene = Scene(Standing.NEW)
    await scene.prove(key())
    scene.authenticator.onboarding = ProviderUnavailable("away")
    with pytest.raises(ProviderUnavailable):
        await scene.flow.begin_approval()
    assert isinstance(scene.flow.state, ApprovalAwaited)
    assert scene.failure().reasons == (ProviderUnavailable.code,)


async def test_an_approval_that_is_refused_is_published_and_raised() -> None:
    scene = Scene(Standing.NEW)
    scene.authenticator.onboarding = FakePending(OnboardingRejected("no"))
    await scene.prove(key())
    await scene.flow.begin_approval()
    with pytest.raises(OnboardingRejected):
        await scene.flow.approval()
    assert isinstance(scene.flow.state, ApprovalShown)
    assert scene.authenticator.published == ["onboarding refused"]


async def test_a_key_revoked_during_the_approval_does_not_log_in() -> None:
    mine = key()
    scene = Scene(Standing.NEW, mine)
    await scene.prove(mine)
    await scene.flow.begin_approval()
    await scene.flow.approval()
    scene.revocations.revoked = {mine}
    assert await scene.prove(mine) is AuthReply.REFUSE
    assert isinstance(scene.flow.state, ApprovalGiven)
    scene.revocations.revoked = set()
    await scene.flow.begin_approval()
    assert isinstance(scene.flow.state, ApprovalShown)


async def test_no_approval_is_begun_or_awaited_in_another_state() -> None:
    scene = Scene(Standing.NEW)
    with pytest.raises(RuntimeError, match="KeyAwaited"):
        await scene.flow.begin_approval()
    with pytest.raises(RuntimeError, match="KeyAwaited"):
        await scene.flow.approval()


# -------------------------------------------------------------------------------------- other keys


async def other_key_due(*keys: bytes) -> tuple[Scene, FakePending]:
    scene = Scene(Standing.NEW, *keys)
    pending = FakePending(KeyNotListed("not listed", user_message="your account has another key"))
    scene.authenticator.onboarding = pending
    await scene.prove(key())
    await scene.flow.begin_approval()
    assert await scene.flow.approval() == "your account has another key"
    return scene, pending


async def test_a_key_that_the_account_lacks_leads_to_another_key() -> None:
    scene, pending = await other_key_due()
    assert scene.flow.state == OtherKeyDue(pending, is_renewal=False)
    assert scene.flow.offers(PUBLICKEY)
    assert await scene.flow.proved(key()) is AuthReply.MORE
    assert scene.flow.state == OtherKeyAwaited(pending, is_renewal=False)
    assert scene.flow.offers(PUBLICKEY)
    assert pending.tried == []


async def test_the_other_key_logs_in_once_the_provider_lists_it() -> None:
    mine = key()
    scene, pending = await other_key_due(mine)
    await scene.flow.proved(key())
    assert await scene.flow.offered(mine) is None
    assert await scene.prove(mine) is AuthReply.REFUSE
    assert isinstance(scene.flow.state, OtherKeyAwaited)
    pending.answer = None
    assert await scene.prove(mine) is AuthReply.ENTER
    assert isinstance(scene.flow.state, LoggedIn)
    assert pending.tried == [mine, mine]
    assert scene.authenticator.published == ["onboarding refused", "onboarded", "succeeded"]


async def test_an_error_of_the_provider_with_the_other_key_is_raised() -> None:
    scene, pending = await other_key_due()
    await scene.flow.proved(key())
    pending.answer = OnboardingRejected("no")
    with pytest.raises(OnboardingRejected):
        await scene.prove(key())
    assert isinstance(scene.flow.state, OtherKeyAwaited)


async def test_a_certificate_logs_in_in_place_of_the_other_key() -> None:
    scene, _ = await other_key_due()
    await scene.flow.proved(key())
    assert await scene.prove(certificate()) is AuthReply.ENTER


# ---------------------------------------------------------------------------------------- renewals


async def test_a_bound_user_whose_account_is_good_is_in_at_once() -> None:
    mine = key()
    scene = Scene(Standing.BOUND, mine)
    assert await scene.prove(mine) is AuthReply.ENTER


async def test_a_bound_user_whose_account_is_too_old_approves_again() -> None:
    mine = key()
    scene = Scene(Standing.BOUND, mine)
    scene.authenticator.vouched = AccountStanding.ASK
    pending = scene.authenticator.renewal
    await scene.flow.ask_provider(mine)
    assert scene.flow.state == RenewalDue(cast(Pending, pending))
    assert scene.flow.offers(PUBLICKEY)
    assert await scene.flow.proved(mine) is AuthReply.MORE
    assert scene.flow.state == ApprovalAwaited(mine, cast(Pending, pending))
    assert scene.flow.renewal_provider == "forge"
    for _ in range(2):
        await scene.flow.begin_approval()
        assert scene.flow.state == ApprovalShown(mine, cast(Pending, pending), is_renewal=True)
    assert await scene.flow.approval() == ""
    assert scene.flow.state == ApprovalGiven(mine, cast(Pending, pending), is_renewal=True)
    assert await scene.prove(mine) is AuthReply.ENTER
    assert scene.authenticator.published == ["succeeded"]  # the user is not new


async def test_a_second_key_of_a_good_account_ends_a_renewal_that_was_due() -> None:
    first, second = key(), key()
    scene = Scene(Standing.BOUND, first, second)
    scene.authenticator.vouched = AccountStanding.ASK
    await scene.flow.ask_provider(first)
    scene.authenticator.vouched = AccountStanding.GOOD
    assert await scene.prove(second) is AuthReply.ENTER


async def test_a_provider_that_is_away_locks_out_no_user_whose_account_lasts() -> None:
    mine = key()
    scene = Scene(Standing.BOUND, mine)
    scene.authenticator.vouched = AccountStanding.ASK
    scene.authenticator.renewal = ProviderUnavailable("away")
    assert await scene.prove(mine) is AuthReply.ENTER


async def test_a_provider_that_is_away_locks_out_a_user_whose_account_ended() -> None:
    mine = key()
    scene = Scene(Standing.BOUND, mine)
    scene.authenticator.vouched = AccountStanding.ENDED
    scene.authenticator.renewal = ProviderUnavailable("away")
    with pytest.raises(ProviderUnavailable):
        await scene.prove(mine)
    assert isinstance(scene.flow.state, KeyAwaited)
    assert scene.failure().reasons == (ProviderUnavailable.code,)


async def test_a_refused_renewal_is_no_refused_onboarding() -> None:
    mine = key()
    scene = Scene(Standing.BOUND, mine)
    scene.authenticator.vouched = AccountStanding.ASK
    scene.authenticator.renewal = FakePending(OnboardingRejected("inactive"))
    await scene.prove(mine)
    await scene.flow.begin_approval()
    with pytest.raises(OnboardingRejected):
        await scene.flow.approval()
    assert scene.authenticator.published == []
    assert scene.failure().reasons == (OnboardingRejected.code,)


# ---------------------------------------------------------------------------------------- LoggedIn


async def test_nothing_follows_a_login() -> None:
    mine = key()
    scene = Scene(Standing.KNOWN, mine)
    await scene.prove(mine)
    logged_in = scene.flow.state
    assert not scene.flow.offers(PUBLICKEY)
    assert not scene.flow.offers(KEYBOARD_INTERACTIVE)
    for blob in (mine, certificate()):
        assert await scene.prove(blob) is AuthReply.REFUSE
    assert scene.flow.state is logged_in
    assert scene.authenticator.published == ["succeeded"]


# ----------------------------------------------------------------------------------------- events


async def test_a_new_user_who_asks_for_approval_first_has_to_prove_a_key() -> None:
    scene = Scene(Standing.NEW)
    assert scene.flow.failed_method(KEYBOARD_INTERACTIVE)
    assert not scene.flow.failed_method(PUBLICKEY)
    failure = scene.failure()
    assert failure.reasons == (KeyNotProved.code,)
    assert failure.methods == (KEYBOARD_INTERACTIVE, PUBLICKEY)


async def test_a_known_user_who_asks_for_approval_is_given_no_hint() -> None:
    assert not Scene(Standing.KNOWN).flow.failed_method(KEYBOARD_INTERACTIVE)


async def test_a_new_user_whose_client_cannot_show_the_approval_is_recorded_so() -> None:
    scene = Scene(Standing.NEW)
    await scene.prove(key())
    assert scene.failure().reasons == ("approval_not_shown",)


async def test_a_new_user_who_offers_a_key_and_never_signs_is_recorded_so() -> None:
    mine = key()
    scene = Scene(Standing.NEW)
    await scene.flow.offered(mine)
    failure = scene.failure()
    assert failure.reasons == (KeyNotProved.code,)
    assert failure.fingerprints == (KeyProof(mine).fingerprint,)


async def test_a_client_that_leaves_without_a_try_gave_up() -> None:
    scene = Scene(Standing.KNOWN)
    scene.flow.failed_method("none")
    assert scene.failure().reasons == ("gave_up",)
    assert scene.failure().methods == ()


async def test_a_weak_key_and_unreadable_lists_are_reasons() -> None:
    scene = Scene(Standing.KNOWN)
    weak = asyncssh.generate_private_key("ssh-rsa", key_size=1024).public_data
    sentence = await scene.flow.offered(weak)
    assert sentence is not None
    assert sentence.startswith("this key is not accepted")
    scene.revocations.is_readable = False
    assert await scene.flow.offered(key()) == ""
    assert scene.failure().reasons == ("key_weak", "revocation_unknown")
