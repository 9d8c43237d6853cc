"""Messages of the terminal page: what is read, and what is refused in words."""

import json

import pytest

from proxy.model import ExitSignal, ExitStatus, WindowSize
from proxy.web.terminal.messages import MessageInvalid, Open, Resize, Shown, ended, read

SIZE = {"columns": 80, "rows": 24, "width": 640, "height": 384}


def test_what_the_page_sends_is_read() -> None:
    assert read(json.dumps({"open": SIZE})) == Open(WindowSize(80, 24, 640, 384))
    assert read(json.dumps({"resize": {"columns": 1, "rows": 1}})) == Resize(WindowSize(1, 1, 0, 0))
    assert read('{"shown": 0}') == Shown(0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "none of open"),
        ("7", "none of open"),
        ("{}", "none of open"),
        ('{"shown": true}', "none of open"),
        ('{"shown": "7"}', "none of open"),
        ('{"shown": 1, "open": {}}', "none of open"),
        ('{"open": {}}', "columns is not a number from 1 to 10000"),
        ('{"open": {"columns": 0, "rows": 24}}', "columns is not"),
        ('{"open": {"columns": true, "rows": 24}}', "columns is not"),
        ('{"resize": {"columns": 80, "rows": 1e9}}', "rows is not"),
        ('{"resize": {"columns": 80, "rows": 24, "width": -1}}', "width is not a number from 0"),
        ('{"resize": {"columns": 80, "rows": 24, "height": 10001}}', "height is not"),
    ],
)
def test_what_no_page_of_ours_sends_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(MessageInvalid, match=reason):
        read(text)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (ExitStatus(0), "The shell has ended."),
        (ExitStatus(7), "The shell has ended with status 7."),
        (ExitSignal("HUP"), "The shell was ended by the signal HUP."),
    ],
)
def test_the_end_is_told_in_words(end: ExitStatus | ExitSignal, words: str) -> None:
    assert json.loads(ended(end)) == {"exit": words}
