"""Replays as values: pace, what is kept from a terminal, plain casts."""

import json
from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.recording.chain import Verifier
from proxy.recording.lines import event_line, header_line, read_line
from proxy.recording.replay import OutputSanitizer, ReplayPace, log_lines, plain_cast, play
from proxy.recording.signing import Keyring


async def lines(*raw: bytes) -> AsyncIterator[bytes]:
    for one in raw:
        yield one


HEADER = header_line({"version": 2, "width": 80, "height": 24, "fairlead": {"id": "x"}})


async def test_it_plays_at_its_pace_or_another() -> None:
    events = [event_line(at, "o", f"{at}") for at in (1, 1.5, 61.5)]
    own = [shown.wait_s async for shown in play(lines(HEADER, *events), ReplayPace(1, None))]
    assert own == [0, 1, 0.5, 60]
    fast = [shown.wait_s async for shown in play(lines(HEADER, *events), ReplayPace(2, 3))]
    assert fast == [0, 0.5, 0.25, 1.5]


async def test_it_shows_both_outputs_and_sizes_and_nothing_else() -> None:
    raw = (
        HEADER,
        event_line(0, "o", "out"),
        event_line(0, "e", "err"),
        event_line(0, "i", "typed"),
        event_line(0, "m", "marker"),
        event_line(0, "r", "100x30"),
        event_line(0, "r", "nonsense"),
        event_line(0, "h", "1 2 3"),
        b"garbage\n",
    )
    shown = [one async for one in play(lines(*raw), ReplayPace(1, None))]
    assert "".join(one.text for one in shown) == "outerr"
    assert [one.size for one in shown if one.size] == [(80, 24), (100, 30)]


def tamed(pieces: Iterable[str]) -> str:
    filter_ = OutputSanitizer()
    return "".join(filter_.feed(piece) for piece in pieces)


@pytest.mark.parametrize(
    "harmful",
    [
        "\x1b]52;c;c2VjcmV0\x07",
        "\x1b]0;title\x1b\\",
        '\x1bP$q"p\x1b\\',
        "\x1b_payload\x1b\\",
        "\x1b[6n",
        "\x1b[c",
        "\x1b[>0c",
        "\x1b[?2026$p",
        "\x1b[21t",
        "\x1b[>q",
        "\x1b[?u",
        "\x1bZ",
        "\x9d52;c;c2VjcmV0\x07",
        "\x9d0;title\x9c",
        '\x90$q"p\x9c',
        "\x9b6n",
        "\x9b?2026$p",
        "\x05",
    ],
)
def test_what_acts_on_more_than_the_screen_is_dropped_however_it_is_cut(harmful: str) -> None:
    text = f"before{harmful}after"
    for cut in range(len(text)):
        assert tamed([text[:cut], text[cut:]]) == "beforeafter", cut


@given(
    st.lists(
        st.sampled_from(["\x1b[31m", "\x1b[2J", "\x1b[1;1H", "text", "\r\n", "é", "\x1b[?25l"]), max_size=20
    )
)
def test_what_draws_passes(pieces: list[str]) -> None:
    assert tamed(pieces) == "".join(pieces)


@given(st.lists(st.text(max_size=20), max_size=10))
def test_no_text_breaks_it(pieces: list[str]) -> None:
    tamed(pieces)


async def test_a_plain_cast_has_one_output_and_no_links() -> None:
    raw = (HEADER, event_line(1, "e", "a\n"), event_line(2, "h", "1 2 3"), event_line(3, "m", "note"))
    out = [json.loads(line) async for line in plain_cast(lines(*raw), has_terminal=False)]
    assert out == [{"version": 2, "width": 80, "height": 24}, [1.0, "o", "a\r\n"], [3.0, "m", "note"]]


async def test_a_file_that_somebody_else_wrote_breaks_nothing() -> None:
    raw = (
        HEADER,
        b'[1,"o","\\ud800"]\n',
        b'[2,"h","1 \\ud800"]\n',
        b"[[[[\n",
        b'{"a":"\\ud800"}\n',
        b'[1,"o",7]\n',
    )
    assert [line async for line in plain_cast(lines(*raw), has_terminal=True)]
    assert [one async for one in play(lines(*raw), ReplayPace(1, None))]
    verifier = Verifier("x", Keyring(()), "SHA256:none")
    for line in raw:
        verifier.feed(line)
    assert verifier.broken


def test_operations_are_written_for_people() -> None:
    about = {"path": "/tmp/x\x1b[2J", "flags": ["read", "write"], "handle": 1, "status": "failure"}
    line = read_line(event_line(1.5, "open", about))
    assert line
    assert list(log_lines(line)) == [
        "     1.500  open     /tmp/x\ufffd[2J flags=read+write handle=1: failure"
    ]
