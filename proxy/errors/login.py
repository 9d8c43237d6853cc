"""Nobody is let in: said by banner or disconnect, before any channel."""

from proxy.errors import FairleadError


class LoginError(FairleadError):
    """The connection ends before any channel exists."""

    code = "login"


class UserStringInvalid(LoginError):
    """What was typed before `@` cannot be parsed; `position` counts characters from 0."""

    code = "login.user_string_invalid"

    def __init__(self, reason: str, *, text: str, position: int) -> None:
        self.reason = reason
        self.text = text
        self.position = position
        super().__init__(f"user string {text!r}: {reason} (at character {position + 1})")


class LoginRefused(LoginError):
    """Nobody is told whether the user, the key or a rule was the reason; the log is."""

    code = "login.refused"


class LockedOut(LoginRefused):
    """The key is right, and an operator has locked its user."""

    code = "login.locked"


class UserExpired(LoginRefused):
    """The key is right, and its user was let in until a moment that has passed."""

    code = "login.expired"


class AddressBanned(LoginRefused):
    """The key is right, and an operator has banned the address that it comes from."""

    code = "login.address_banned"


class TooManySessions(LoginRefused):
    """The key is right, and its user has as many connections as one may have."""

    code = "login.too_many_sessions"


class OnboardingError(LoginError):
    """A person who is not in the directory could not be let in.

    `user_message` names no account, key or claim of the provider: whoever asks need not be its owner.
    """

    code = "onboarding"
    account: str = ""
    """The account that approved, once it is known: for events, never for the person."""


class KeyNotProved(OnboardingError):
    """Onboarding was asked for without a key whose signature was verified."""

    code = "onboarding.key_not_proved"


class TooManyPending(OnboardingError):
    """So many people wait for approval that nobody else may begin."""

    code = "onboarding.too_many_pending"
    retryable = True


class TooManyFromSource(TooManyPending):
    """One address has as many approvals pending, or began as many of late, as it may."""

    code = "onboarding.too_many_from_source"


class TooManyForName(TooManyPending):
    """One user name has as many approvals pending as it may."""

    code = "onboarding.too_many_for_name"


class CodeExpired(OnboardingError):
    """Nobody approved in time, or nobody was left waiting."""

    code = "onboarding.code_expired"
    retryable = True


class ApprovalDenied(OnboardingError):
    """The person, or the provider on their behalf, said no."""

    code = "onboarding.denied"


class OtherAccount(OnboardingError):
    """The account that approved is not the user name that was typed."""

    code = "onboarding.other_account"


class AccountInactive(OnboardingError):
    """The account that approved is blocked or suspended at its provider."""

    code = "onboarding.account_inactive"


class KeyNotListed(OnboardingError):
    """Approved, but the provider does not list the proved key for that account."""

    code = "onboarding.key_not_listed"


class KeyNotConfirmed(OnboardingError):
    """Approved, but nobody confirmed this key on a page that shows it."""

    code = "onboarding.key_not_confirmed"


class OnboardingRefused(OnboardingError):
    """A rule keeps this account out; the message names the rule."""

    code = "onboarding.refused"


class OnboardingRejected(OnboardingRefused):
    """An operator looked at the waiting list and said no to this account."""

    code = "onboarding.rejected"


class Waitlisted(OnboardingError):
    """A rule lets this account in only after an operator approves."""

    code = "onboarding.waitlisted"


class NameTaken(OnboardingError):
    """The user name belongs to another account already."""

    code = "onboarding.name_taken"


class GrantEnded(OnboardingError):
    """The provider refuses what it gave to refresh an account with: it is revoked, expired or spent."""

    code = "onboarding.grant_ended"


class GrantMissing(OnboardingError):
    """The provider answers, and there is nothing to refresh an account with."""

    code = "onboarding.grant_missing"


class AccountEnded(OnboardingError):
    """The account is deleted or disabled at its provider, or the provider does not vouch for it any more."""

    code = "onboarding.account_ended"


class ProviderUnavailable(OnboardingError):
    """The identity provider does not answer, or not sensibly."""

    code = "onboarding.provider_unavailable"
    retryable = True
    may_have_acted: bool = False
    """The answer was lost, so that a token that is good for one use may be spent."""


class ProviderMisconfigured(OnboardingError):
    """The identity provider refuses us, or its answers do not fit our settings."""

    code = "onboarding.provider_misconfigured"
    is_token_refused: bool = False
    """A bearer token was refused with status 401."""
