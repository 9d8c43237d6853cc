"""Forms with files, however they are cut into pieces."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelld.files.multipart import Form, FormCut, FormInvalid, boundary_of

BOUNDARY = b"----xyz"


def form(*parts: tuple[bytes, bytes], end: bytes = b"--\r\n") -> bytes:
    """Write a form of heads and contents."""
    body = b""
    for head, content in parts:
        body += b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY, head, content)
    return body + b"--" + BOUNDARY + end


def reader(body: bytes, size: int) -> Callable[[], bytes]:
    pieces: Iterator[bytes] = (body[at : at + size] for at in range(0, len(body), size))
    return lambda: next(pieces, b"")


def read(body: bytes, size: int = 7) -> list[tuple[bytes, bytes | None, bytes]]:
    parts = Form(BOUNDARY, reader(body, size)).parts()
    return [(part.name, part.filename, b"".join(part.content)) for part in parts]


def field(name: str, filename: str | None = None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    return (head + ("" if filename is None else f'; filename="{filename}"')).encode()


@given(
    contents=st.lists(
        st.lists(
            st.sampled_from([b"\r\n", b"--", BOUNDARY, b"-", b"\r", b"\n", b"a", b"\0"]), max_size=12
        ).map(b"".join),
        max_size=4,
    ).filter(lambda all_: not any(b"\r\n--" + BOUNDARY in b"\r\n" + one for one in all_)),
    size=st.integers(1, 64),
)
def test_contents_come_whole_whatever_they_look_like(contents: list[bytes], size: int) -> None:
    body = form(*((field("file", "name"), one) for one in contents))
    assert read(body, size) == [(b"file", b"name", one) for one in contents]


def test_a_part_that_is_not_read_is_skipped() -> None:
    body = form((field("a", "a"), b"x" * 1_000), (field("b"), b"yes"))
    assert [part.name for part in Form(BOUNDARY, reader(body, 16)).parts()] == [b"a", b"b"]


def test_what_is_before_the_first_boundary_and_behind_the_last_has_no_meaning() -> None:
    assert read(b"preamble\r\n" + form((field("a"), b"1"), end=b"--epilogue")) == [(b"a", None, b"1")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("plain.txt", b"plain.txt"),
        ("grüße 漢字.txt", "grüße 漢字.txt".encode()),
        ("a%22b.txt", b'a"b.txt'),
        (r"a\"b.txt", b'a"b.txt'),
        ("a%0D%0Ab", b"a\r\nb"),
        (r"back\slash", rb"back\slash"),
        ("back\\", b"back\\"),
        ("semi;colon", b"semi;colon"),
        ("100%25", b"100%25"),
        ("", b""),
    ],
)
def test_names_are_what_browsers_mean(written: str, meant: bytes) -> None:
    assert read(form((field("file", written), b""))) == [(b"file", meant, b"")]


@pytest.mark.parametrize(
    "end", [b"", b"-", b"\r\n", b'\r\nContent-Disposition: form-data; name="a"\r\n\r\nx']
)
def test_a_form_that_is_cut_is_no_form(end: bytes) -> None:
    with pytest.raises(FormCut):
        read(form((field("a"), b"1"), end=end))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (form((b"Content-Type: text/plain", b"1")), "has no name"),
        (form((b"X: " + b"x" * 20_000, b"1")), "head of a part is too long"),
    ],
)
def test_a_form_that_is_none_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(FormInvalid, match=reason):
        read(body, 4_096)


def test_a_field_that_should_be_short_is_not_read_for_ever() -> None:
    parts = Form(BOUNDARY, reader(form((field("replace"), b"x" * 1_000)), 16)).parts()
    with pytest.raises(FormInvalid, match="too long"):
        next(parts).text(16)


def test_the_boundary_is_read_as_browsers_and_curl_write_it() -> None:
    assert boundary_of("multipart/form-data; boundary=----xyz") == BOUNDARY
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="a b"') == b"a b"
    for wrong in ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded; boundary=x"):
        with pytest.raises(FormInvalid):
            boundary_of(wrong)
