"""Terminal modes of RFC 4254 section 8, on values and on a real terminal."""

import os
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelld.programs.pty import apply_modes, set_modes

PLAIN = [0, 0, termios.CS8, termios.ECHO | termios.ISIG, termios.B38400, termios.B38400, [b"\3"] * 32]
IFLAG, OFLAG, CFLAG, LFLAG, ISPEED, OSPEED, CC = range(7)


def test_flags_are_set_and_cleared() -> None:
    changed = apply_modes(PLAIN, {53: 0, 50: 1, 36: 1, 42: 1, 70: 1, 72: 0, 92: 1})
    assert changed[LFLAG] == termios.ISIG
    assert changed[IFLAG] == termios.ICRNL | 0o40000
    assert changed[OFLAG] == termios.OPOST
    assert changed[CFLAG] == termios.CS8 | termios.PARENB


def test_characters_and_their_absence() -> None:
    changed = apply_modes(PLAIN, {1: 24, 10: 255})
    assert changed[CC][termios.VINTR] == b"\x18"
    assert changed[CC][termios.VSUSP] == b"\0"
    assert changed[CC][termios.VEOF] == b"\3"


def test_speeds_and_sizes() -> None:
    changed = apply_modes(PLAIN, {128: 9600, 129: 115200, 90: 1, 91: 0})
    assert (changed[ISPEED], changed[OSPEED]) == (termios.B9600, termios.B115200)
    assert changed[CFLAG] == termios.CS7
    assert apply_modes(PLAIN, {128: 0, 129: 12345})[ISPEED:CC] == PLAIN[ISPEED:CC]
    assert apply_modes(PLAIN, {90: 1, 91: 1})[CFLAG] == termios.CS8


def test_the_original_is_untouched() -> None:
    before = [list(word) if isinstance(word, list) else word for word in PLAIN]
    apply_modes(PLAIN, {1: 5, 53: 0})
    assert before == PLAIN


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 2**32 - 1)))
def test_whatever_a_client_sends_a_terminal_takes(modes: dict[int, int]) -> None:
    master, slave = os.openpty()
    try:
        set_modes(slave, modes)
        if 53 in modes:
            assert bool(termios.tcgetattr(slave)[LFLAG] & termios.ECHO) == bool(modes[53])
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    "opcode", [*range(1, 19), *range(30, 43), *range(50, 63), *range(70, 76), 90, 92, 93]
)
def test_every_opcode_that_linux_has_changes_something(opcode: int) -> None:
    absent = {11, 15, 17}  # DSUSP, FLUSH, STATUS
    off = apply_modes(PLAIN, {opcode: 0})
    on = apply_modes(PLAIN, {opcode: 1})
    assert (off == on) == (opcode in absent)
