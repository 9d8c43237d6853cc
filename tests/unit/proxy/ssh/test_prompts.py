"""Sentences as values: what a person reads, without a terminal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from proxy.errors.login import UserStringInvalid
from proxy.errors.stores import StoreError
from proxy.onboarding.flow import DisplayedCode
from proxy.ssh import prompts

SHOWN = DisplayedCode(
    provider="github",
    verification_uri="https://github.com/login/device",
    verification_uri_complete="",
    user_code="WDJB-MJHT",
    is_code_typed=True,
    expires_at=datetime(2100, 1, 1, tzinfo=UTC),
)


def test_an_approval_fits_what_openssh_prints() -> None:
    """It logs title and instruction, at most 1,023 bytes of each, and escapes what is not ASCII."""
    soon = replace(SHOWN, expires_at=datetime.now(UTC) + timedelta(seconds=900))
    title, text = prompts.approval(soon, "alice")
    assert "alice" in title
    assert "github" in title
    assert text.isascii()
    assert len(text) < 1_023
    assert "https://github.com/login/device\n" in text
    assert "WDJB-MJHT" in text
    assert "15 minutes" in text


def test_a_link_that_leads_straight_there_asks_to_compare_the_code() -> None:
    _, text = prompts.approval(replace(SHOWN, is_code_typed=False), "alice")
    assert "compare the code" in text


def test_a_qr_code_has_the_width_of_every_terminal_or_is_not_there() -> None:
    drawing = prompts.qr_code(SHOWN)
    assert drawing.count("\n") > 10
    assert max(len(line) for line in drawing.splitlines()) <= prompts.MAX_QR_COLUMNS
    assert prompts.qr_code(replace(SHOWN, verification_uri_complete="https://x.test/" + "y" * 2_000)) == ""


def test_a_bad_user_string_is_shown_with_its_position_and_an_example() -> None:
    exc = UserStringInvalid("something is missing here", text="alice++x", position=6)
    sentence = prompts.user_string_invalid(exc)
    assert "'alice++x'" in sentence
    assert "(character 7)" in sentence
    assert "user+blueprint" in sentence


def test_a_broken_store_says_no_more_than_a_reference() -> None:
    assert "secret" not in prompts.refusal(StoreError("secret"), "ref")
