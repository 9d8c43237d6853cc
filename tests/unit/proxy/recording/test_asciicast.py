"""Casts as pure text: what goes in comes out, wherever the frames cut it."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Exec, ProgramSpec, Pty, Shell, WindowSize
from proxy.recording.asciicast import PIECE_BYTES, AsciicastWriter, header
from proxy.recording.lines import MAX_LINE_BYTES, read_line


def events(cast: AsciicastWriter, pieces: list[bytes], *, is_stderr: bool = False) -> list[tuple[str, str]]:
    raw = [line for piece in pieces for line in cast.output(0.5, piece, is_stderr=is_stderr)]
    raw += cast.break_off(0.6)
    read = [read_line(line) for line in raw]
    assert all(read)
    assert all(len(line) <= MAX_LINE_BYTES and line.count(b"\n") == 1 for line in raw)
    return [(line.code, line.data) for line in read if line]


def shown(cast: AsciicastWriter, pieces: list[bytes]) -> str:
    return "".join(data for code, data in events(cast, pieces) if code == "o")


@given(st.text(max_size=200), st.lists(st.integers(0, 800), max_size=8))
def test_text_survives_any_cut(text: str, cuts: list[int]) -> None:
    data = text.encode(errors="ignore")
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert shown(AsciicastWriter(), pieces) == data.decode()


@given(st.binary(max_size=300), st.integers(0, 300))
def test_bytes_that_are_no_text_are_replaced_alike_however_they_come(data: bytes, cut: int) -> None:
    assert shown(AsciicastWriter(), [data[:cut], data[cut:]]) == data.decode(errors="replace")


def test_a_character_split_over_two_streams_mixes_with_neither() -> None:
    cast = AsciicastWriter()
    euro = "€".encode()
    raw = [
        *cast.output(1, euro[:2], is_stderr=False),
        *cast.output(2, b"err", is_stderr=True),
        *cast.output(3, euro[2:], is_stderr=False),
    ]
    assert [json.loads(line) for line in raw] == [[2, "e", "err"], [3, "o", "€"]]


def test_a_lot_is_cut_into_lines_of_bounded_length() -> None:
    data = bytes(3 * PIECE_BYTES)  # NULs are the longest in JSON
    assert shown(AsciicastWriter(), [data]) == data.decode()


def test_sizes_and_markers() -> None:
    cast = AsciicastWriter()
    assert json.loads(cast.resize(1.25, WindowSize(101, 37))) == [1.25, "r", "101x37"]
    assert json.loads(cast.resize(1.25, WindowSize(0, 0))) == [1.25, "r", "80x24"]
    assert json.loads(cast.marker(2, "note")) == [2, "m", "note"]


def test_the_header_is_one_of_asciicast_2() -> None:
    spec = ProgramSpec(Shell(), pty=Pty("xterm", WindowSize(100, 30)))
    content = json.loads(header(spec, timestamp=1, title="t", shell="/bin/zsh", about={"id": "x"}))
    assert content["version"] == 2
    assert (content["width"], content["height"]) == (100, 30)
    assert content["env"] == {"TERM": "xterm", "SHELL": "/bin/zsh"}
    bare = json.loads(header(ProgramSpec(Exec("true")), timestamp=1, title="t", shell="", about={}))
    assert (bare["width"], bare["height"], bare["env"]) == (80, 24, {})


def test_bulk_is_counted_and_text_around_it_kept() -> None:
    cast = AsciicastWriter(bulk_limit_bytes=10)
    told = events(cast, [b"text", b"\0\1\2", b"\0", b"more", b"too much of it", b"x"])
    assert told == [
        ("o", "text"),
        ("m", "4 bytes of stdout are left out: not text"),
        ("o", "more"),
        ("m", "15 bytes of stdout are left out: beyond the limit"),
    ]
