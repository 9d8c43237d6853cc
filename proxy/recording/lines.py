"""The lines of every recording: a header, then `[seconds, code, data]`, each one JSON.

Terminals use the codes of asciicast v2, and their file is one: `o` output, `i` input, `r` resize as
`"COLUMNSxROWS"`, `m` marker. Fairlead adds codes that players skip: `e` output on stderr, `h` a link of the
chain. An sftp log uses names of operations with objects.
Source: https://docs.asciinema.org/manual/asciicast/v2/
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

OUTPUT = "o"
STDERR = "e"
INPUT = "i"
RESIZE = "r"
MARKER = "m"
LINK = "h"

MAX_LINE_BYTES = 1024 * 1024
"""Longer than any line that is written here: 64 KiB of control characters become 384 KiB."""


class Line(NamedTuple):
    """One event as read back."""

    at_s: float
    code: str
    data: Any


def header_line(content: Mapping[str, Any]) -> bytes:
    """Return the first line."""
    return json.dumps(content).encode() + b"\n"


def event_line(at_s: float, code: str, data: str | Mapping[str, Any]) -> bytes:
    """Return the line of one event, `at_s` seconds from the beginning, to the microsecond."""
    event = (round(float(at_s), 6), code, data)
    try:
        return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # a lone surrogate: from a file that was not written here
        return json.dumps(event).encode() + b"\n"


def read_line(raw: bytes) -> Line | None:
    """Parse one event; return None for any other text."""
    try:
        match json.loads(raw):
            case [int() | float() as at_s, str() as code, data]:
                return Line(float(at_s), code, data)
    except (ValueError, RecursionError):
        pass
    return None


def read_header(raw: bytes) -> dict[str, Any] | None:
    """Parse the first line; return None when it is no header."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
