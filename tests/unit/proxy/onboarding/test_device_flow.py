import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from proxy.errors import FairleadError
from proxy.errors.login import ApprovalDenied, CodeExpired, ProviderMisconfigured, ProviderUnavailable
from proxy.http.client import Reply
from proxy.http.secret import Secret
from proxy.onboarding import device_flow
from proxy.onboarding.device_flow import Authorization, DeviceClient, Event, Send, Tokens, Wait
from tests.fakes.provider import fixture

CLIENT = DeviceClient(
    "idp", "https://idp.example/device", "https://idp.example/token", "me", scopes=("a", "b")
)
CODE = Authorization(
    Secret("dc"), "ABCD-EFGH", "https://idp.example/go", "", expires_at=1_900.0, interval_s=5.0
)
DEVICE = {
    "device_code": "dc",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://idp.example/go",
    "expires_in": 900,
    "interval": 5,
}
PENDING = {"error": "authorization_pending"}
TOKEN = {"access_token": "at", "token_type": "bearer"}


def reply(body: Any, status: int = 200, media_type: str = "application/json") -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {"content-type": media_type}, raw)


def run(
    steps: Any, answers: Iterable[Reply | str], start: float = 1_000.0
) -> tuple[Any, list[float], list[Any]]:
    """Carry a flow out: its result or error, the waits, the requests. Text is a failure of the network."""
    now, waits, sent, left = start, [], [], iter(answers)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                now += step.seconds
                waits.append(round(step.seconds, 2))
                step = steps.send(Event(now))
            else:
                assert isinstance(step, Send)
                sent.append(step.request)
                answer = next(left)
                failed = isinstance(answer, str)
                step = steps.send(Event(now, failure=answer) if failed else Event(now, answer))
    except StopIteration as end:
        return end.value, waits, sent
    except FairleadError as exc:
        return exc, waits, sent


def poll(*answers: Reply | str) -> tuple[Any, list[float], list[Any]]:
    return run(device_flow.poll(CLIENT, CODE, 1_000.0), answers)


# ----------------------------------------------------------------------------------------- starting


def test_the_first_request_is_a_form_with_client_and_scopes() -> None:
    _, _, sent = run(device_flow.start(CLIENT), [reply(DEVICE)])
    assert [(request.url, request.form) for request in sent] == [
        ("https://idp.example/device", {"client_id": "me", "scope": "a b"})
    ]


@pytest.mark.parametrize(
    ("answer", "interval_s", "expires_at"),
    [
        (DEVICE, 5.0, 1_900.0),
        ({**DEVICE, "interval": None}, 5.0, 1_900.0),
        ({key: value for key, value in DEVICE.items() if key != "interval"}, 5.0, 1_900.0),
        ({**DEVICE, "interval": "7", "expires_in": "600"}, 7.0, 1_600.0),
        ({**DEVICE, "interval": 0}, 1.0, 1_900.0),
        ({**DEVICE, "interval": -3}, 5.0, 1_900.0),
        ({**DEVICE, "interval": "soon"}, 5.0, 1_900.0),
        ({**DEVICE, "interval": True}, 5.0, 1_900.0),
        ({**DEVICE, "expires_in": 10**12}, 5.0, 1_300.0),
        ({**DEVICE, "expires_in": 86_400}, 5.0, 1_900.0),
    ],
)
def test_a_code_is_read_whatever_its_numbers_look_like(
    answer: dict[str, Any], interval_s: float, expires_at: float
) -> None:
    result, _, _ = run(device_flow.start(CLIENT), [reply(answer)])
    assert (result.user_code, result.interval_s, result.expires_at) == ("ABCD-EFGH", interval_s, expires_at)


def test_google_says_verification_url() -> None:
    answer = {**DEVICE, "verification_url": "https://www.google.com/device"}
    del answer["verification_uri"]
    result, _, _ = run(device_flow.start(CLIENT), [reply(answer)])
    assert result.verification_uri == "https://www.google.com/device"


def test_github_answers_in_a_form_unless_asked_for_json() -> None:
    entry = fixture("github")["device_as_form"]
    result, _, _ = run(device_flow.start(CLIENT), [reply(entry["text"].encode(), 200, entry["media_type"])])
    assert (result.user_code, result.verification_uri) == ("WDJB-MJHT", "https://github.com/login/device")


@pytest.mark.parametrize(
    "change",
    [
        {"device_code": ""},
        {"device_code": 5},
        {"user_code": "AB\x1b[2JCD"},
        {"user_code": "A" * 65},
        {"user_code": ""},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://idp.example/\x1b]0;x"},
        {"verification_uri": "http://idp.example/go"},
        {"verification_uri": None},
    ],
)
def test_what_would_reach_a_terminal_is_plain_text_and_https(change: dict[str, Any]) -> None:
    result, _, _ = run(device_flow.start(CLIENT), [reply({**DEVICE, **change})])
    assert isinstance(result, ProviderMisconfigured)


def test_a_complete_uri_that_cannot_be_shown_is_left_out() -> None:
    result, _, _ = run(device_flow.start(CLIENT), [reply({**DEVICE, "verification_uri_complete": "x y"})])
    assert result.verification_uri_complete == ""


def test_a_provider_in_trouble_is_asked_three_times() -> None:
    result, waits, sent = run(device_flow.start(CLIENT), ["no route", reply(b"<html>", 503), reply(b"", 500)])
    assert isinstance(result, ProviderUnavailable)
    assert (waits, len(sent)) == ([1.0, 2.0], 3)


def test_a_provider_that_recovers_gives_a_code() -> None:
    result, _, _ = run(device_flow.start(CLIENT), ["no route", reply(DEVICE)])
    assert isinstance(result, Authorization)


@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_refused_client_is_a_matter_for_the_operator(status: int) -> None:
    result, _, sent = run(device_flow.start(CLIENT), [reply({"error": "device_flow_disabled"}, status)])
    assert isinstance(result, ProviderMisconfigured)
    assert "device_flow_disabled" in str(result)
    assert "device_flow_disabled" not in result.user_message
    assert len(sent) == 1


# ------------------------------------------------------------------------------------------ polling


@pytest.mark.parametrize("status", [200, 400, 401, 403, 428])
def test_pending_is_pending_whatever_the_status(status: int) -> None:
    result, waits, sent = poll(reply(PENDING, status), reply(PENDING, status), reply(TOKEN))
    assert isinstance(result, Tokens)
    assert result.access.reveal() == "at"
    assert waits == [6.0, 6.0, 6.0]
    assert sent[0].form == {
        "client_id": "me",
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": Secret("dc"),
    }


def test_slow_down_adds_five_seconds_for_good() -> None:
    slow = reply({"error": "slow_down"}, 400)
    _, waits, _ = poll(slow, reply(PENDING), slow, reply(PENDING), reply(TOKEN))
    assert waits == [6.0, 12.0, 12.0, 18.0, 18.0]


def test_slow_down_may_name_a_longer_interval() -> None:
    _, waits, _ = poll(reply({"error": "slow_down", "interval": 20}), reply(PENDING), reply(TOKEN))
    assert waits == [6.0, 24.0, 24.0]


def test_slow_down_never_makes_it_faster() -> None:
    _, waits, _ = poll(reply({"error": "slow_down", "interval": 1}), reply(TOKEN))
    assert waits == [6.0, 12.0]


@pytest.mark.parametrize(
    "trouble",
    [
        "timed out",
        reply(b"<html>Bad Gateway</html>", 502, "text/html"),
        reply(b"<html>All is well</html>", 200, "text/html"),
        reply(b'{"access_tok', 200),
        reply(b"", 200),
        reply(b"[]", 200),
        reply(b"\xff\xfe", 200),
        reply({"message": "API rate limit"}, 429),
        reply(b"", 302),
        reply(b'{"a":' * 5_000, 200),
        reply({"access_token": "at"}, 500),
    ],
)
def test_what_is_no_answer_is_retried_ever_less_often(trouble: Reply | str) -> None:
    result, waits, _ = poll(trouble, trouble, trouble, reply(PENDING), reply(TOKEN))
    assert isinstance(result, Tokens)
    assert waits == [6.0, 12.0, 24.0, 48.0, 6.0]


def test_back_off_has_a_ceiling() -> None:
    _, waits, _ = poll(*["down"] * 8, reply(TOKEN))
    assert max(waits) == 60.0


def test_nothing_is_asked_after_the_code_expired() -> None:
    answers = [reply(PENDING)] * 200
    result, waits, sent = poll(*answers)
    assert isinstance(result, CodeExpired)
    assert sum(waits) == pytest.approx(900.0)
    assert len(sent) == 149


def test_an_outage_until_the_end_is_not_called_expiry() -> None:
    result, _, _ = poll(*["down"] * 200)
    assert isinstance(result, ProviderUnavailable)
    assert result.retryable


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("access_denied", ApprovalDenied),
        ("authorization_declined", ApprovalDenied),
        ("expired_token", CodeExpired),
        ("token_expired", CodeExpired),
        ("bad_verification_code", ProviderMisconfigured),
        ("incorrect_device_code", ProviderMisconfigured),
        ("incorrect_client_credentials", ProviderMisconfigured),
        ("invalid_client", ProviderMisconfigured),
        ("invalid_grant", ProviderMisconfigured),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 403, 429, 500, 503])
def test_final_errors_end_the_flow(error: Any, kind: type[FairleadError], status: int) -> None:
    result, _, sent = poll(reply(PENDING), reply({"error": error}, status))
    assert type(result) is kind
    assert len(sent) == 2
    assert "\x1b" not in str(result)


@pytest.mark.parametrize("error", ["\x1b[31m", ["x"], "unheard_of"])
@pytest.mark.parametrize("status", [200, 400, 403])
def test_errors_that_are_not_known_end_the_flow_and_are_not_printed(error: Any, status: int) -> None:
    result, _, sent = poll(reply(PENDING), reply({"error": error}, status))
    assert type(result) is ProviderMisconfigured
    assert len(sent) == 2
    assert "\x1b" not in str(result)


# ---------------------------------------------------------------------------------------- busy providers

BUSY = [
    ({"error": "temporarily_unavailable"}, 503),
    ({"error": "temporarily_unavailable"}, 400),
    ({"error": "too_many_requests"}, 429),
    ({"error": "server_error"}, 500),
    ({"error": "server_error"}, 200),
    ({"error": "Service Unavailable", "status": 503, "path": "/token"}, 503),
    ({"error": "whatever_this_server_says"}, 502),
    ({"error": {"code": 429}}, 429),
    (b"", 503),
]
BUSY_SENTENCE = "idp is busy at the moment; try again in a few minutes"


@pytest.mark.parametrize(("body", "status"), BUSY)
def test_every_temporary_answer_to_a_poll_is_temporary(body: Any, status: int) -> None:
    busy = reply(body, status)
    result, waits, _ = poll(busy, busy, reply(PENDING), reply(TOKEN))
    assert isinstance(result, Tokens)
    assert waits == [6.0, 12.0, 24.0, 6.0]


@pytest.mark.parametrize(("body", "status"), BUSY)
def test_a_busy_provider_is_asked_again_for_a_code(body: Any, status: int) -> None:
    result, waits, _ = run(device_flow.start(CLIENT), [reply(body, status), reply(DEVICE)])
    assert isinstance(result, Authorization)
    assert waits == [1.0]


@pytest.mark.parametrize(("body", "status"), BUSY)
def test_the_sentence_says_that_the_provider_is_busy(body: Any, status: int) -> None:
    for result, _, _ in (
        run(device_flow.start(CLIENT), [reply(body, status)] * 3),
        poll(*[reply(body, status)] * 200),
    ):
        assert isinstance(result, ProviderUnavailable)
        assert (result.user_message, result.retryable) == (BUSY_SENTENCE, True)


def later(body: Any, status: int, retry_after: str) -> Reply:
    return Reply(status, {"retry-after": retry_after}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [
        ("90", 90.0),
        ("3", 12.0),
        ("86400", 300.0),
        ("soon", 12.0),
        ("-5", 12.0),
        ("", 12.0),
        ("9" * 40, 300.0),
    ],
)
def test_retry_after_is_honoured_and_bounded(retry_after: str, wait_s: float) -> None:
    result, waits, _ = poll(later({"error": "too_many_requests"}, 429, retry_after), reply(TOKEN))
    assert isinstance(result, Tokens)
    assert waits == [6.0, wait_s]


def test_retry_after_holds_for_one_pause_only() -> None:
    _, waits, _ = poll(later({}, 503, "90"), reply(PENDING), reply(TOKEN))
    assert waits == [6.0, 90.0, 6.0]


def test_retry_after_may_be_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=200)
    _, waits, _ = poll(later({}, 503, format_datetime(soon, usegmt=True)), reply(TOKEN))
    assert 12.0 < waits[1] <= 200.0


def test_retry_after_before_the_code_is_waited_for_when_it_is_short() -> None:
    result, waits, _ = run(device_flow.start(CLIENT), [later({}, 503, "4"), reply(DEVICE)])
    assert isinstance(result, Authorization)
    assert waits == [4.0]


def test_a_long_retry_after_before_the_code_is_told_at_once() -> None:
    result, waits, sent = run(device_flow.start(CLIENT), [later({}, 429, "600")])
    assert isinstance(result, ProviderUnavailable)
    assert (result.user_message, waits, len(sent)) == (BUSY_SENTENCE, [], 1)


def test_a_success_with_a_spent_rate_limit_is_a_success() -> None:
    spent = Reply(200, {"x-ratelimit-remaining": "0"}, json.dumps(TOKEN).encode())
    assert isinstance(poll(spent)[0], Tokens)


def test_an_error_beside_a_token_is_an_error() -> None:
    result, _, _ = poll(reply({"error": "access_denied", "access_token": "at"}))
    assert isinstance(result, ApprovalDenied)


def test_a_lost_answer_is_the_networks_fault() -> None:
    """The tokens were in the reply that broke off; the code is good for one reply only."""
    result, _, _ = poll(reply(PENDING), "hung up in the middle", reply({"error": "invalid_grant"}, 400))
    assert isinstance(result, ProviderUnavailable)


def test_nothing_is_asked_after_success() -> None:
    steps = device_flow.poll(CLIENT, CODE, 1_000.0)
    result, _, sent = run(steps, [reply(TOKEN)])
    assert isinstance(result, Tokens)
    assert len(sent) == 1
    with pytest.raises(StopIteration):
        steps.send(Event(2_000.0))


@pytest.mark.parametrize("token", [{"access_token": "a\r\nb"}, {"access_token": "at", "token_type": "DPoP"}])
def test_a_token_that_is_no_bearer_is_refused(token: dict[str, str]) -> None:
    result, _, _ = poll(reply(token))
    assert isinstance(result, ProviderMisconfigured)


def test_a_confidential_client_proves_itself_in_the_form_or_by_basic() -> None:
    for basic in (False, True):
        client = DeviceClient("idp", "https://i.example/d", "https://i.example/t", "m:e", Secret("s&"), basic)
        _, _, sent = run(device_flow.poll(client, CODE, 1_000.0), [reply(TOKEN)])
        if basic:
            assert sent[0].basic[0] == "m%3Ae"
            assert sent[0].basic[1].reveal() == "s%26"
            assert "client_secret" not in sent[0].form
        else:
            assert sent[0].basic is None
            assert sent[0].form["client_secret"] == Secret("s&")


def test_secrets_have_no_repr() -> None:
    result, _, sent = poll(reply({**TOKEN, "access_token": "very-secret", "id_token": "x.y.z"}))
    shown = repr(result) + repr(CODE) + repr(sent) + f"{result.access}" + str(result.id_token)
    for secret in ("very-secret", "x.y.z", "'dc'", "ABCD"):
        assert secret not in shown
