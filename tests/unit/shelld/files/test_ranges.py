"""Ranges of RFC 9110 §14: of ten bytes."""

import pytest

from shelld.files.ranges import NotSatisfiable, Span, span_of


@pytest.mark.parametrize(
    ("field", "span"),
    [
        (None, None),
        ("bytes=0-", Span(0, 10)),
        ("bytes=3-5", Span(3, 3)),
        ("bytes = 3 - 5", Span(3, 3)),
        ("bytes=9-9", Span(9, 1)),
        ("bytes=5-100", Span(5, 5)),
        ("bytes=-3", Span(7, 3)),
        ("bytes=-100", Span(0, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=\u0663-\u0665", None),
    ],
)
def test_a_range_is_one_part_or_the_whole(field: str | None, span: Span | None) -> None:
    assert span_of(field, 10) == span


@pytest.mark.parametrize(
    ("field", "size"),
    [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=-1", 0), ("bytes=0-", 0)],
)
def test_a_range_behind_the_end_cannot_be_had(field: str, size: int) -> None:
    with pytest.raises(NotSatisfiable):
        span_of(field, size)
