"""Ranges of a file (RFC 9110 §14): one part of it, or the whole. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file, from `start` on."""

    start: int
    size: int


class NotSatisfiable(Exception):
    """A range that begins behind the end of the file: the answer is 416."""


def span_of(field: str | None, size: int) -> Span | None:
    """Return the range that is asked for; None: the whole file, also for a range of another form.

    Several ranges at once are answered by the whole file, which §14.2 permits. Raises: NotSatisfiable.
    """
    found = None if field is None else _ONE.fullmatch(field)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        last = min(int(found[2]), size)
        if not last:
            raise NotSatisfiable
        return Span(size - last, last)
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None  # §14.1.1: such a range is invalid, and an invalid one is ignored
    if start >= size:
        raise NotSatisfiable
    end = min(int(found[2]), size - 1) if found[2] else size - 1
    return Span(start, end - start + 1)
