"""Replay of a recording in a terminal, at any speed, or as a plain asciicast."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from proxy.recording.lines import (
    LINK,
    OUTPUT,
    RESIZE,
    STDERR,
    Line,
    event_line,
    header_line,
    read_header,
    read_line,
)

# Each control of two bytes, ESC and a letter, is also one character of U+0080 to U+009F (ECMA-48 §5.3).
_STRING = r"(?:\x1b[\]P^_X]|[\x90\x98\x9d-\x9f])"
_CSI = r"(?:\x1b\[|\x9b)"
_STRINGS = re.compile(_STRING + r".*?(?:\x07|\x1b\\|\x9c)", re.DOTALL)
_QUERIES = re.compile(_CSI + r"[0-9;?>=]*(?:[cntx]|\$p)|" + _CSI + r"(?:>[0-9]*q|\?u)|\x1bZ|\x9a|\x05")
_UNFINISHED = re.compile(rf"(?:{_CSI}[0-9;?>=$]*|{_STRING}[^\x07\x9c]*|\x1b)\Z", re.DOTALL)
_MAX_HELD = 64 * 1024

RESET = "\x1b[?1049l\x1b7\x1b[r\x1b8\x1b[?1;1000;1002;1003;1006;2004l\x1b[?7;25h\x1b>\x1b(B\x1b[0m"
"""Resets what a program may have changed in the terminal that shows a recording."""


class OutputSanitizer:
    """A filter that removes sequences which act on more than the screen.

    Titles, the clipboard (OSC 52) and other strings are removed, and so are window operations and queries
    that the terminal would answer as input: recorded output must not act on an operator's terminal.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """Return the safe text; an incomplete sequence waits for its end."""
        text = self._held + text
        self._held = ""
        text = _QUERIES.sub("", _STRINGS.sub("", text))
        if (tail := _UNFINISHED.search(text)) is not None and len(tail.group()) <= _MAX_HELD:
            self._held = tail.group()
            text = text[: tail.start()]
        return text


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """One step of a replay."""

    wait_s: float
    """Seconds after the last step."""
    text: str
    size: tuple[int, int] | None = None
    """Columns and rows, when the terminal changed; `text` is empty then."""


class ReplayPace:
    """A converter of times in a recording into waits."""

    def __init__(self, speed: float, idle_limit_s: float | None) -> None:
        self._speed = speed
        self._idle_limit_s = idle_limit_s
        self._last_s = 0.0

    def wait_s(self, at_s: float) -> float:
        """Return the seconds to wait for an event at `at_s`."""
        pause = max(at_s - self._last_s, 0.0)
        self._last_s = max(at_s, self._last_s)
        if self._idle_limit_s is not None:
            pause = min(pause, self._idle_limit_s)
        return pause / self._speed


async def play(
    lines: AsyncIterator[bytes], pace: ReplayPace, *, sanitize: bool = True
) -> AsyncIterator[ReplayStep]:
    """Yield the steps of a replay; unreadable lines are skipped."""
    sanitizer = OutputSanitizer()
    async for raw in lines:
        line = read_line(raw)
        if line is None:
            if (size := size_of(read_header(raw))) is not None:
                yield ReplayStep(0, "", size)
            continue
        if line.code in (OUTPUT, STDERR):
            text = sanitizer.feed(str(line.data)) if sanitize else str(line.data)
            if text:
                yield ReplayStep(pace.wait_s(line.at_s), text)
        elif line.code == RESIZE and (size := parse_size(str(line.data))) is not None:
            yield ReplayStep(pace.wait_s(line.at_s), "", size)


async def plain_cast(lines: AsyncIterator[bytes], *, has_terminal: bool) -> AsyncIterator[bytes]:
    """Yield the lines of a recording as every asciicast player takes them.

    Links of the chain are removed, both outputs become one, and line ends of a program without a terminal get
    the carriage return that a terminal would have added.
    """
    async for raw in lines:
        line = read_line(raw)
        if line is None:
            if (header := read_header(raw)) is not None:
                header.pop("fairlead", None)
                yield header_line(header)
        elif line.code != LINK:
            yield _plain(line, has_terminal=has_terminal)


def _plain(line: Line, *, has_terminal: bool) -> bytes:
    if line.code not in (OUTPUT, STDERR):
        return event_line(*line)
    text = str(line.data)
    return event_line(line.at_s, OUTPUT, text if has_terminal else text.replace("\n", "\r\n"))


def parse_size(text: str) -> tuple[int, int] | None:
    """Parse `COLUMNSxROWS`; return None for anything else."""
    columns, _, rows = text.partition("x")
    if columns.isascii() and columns.isdecimal() and rows.isascii() and rows.isdecimal():
        return int(columns), int(rows)
    return None


def size_of(header: dict[str, object] | None) -> tuple[int, int] | None:
    """Return the terminal size in a header; None without one."""
    match header:
        case {"width": int(columns), "height": int(rows)}:
            return columns, rows
    return None


def log_lines(line: Line) -> Iterator[str]:
    """Yield an operation of an sftp log as text for operators."""
    if line.code == LINK or not isinstance(line.data, dict):
        return
    about = dict(line.data)
    status = about.pop("status", "")
    words = [_word(key, value) for key, value in about.items()]
    details = f": {status}" if status not in ("", "ok") else ""
    yield f"{line.at_s:10.3f}  {line.code:<8} {' '.join(words)}{details}"


def _word(key: str, value: object) -> str:
    if isinstance(value, list):
        value = "+".join(str(part) for part in value)
    text = "".join(character if character.isprintable() else "\ufffd" for character in str(value))
    return text if key in ("path", "from") else f"{key}={text}"
