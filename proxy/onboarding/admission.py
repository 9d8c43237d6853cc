"""The decision at the end of an onboarding, on account, key and rules. Pure.

The approval of a code admits no key by itself. The key must have been proved (its signature verified) by the
requesting connection, and be the account's own: listed by the provider, or, where the provider lists none,
confirmed by the user on a page that showed this key. A list, where there is one, is the only authority: an
attacker can persuade a user to confirm a foreign key, but cannot change the list.
"""

from dataclasses import dataclass

from proxy.errors.login import (
    AccountInactive,
    KeyNotConfirmed,
    KeyNotListed,
    KeyNotProved,
    OnboardingError,
    OnboardingRefused,
    OtherAccount,
    Waitlisted,
)
from proxy.identity.profile import KeyList, Profile
from proxy.model import fingerprint
from proxy.onboarding.rules import Facts, Rules

GROUPS_LOGGED = 30
"""Limit of groups in a log line: some accounts have hundreds."""


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """A request for admission under a user name; `key_blob` is None unless its signature was verified."""

    name: str
    key_blob: bytes | None


def decide(
    request: AdmissionRequest,
    profile: Profile,
    listed: KeyList | None,
    confirmed: frozenset[str],
    rules: Rules,
) -> OnboardingError | None:
    """Return the reason to refuse, or None to admit.

    `listed` is None when the provider keeps no key lists; an empty list admits no key. `confirmed` holds
    fingerprints, as ssh-keygen prints them. The account is judged before the key, and the key before the
    rules, so that an unknown client learns nothing of rules and lists.
    """
    if request.key_blob is None:
        return KeyNotProved("no key was proved", user_message="a key has to be proved first")
    if profile.name != request.name:
        return OtherAccount(
            f"approved by {profile.provider} account {profile.login!r}, asked for {request.name!r}",
            user_message=f"approved by another {profile.provider} account than {request.name}",
        )
    return _judge_key(request.key_blob, profile, listed, confirmed) or _judge_account(profile, rules)


def _judge_key(
    blob: bytes, profile: Profile, listed: KeyList | None, confirmed: frozenset[str]
) -> OnboardingError | None:
    shown = fingerprint(blob)
    if listed is not None and blob not in listed.blobs:
        return KeyNotListed(
            f"{profile.provider} lists {len(listed.blobs)} keys for {profile.login!r}, not {shown}",
            user_message=f"your key {shown} is not among the keys of that {profile.provider} account",
        )
    if listed is None and shown not in confirmed:
        return KeyNotConfirmed(
            f"approved by {profile.login!r}, but {shown} was not confirmed",
            user_message=f"your key {shown} was not confirmed in the browser",
        )
    return None


def inactive(profile: Profile) -> OnboardingError:
    """Return the error of an account that its provider blocked."""
    return AccountInactive(
        f"{profile.provider} account {profile.login!r} is blocked",
        user_message=f"this account is blocked at {profile.provider}",
    )


def _judge_account(profile: Profile, rules: Rules) -> OnboardingError | None:
    if not profile.active:
        return inactive(profile)
    outcome = rules.decide(Facts(profile.provider, profile.name, profile.email, profile.groups))
    which = f"rule {outcome.rule!r}" if outcome.rule else "no rule lets it in"
    came = f"it came with {_facts_for_log(profile)}"
    if outcome.action == "waitlist":
        return Waitlisted(
            f"{profile.login!r} waits for an operator: {which}; {came}",
            user_message="your request is on the waiting list; an operator has to approve it",
        )
    if outcome.action == "refuse":
        return OnboardingRefused(
            f"{profile.login!r} refused: {which}; {came}", user_message="this account may not log in here"
        )
    return None


def _facts_for_log(profile: Profile) -> str:
    """Return the facts that rules use, for the log: at most GROUPS_LOGGED groups, and the mail domain."""
    groups = ", ".join(profile.groups[:GROUPS_LOGGED]) or "none"
    more = f" and {len(profile.groups) - GROUPS_LOGGED} more" if len(profile.groups) > GROUPS_LOGGED else ""
    domain = profile.email.rpartition("@")[2] or "none"
    return f"groups: {groups}{more}; domain of its address: {domain}"
