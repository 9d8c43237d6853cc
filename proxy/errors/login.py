"""Errors of logins: shown by banner or disconnect, before any channel exists."""

from proxy.errors import FairleadError


class LoginError(FairleadError):
    """A failure that ends the connection before any channel exists."""

    code = "login"


class UserStringInvalid(LoginError):
    """A malformed user string; `position` counts characters from 0."""

    code = "login.user_string_invalid"

    def __init__(self, reason: str, *, text: str, position: int) -> None:
        self.reason = reason
        self.text = text
        self.position = position
        super().__init__(f"user string {text!r}: {reason} (at character {position + 1})")


class LoginRefused(LoginError):
    """A refused login.

    The client does not learn whether the user, the key or a rule was the reason; the log does.
    """

    code = "login.refused"


class LockedOut(LoginRefused):
    """A login with the right key, of a user whom an operator has locked."""

    code = "login.locked"


class UserExpired(LoginRefused):
    """A login with the right key, of a user whose access has expired."""

    code = "login.expired"


class AddressBanned(LoginRefused):
    """A login with the right key, from an address that an operator has banned."""

    code = "login.address_banned"


class TooManySessions(LoginRefused):
    """A login with the right key, of a user who has as many connections as allowed."""

    code = "login.too_many_sessions"


class OnboardingError(LoginError):
    """An onboarding that failed: the user is not in the directory and is not added.

    `user_message` names no account, key or claim of the provider: the client may not be the account's owner.
    """

    code = "onboarding"
    account: str = ""
    """The account that approved, once it is known: for events, never for the user."""


class KeyNotProved(OnboardingError):
    """An onboarding that was requested without a key whose signature was verified."""

    code = "onboarding.key_not_proved"


class TooManyPending(OnboardingError):
    """An onboarding beyond the limit of pending approvals."""

    code = "onboarding.too_many_pending"
    retryable = True


class TooManyFromSource(TooManyPending):
    """An onboarding beyond the limits of one address: of pending approvals, or of recent starts."""

    code = "onboarding.too_many_from_source"


class TooManyForName(TooManyPending):
    """An onboarding beyond the limit of pending approvals for one user name."""

    code = "onboarding.too_many_for_name"


class CodeExpired(OnboardingError):
    """A code that was not approved in time, or whose last waiting client has left."""

    code = "onboarding.code_expired"
    retryable = True


class ApprovalDenied(OnboardingError):
    """An approval that the user, or the provider on the user's behalf, denied."""

    code = "onboarding.denied"


class OtherAccount(OnboardingError):
    """An approval by another account than the user name that was typed."""

    code = "onboarding.other_account"


class AccountInactive(OnboardingError):
    """An approval by an account that is blocked or suspended at its provider."""

    code = "onboarding.account_inactive"


class KeyNotListed(OnboardingError):
    """An approval by an account for which the provider does not list the proved key."""

    code = "onboarding.key_not_listed"


class KeyNotConfirmed(OnboardingError):
    """An approval without a confirmation of this key on the page that shows it."""

    code = "onboarding.key_not_confirmed"


class OnboardingRefused(OnboardingError):
    """An account that a rule refuses; the message names the rule."""

    code = "onboarding.refused"


class OnboardingRejected(OnboardingRefused):
    """An account on the waiting list that an operator rejected."""

    code = "onboarding.rejected"


class Waitlisted(OnboardingError):
    """An account that a rule admits only after an operator approves."""

    code = "onboarding.waitlisted"


class NameTaken(OnboardingError):
    """A user name that belongs to another account already."""

    code = "onboarding.name_taken"


class GrantEnded(OnboardingError):
    """A refresh token that the provider refuses: it is revoked, expired or spent."""

    code = "onboarding.grant_ended"


class GrantMissing(OnboardingError):
    """An account without a token to refresh it with, while the provider answers."""

    code = "onboarding.grant_missing"


class AccountEnded(OnboardingError):
    """An account that is deleted or disabled at its provider, or that the provider no longer vouches for."""

    code = "onboarding.account_ended"


class ProviderUnavailable(OnboardingError):
    """An identity provider that does not answer, or not sensibly."""

    code = "onboarding.provider_unavailable"
    retryable = True
    may_have_acted: bool = False
    """Whether the provider may have acted although its answer was lost: a one-use token may be spent."""


class ProviderMisconfigured(OnboardingError):
    """An identity provider that refuses Fairlead, or whose answers do not fit the settings."""

    code = "onboarding.provider_misconfigured"
    is_token_refused: bool = False
    """Whether a bearer token was refused with status 401."""
