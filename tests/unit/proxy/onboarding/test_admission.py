"""Who is let in, as a table. Each row is one way in which somebody tries; most of them are theft."""

import pytest

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
from proxy.onboarding.admission import AdmissionRequest, decide
from proxy.onboarding.rules import Rules
from proxy.settings.onboarding import RuleSettings
from tests.fakes.provider import new_key

ALICE, OTHER, MALLORY = new_key(), new_key(), new_key()
OPEN = Rules(otherwise="allow")
CLOSED = Rules()
QUEUE = Rules(otherwise="waitlist")


def profile(login: str = "alice", *, active: bool = True) -> Profile:
    return Profile("idp", "https://idp.example", f"id-{login}", login, login, active=active)


def listed(*keys: object, stale: bool = False) -> KeyList:
    return KeyList(frozenset(key.blob for key in keys), stale=stale)  # type: ignore[attr-defined]


CONFIRMED_ALICE = frozenset([ALICE.fingerprint])
CONFIRMED_MALLORY = frozenset([MALLORY.fingerprint])
NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("case", "key", "account", "keys", "confirmed", "rules", "expected"),
    [
        ("her key, listed", ALICE, profile(), listed(ALICE), NOBODY, OPEN, None),
        ("one of several listed", ALICE, profile(), listed(OTHER, ALICE), NOBODY, OPEN, None),
        ("listed by a stale list", ALICE, profile(), listed(ALICE, stale=True), NOBODY, OPEN, None),
        ("her key, confirmed", ALICE, profile(), None, CONFIRMED_ALICE, OPEN, None),
        # Phishing: a stranger typed her name and proved a key of his own; she approved his code.
        ("a stranger's key, her approval", MALLORY, profile(), listed(ALICE), NOBODY, OPEN, KeyNotListed),
        ("the same without lists", MALLORY, profile(), None, NOBODY, OPEN, KeyNotConfirmed),
        ("she confirmed her own key", MALLORY, profile(), None, CONFIRMED_ALICE, OPEN, KeyNotConfirmed),
        ("a list outweighs", MALLORY, profile(), listed(ALICE), CONFIRMED_MALLORY, OPEN, KeyNotListed),
        ("an empty list lists nobody", MALLORY, profile(), listed(), CONFIRMED_MALLORY, OPEN, KeyNotListed),
        # He approves with an account of his own, on which his key is listed, to become her.
        ("approved by his account", MALLORY, profile("mallory"), listed(MALLORY), NOBODY, OPEN, OtherAccount),
        ("confirmed by him", MALLORY, profile("mallory"), None, CONFIRMED_MALLORY, OPEN, OtherAccount),
        # Keyboard-interactive before publickey: no key was proved at all.
        ("no key proved", None, profile(), listed(ALICE), CONFIRMED_ALICE, OPEN, KeyNotProved),
        ("no key proved, no lists", None, profile(), None, CONFIRMED_ALICE, OPEN, KeyNotProved),
        # Approved, then another key on the retry.
        ("another key on the retry", OTHER, profile(), listed(ALICE), NOBODY, OPEN, KeyNotListed),
        ("another confirmed one", OTHER, profile(), None, CONFIRMED_ALICE, OPEN, KeyNotConfirmed),
        ("another of her own", OTHER, profile(), listed(ALICE, OTHER), NOBODY, OPEN, None),
        # Rules come last: a stranger learns nothing of them.
        ("no rule", ALICE, profile(), listed(ALICE), NOBODY, CLOSED, OnboardingRefused),
        ("waiting list", ALICE, profile(), listed(ALICE), NOBODY, QUEUE, Waitlisted),
        ("blocked account", ALICE, profile(active=False), listed(ALICE), NOBODY, OPEN, AccountInactive),
        ("stranger at a closed door", MALLORY, profile(), listed(ALICE), NOBODY, CLOSED, KeyNotListed),
        ("his account, closed", MALLORY, profile("mallory"), listed(MALLORY), NOBODY, CLOSED, OtherAccount),
    ],
)  # fmt: skip
def test_decision(case, key, account, keys, confirmed, rules, expected) -> None:
    request = AdmissionRequest("alice", None if key is None else key.blob)
    outcome = decide(request, account, keys, confirmed, rules)
    assert (None if outcome is None else type(outcome)) is expected, case


def test_every_refusal_has_a_sentence_of_its_own() -> None:
    request = AdmissionRequest("alice", ALICE.blob)
    outcomes = [
        decide(AdmissionRequest("alice", None), profile(), None, NOBODY, OPEN),
        decide(request, profile("eve"), None, NOBODY, OPEN),
        decide(request, profile(), listed(), NOBODY, OPEN),
        decide(request, profile(), None, NOBODY, OPEN),
        decide(request, profile(active=False), None, CONFIRMED_ALICE, OPEN),
        decide(request, profile(), None, CONFIRMED_ALICE, CLOSED),
        decide(request, profile(), None, CONFIRMED_ALICE, QUEUE),
    ]
    sentences = [outcome.user_message for outcome in outcomes if isinstance(outcome, OnboardingError)]
    assert len(set(sentences)) == len(outcomes) == 7
    assert len({type(outcome) for outcome in outcomes}) == 7


def test_a_stranger_is_not_told_whose_account_approved() -> None:
    outcome = decide(AdmissionRequest("alice", ALICE.blob), profile("eve-personal"), None, NOBODY, OPEN)
    assert outcome is not None
    assert "eve-personal" not in outcome.user_message
    assert "eve-personal" in str(outcome)


def test_the_operator_reads_which_rule_it_was() -> None:
    rules = Rules((RuleSettings(name="no contractors", action="refuse", names=("al*",)),), "allow")
    outcome = decide(AdmissionRequest("alice", ALICE.blob), profile(), listed(ALICE), NOBODY, rules)
    assert isinstance(outcome, OnboardingRefused)
    assert "no contractors" in str(outcome)
    assert "contractors" not in outcome.user_message
