"""Parts of a recording for the page: what is in a frame, where a part ends, what is passed over."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

from proxy.recording import frames
from proxy.recording.frames import Ending, Marker, Part, parts
from proxy.recording.lines import event_line, header_line


async def film(
    *events: tuple[float, str, str], has_terminal: bool = True
) -> tuple[list[tuple[float, Any]], Ending]:
    async def lines() -> AsyncIterator[bytes]:
        yield header_line({"version": 2, "width": 20, "height": 4})
        for event in events:
            yield event_line(*event)

    found, ending = [], None
    async for item in parts(lines(), has_terminal=has_terminal):
        if isinstance(item, Part):
            found.append((item.begins_s, json.loads(gzip.decompress(base64.b64decode(item.data)))))
        else:
            ending = item
    assert ending is not None
    return found, ending


def text_of(content: dict[str, Any], number: int) -> dict[str, str]:
    return {y: "".join(run[1] for run in runs) for y, runs in content["frames"][number][2].items() if runs}


async def test_a_frame_holds_the_rows_that_changed_and_nothing_else() -> None:
    ((begins_s, content),), ending = await film((1.0, "o", "one\r\n"), (2.0, "o", "two"))
    assert begins_s == 0
    assert [frame[0] for frame in content["frames"]] == [0, 1.0, 2.0]
    assert content["frames"][0][3] == [20, 4]
    assert (text_of(content, 1), text_of(content, 2)) == ({"0": "one"}, {"1": "two"})
    assert ending == Ending(2.0, ())


async def test_output_within_a_frame_is_one_frame() -> None:
    ((_, content),), _ = await film((1.0, "o", "a"), (1.01, "o", "b"), (1.5, "o", "c"))
    assert [text_of(content, number) for number in (1, 2)] == [{"0": "ab"}, {"0": "abc"}]


async def test_what_changes_nothing_is_no_frame() -> None:
    ((_, content),), _ = await film(
        (1.0, "o", "\x1b[0m"), (2.0, "i", "typed"), (3.0, "h", "1 hash signature")
    )
    assert len(content["frames"]) == 1


async def test_a_resize_is_a_whole_screen() -> None:
    ((_, content),), _ = await film((1.0, "o", "one"), (2.0, "r", "30x5"), (3.0, "r", "nonsense"))
    assert content["frames"][2][3] == [30, 5]
    assert text_of(content, 2) == {"0": "one"}
    assert len(content["frames"]) == 3


async def test_a_part_begins_with_a_whole_screen(monkeypatch: Any) -> None:
    monkeypatch.setattr(frames, "PART_BYTES", 200)
    found, _ = await film(*((float(at), "o", f"line {at}\r\n") for at in range(1, 20)))
    assert len(found) > 2
    for begins_s, content in found:
        assert content["frames"][0][0] == begins_s
        assert content["frames"][0][3] == [20, 4]
    assert [text_of(content, 0).get("0", "").split(" ")[0] for _, content in found[1:]] == ["line"] * len(
        found[1:]
    )


async def test_a_program_without_a_terminal_gets_the_line_ends_that_one_would_add() -> None:
    ((_, content),), _ = await film((1.0, "e", "a\nb"), has_terminal=False)
    assert text_of(content, 1) == {"0": "a", "1": "b"}


async def test_times_never_go_back_and_are_never_later_than_the_event() -> None:
    ((_, content),), ending = await film((2.0009, "o", "a"), (1.0, "o", "b"), (5.0, "m", "note"))
    assert [frame[0] for frame in content["frames"]] == [0, 2.0]
    assert ending == Ending(5.0, (Marker(5.0, "note"),))


async def test_notes_beyond_the_limit_are_counted(monkeypatch: Any) -> None:
    monkeypatch.setattr(frames, "MAX_MARKERS", 2)
    _, ending = await film(*((float(at), "m", str(at)) for at in range(5)))
    assert [note.text for note in ending.markers] == ["0", "1", "3 more notes are left out"]


async def test_lines_that_cannot_be_read_are_passed_over() -> None:
    async def lines() -> AsyncIterator[bytes]:
        yield b"nonsense\n"
        yield b'{"width": 10, "height": 2}\n'
        yield b"[1, 2\n"
        yield event_line(1.0, "o", "fine")

    items = [item async for item in parts(lines(), has_terminal=True)]
    assert isinstance(items[-1], Ending)
    assert len(items) == 2


async def test_no_event_at_all_is_an_empty_screen() -> None:
    ((_, content),), ending = await film()
    assert len(content["frames"]) == 1
    assert ending == Ending(0.0, ())
