"""What a client may repeat before its login: two budgets, and nothing outside of them."""

import pytest

from proxy.ssh.attempts import KEY_EXCHANGE, NONE, PUBLICKEY, SERVICE, Attempts


def _failures_until_over(attempts: Attempts, method: str) -> int:
    for number in range(1, 1_000):
        attempts.asked(method)
        if attempts.is_over:
            return number - 1
        attempts.failed(method)
        if attempts.is_over:
            return number
    raise AssertionError("no end")


def test_six_failures_that_are_no_keys_end_it() -> None:
    assert _failures_until_over(Attempts(6, 20), "password") == 6


def test_the_first_none_is_free_and_only_the_first() -> None:
    assert _failures_until_over(Attempts(6, 20), NONE) == 7


def test_a_none_after_a_key_is_free_too() -> None:
    attempts = Attempts(1, 20)
    attempts.asked(PUBLICKEY)
    attempts.failed(PUBLICKEY)
    attempts.asked(NONE)
    attempts.failed(NONE)
    assert not attempts.is_over


def test_keys_have_their_own_budget() -> None:
    assert _failures_until_over(Attempts(1, 20), PUBLICKEY) == 21


def test_a_welcome_key_that_is_never_proved_counts_as_a_key() -> None:
    attempts = Attempts(6, 2)
    for _ in range(3):
        attempts.asked(PUBLICKEY)
        assert not attempts.is_over
    attempts.asked(PUBLICKEY)
    assert attempts.is_over


def test_an_offer_and_its_signature_are_one_key() -> None:
    attempts = Attempts(6, 2)
    for _ in range(2):
        attempts.asked(PUBLICKEY)
        attempts.asked(PUBLICKEY, proves=True)
        attempts.failed(PUBLICKEY)
    assert not attempts.is_over


@pytest.mark.parametrize("what", [SERVICE, KEY_EXCHANGE, "keyboard-interactive"])
def test_what_is_asked_again_before_it_led_anywhere_is_a_failure(what: str) -> None:
    attempts = Attempts(6, 20)
    for _ in range(6):
        attempts.asked(what)
        assert not attempts.is_over
    attempts.asked(what)
    assert attempts.is_over


def test_a_service_before_every_method_costs_nothing() -> None:
    attempts = Attempts(1, 20)
    for _ in range(20):
        attempts.asked(SERVICE)
        attempts.asked(PUBLICKEY)
        attempts.failed(PUBLICKEY)
    assert not attempts.is_over


def test_a_service_does_not_make_an_open_request_free() -> None:
    attempts = Attempts(6, 3)
    for _ in range(4):
        attempts.asked(SERVICE)
        attempts.asked(PUBLICKEY)
    attempts.asked(SERVICE)
    assert attempts.is_over


def test_what_led_on_does_not_count() -> None:
    attempts = Attempts(1, 0)
    for method in (PUBLICKEY, "keyboard-interactive", PUBLICKEY):
        attempts.asked(method)
        attempts.led_on()
    assert not attempts.is_over
