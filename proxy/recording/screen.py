"""Screens of a recorded terminal, computed by Ghostty's terminal core.

This module is the only one that knows the library (`pyghostty`, a binding of libghostty-vt). Recorded output
is not trusted: the terminal here answers no query, loads no image and keeps no scrollback.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple, Self

from pyghostty._ffi import check, ffi, lib, union_fn
from pyghostty.core import Terminal as _Ghostty
from pyghostty.core import init_sized
from rich.cells import cell_len

MAX_COLUMNS = 500
MAX_ROWS = 300
_CELL_BYTES = 8
_BACKGROUND = re.compile(r"\x1b\[[0-9;:]*(?:4\d|10[0-7])")
"""Matches every SGR sequence that sets a background, and some others."""
_LONGEST_SGR = 64
_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_SEQUENCE = re.compile(r"\x1b\[[0-9;:]*m|[^\x1b]+")


class Run(NamedTuple):
    """Neighbouring characters with the same style."""

    style: str
    """Parameters of SGR (ECMA-48 §8.3.117), such as `1;38;5;1`; empty for the default."""
    text: str
    cells: int
    """Columns that the text occupies: two for each wide character."""


Row = tuple[Run, ...]


class Screen(NamedTuple):
    """A terminal at one moment."""

    columns: int
    rows: tuple[Row, ...]
    """All rows of the terminal, without uncoloured blanks at their ends."""
    cursor: tuple[int, int] | None
    """Column and row, from 0; None while the program hides it."""

    def text(self) -> list[str]:
        """Return the rows as plain text, without blanks at the end."""
        return ["".join(run.text for run in row).rstrip() for row in self.rows]


class Terminal:
    """A terminal without a window."""

    def __init__(self, columns: int, rows: int) -> None:
        """Create a terminal; sizes are limited to 1 to MAX_COLUMNS by 1 to MAX_ROWS."""
        self._core = _Ghostty(*_bounded(columns, rows), scrollback=0)
        limits = (
            (lib.GHOSTTY_TERMINAL_OPT_KITTY_IMAGE_STORAGE_LIMIT, "uint64_t*"),
            (lib.GHOSTTY_TERMINAL_OPT_APC_MAX_BYTES, "size_t*"),
        )
        for option, kind in limits:
            check(lib.ghostty_terminal_set(self._core._t[0], option, ffi.new(kind, 0)), "set a limit")
        self._formatter = _Formatter(self._core._t[0])
        self._cells = _Cells(self._core._t[0])
        self._has_backgrounds = False
        self._tail = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cells.close()
        self._core.close()

    def feed(self, text: str) -> None:
        """Show output of a program."""
        if not self._has_backgrounds:
            self._has_backgrounds = _BACKGROUND.search(self._tail + text) is not None
            self._tail = text[-_LONGEST_SGR:]
        self._core.feed(text.encode("utf-8", "replace"))

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, within the same limits."""
        self._core.resize(*_bounded(columns, rows))

    def screen(self) -> Screen:
        """Return the visible content."""
        columns, height = self._core.size
        written = self._formatter.lines(columns, height)
        rows = [_parsed(line) for line in written]
        # The formatter leaves out rows that hold coloured blanks and no character.
        if self._has_backgrounds and not all(rows):
            for y, cells in enumerate(self._cells.rows(height)):
                if not rows[y] and cells.strip(b"\0"):
                    rows[y] = _blanks(cells)
        cursor = self._core.cursor if self._core.mode(25) else None
        return Screen(columns, tuple(rows), cursor)


class _Formatter:
    """A writer of the visible rows of one terminal; it reuses the library's structures."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal
        self._grid_ref = union_fn(
            "ghostty_terminal_grid_ref", "GhosttyResult(*)(GhosttyTerminal, GhosttyPointS, GhosttyGridRef*)"
        )
        self._point = ffi.new("GhosttyPointS*")
        self._point.tag = lib.GHOSTTY_POINT_TAG_ACTIVE
        self._corner = init_sized("GhosttyGridRef")
        self._selection = init_sized("GhosttySelection")
        self._options = init_sized("GhosttyFormatterTerminalOptions")
        self._options.emit = lib.GHOSTTY_FORMATTER_FORMAT_VT
        self._options.selection = self._selection
        self._buffer = ffi.new("uint8_t[]", 64 * 1024)
        self._used = ffi.new("size_t*")

    def lines(self, columns: int, height: int) -> list[str]:
        """Return each row as text with SGR sequences, each row complete in itself."""
        self._selection.start = self._ref(0, 0)
        self._selection.end = self._ref(columns - 1, height - 1)
        formatter = ffi.new("GhosttyFormatter*")
        made = lib.ghostty_formatter_terminal_new(ffi.NULL, formatter, self._terminal, self._options[0])
        check(made, "formatter")
        try:
            written = self._written(formatter[0])
        finally:
            lib.ghostty_formatter_free(formatter[0])
        lines = written.split("\r\n")[:height]
        return lines + [""] * (height - len(lines))

    def _written(self, formatter: Any) -> str:
        while True:
            size = len(self._buffer)
            result = lib.ghostty_formatter_format_buf(formatter, self._buffer, size, self._used)
            if result == lib.GHOSTTY_OUT_OF_SPACE and self._used[0] > size:
                self._buffer = ffi.new("uint8_t[]", 2 * self._used[0])
                continue
            check(result, "format")
            return str(ffi.buffer(self._buffer, self._used[0])[:], "utf-8", "replace")

    def _ref(self, x: int, y: int) -> Any:
        """Return a reference to a visible cell, valid until the terminal changes."""
        self._point.value.x, self._point.value.y = x, y
        check(self._grid_ref(self._terminal, self._point[0], self._corner), "cell")
        return self._corner[0]


class _Cells:
    """A reader of the visible cells of one terminal."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal
        self._state = ffi.new("GhosttyRenderState*")
        self._iterator = ffi.new("GhosttyRenderStateRowIterator*")
        self._view = ffi.new("GhosttyCellsView*")
        check(lib.ghostty_render_state_new(ffi.NULL, self._state), "render state")
        check(lib.ghostty_render_state_row_iterator_new(ffi.NULL, self._iterator), "row iterator")

    def close(self) -> None:
        """Free the memory of the library."""
        lib.ghostty_render_state_row_iterator_free(self._iterator[0])
        lib.ghostty_render_state_free(self._state[0])

    def rows(self, height: int) -> Iterator[bytes]:
        """Yield the cells of each row, in the library's form of eight bytes for each cell."""
        check(lib.ghostty_render_state_update(self._state[0], self._terminal), "render state")
        rows = lib.GHOSTTY_RENDER_STATE_DATA_ROW_ITERATOR
        check(lib.ghostty_render_state_get(self._state[0], rows, self._iterator), "rows")
        for _ in range(height):
            if not lib.ghostty_render_state_row_iterator_next(self._iterator[0]):
                return
            raw = lib.GHOSTTY_RENDER_STATE_ROW_DATA_CELLS_RAW
            check(lib.ghostty_render_state_row_get(self._iterator[0], raw, self._view), "cells")
            yield ffi.buffer(self._view.ptr, self._view.len * _CELL_BYTES)[:] if self._view.len else b""


def _bounded(columns: int, rows: int) -> tuple[int, int]:
    return min(max(columns, 1), MAX_COLUMNS), min(max(rows, 1), MAX_ROWS)


@lru_cache(maxsize=4_096)  # most rows of a screen equal those of the last one
def _parsed(line: str) -> Row:
    return tuple(_runs(line))


def _runs(line: str) -> Iterator[Run]:
    style: list[str] = []
    for piece in _SEQUENCE.findall(line):
        if (change := _SGR.fullmatch(piece)) is None:
            yield from _by_width(";".join(style), piece)
        elif change.group(1) in ("", "0"):
            style.clear()
        else:
            style.append(change.group(1))


def _by_width(style: str, text: str) -> Iterator[Run]:
    """Split where narrow and wide characters meet, so that columns stay aligned in any font."""
    if text.isascii():
        yield Run(style, text, len(text))
        return
    for _, group in groupby(_clusters(text), key=cell_len):
        together = "".join(group)
        yield Run(style, together, cell_len(together))


def _clusters(text: str) -> Iterator[str]:
    """Yield each character with its combining characters."""
    cluster = ""
    for character in text:
        if cluster and cell_len(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


@lru_cache(maxsize=1_024)
def _blanks(cells: bytes) -> Row:
    """Return a row without characters as coloured blanks; empty where it has no colour."""
    colours = map(_colour, memoryview(cells).cast("Q"))
    runs = [Run(style, " " * (size := len(list(group))), size) for style, group in groupby(colours)]
    while runs and not runs[-1].style:
        runs.pop()
    return tuple(runs)


@lru_cache(maxsize=1_024)
def _colour(cell: int) -> str:
    """Return the SGR parameters of the background of a cell without a character."""
    tag = _cell_value(cell, lib.GHOSTTY_CELL_DATA_CONTENT_TAG, "GhosttyCellContentTag*")
    if tag == lib.GHOSTTY_CELL_CONTENT_BG_COLOR_PALETTE:
        return f"48;5;{_cell_value(cell, lib.GHOSTTY_CELL_DATA_COLOR_PALETTE, 'uint8_t*')}"
    if tag == lib.GHOSTTY_CELL_CONTENT_BG_COLOR_RGB:
        colour = _cell_value(cell, lib.GHOSTTY_CELL_DATA_COLOR_RGB, "GhosttyColorRgb*")
        return f"48;2;{colour.r};{colour.g};{colour.b}"
    return ""


def _cell_value(cell: int, key: int, kind: str) -> Any:
    out = ffi.new(kind)
    check(lib.ghostty_cell_get(cell, key, out), "cell")
    return out[0]
