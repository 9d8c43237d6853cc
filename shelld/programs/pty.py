"""Pseudo-terminals: opening, ownership, size, modes and break. No bytes are carried here."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import struct
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shelld.errors import StartCode, StartError
from shelld.launch.account import Account


@dataclass(frozen=True, slots=True)
class WindowSize:
    """A size in columns and rows, then in pixels; 0 means unknown. Values above 65535 are cut."""

    columns: int = 0
    rows: int = 0
    width_px: int = 0
    height_px: int = 0


@dataclass(frozen=True, slots=True)
class PtySpec:
    """A client's request for a terminal: RFC 4254 section 6.2. `modes` maps opcode to value."""

    term: str = ""
    window: WindowSize = field(default_factory=WindowSize)
    modes: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Pty:
    """Both ends of an open pseudo-terminal; the holder closes them."""

    master: int
    slave: int
    path: str


# RFC 4254 section 8. Control characters: opcode → index in c_cc. Linux has no DSUSP (11), FLUSH (15)
# or STATUS (17).
_CHARACTERS = {
    1: termios.VINTR,
    2: termios.VQUIT,
    3: termios.VERASE,
    4: termios.VKILL,
    5: termios.VEOF,
    6: termios.VEOL,
    7: termios.VEOL2,
    8: termios.VSTART,
    9: termios.VSTOP,
    10: termios.VSUSP,
    12: termios.VREPRINT,
    13: termios.VWERASE,
    14: termios.VLNEXT,
    16: termios.VSWTC,
    18: termios.VDISCARD,
}
_IUCLC, _IUTF8, _XCASE, _OLCUC, _PENDIN = 0o1000, 0o40000, 0o4, 0o2, 0o40000  # not all are in `termios`
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)
# Flags: opcode → (word of tcgetattr, bit).
_FLAGS = {
    30: (_IFLAG, termios.IGNPAR),
    31: (_IFLAG, termios.PARMRK),
    32: (_IFLAG, termios.INPCK),
    33: (_IFLAG, termios.ISTRIP),
    34: (_IFLAG, termios.INLCR),
    35: (_IFLAG, termios.IGNCR),
    36: (_IFLAG, termios.ICRNL),
    37: (_IFLAG, _IUCLC),
    38: (_IFLAG, termios.IXON),
    39: (_IFLAG, termios.IXANY),
    40: (_IFLAG, termios.IXOFF),
    41: (_IFLAG, termios.IMAXBEL),
    42: (_IFLAG, _IUTF8),
    50: (_LFLAG, termios.ISIG),
    51: (_LFLAG, termios.ICANON),
    52: (_LFLAG, _XCASE),
    53: (_LFLAG, termios.ECHO),
    54: (_LFLAG, termios.ECHOE),
    55: (_LFLAG, termios.ECHOK),
    56: (_LFLAG, termios.ECHONL),
    57: (_LFLAG, termios.NOFLSH),
    58: (_LFLAG, termios.TOSTOP),
    59: (_LFLAG, termios.IEXTEN),
    60: (_LFLAG, termios.ECHOCTL),
    61: (_LFLAG, termios.ECHOKE),
    62: (_LFLAG, _PENDIN),
    70: (_OFLAG, termios.OPOST),
    71: (_OFLAG, _OLCUC),
    72: (_OFLAG, termios.ONLCR),
    73: (_OFLAG, termios.OCRNL),
    74: (_OFLAG, termios.ONOCR),
    75: (_OFLAG, termios.ONLRET),
    92: (_CFLAG, termios.PARENB),
    93: (_CFLAG, termios.PARODD),
}
_CS7, _CS8, _TTY_ISPEED, _TTY_OSPEED = 90, 91, 128, 129
_NO_CHARACTER = 255
_DISABLED = b"\0"  # _POSIX_VDISABLE of Linux


def apply_modes(attributes: list[Any], modes: Mapping[int, int]) -> list[Any]:
    """Return `tcgetattr` attributes changed by the client's terminal modes; pure.

    Opcodes that Linux does not know are ignored, as RFC 4254 section 8 requires; modes that the client left
    out keep their value. A line speed that termios has no constant for is ignored.
    """
    changed = [list(word) if isinstance(word, list) else word for word in attributes]
    characters = changed[_CC]
    assert isinstance(characters, list)
    for opcode, value in modes.items():
        if opcode in _CHARACTERS:
            off = value == _NO_CHARACTER or value > 255
            characters[_CHARACTERS[opcode]] = _DISABLED if off else bytes([value])
        elif opcode in _FLAGS:
            word, bit = _FLAGS[opcode]
            _set(changed, word, bit, on=bool(value))
        elif opcode in {_TTY_ISPEED, _TTY_OSPEED}:
            speed = getattr(termios, f"B{value}", None)
            if isinstance(speed, int) and value:  # B0 would hang up the line
                changed[_ISPEED if opcode == _TTY_ISPEED else _OSPEED] = speed
    if modes.get(_CS8) or modes.get(_CS7):
        _set(changed, _CFLAG, termios.CSIZE, on=False)
        _set(changed, _CFLAG, termios.CS8 if modes.get(_CS8) else termios.CS7, on=True)
    return changed


def _set(attributes: list[object], word: int, bit: int, *, on: bool) -> None:
    old = attributes[word]
    assert isinstance(old, int)
    attributes[word] = old | bit if on else old & ~bit


def set_modes(fd: int, modes: Mapping[int, int]) -> None:
    """Apply the client's terminal modes as far as a pseudo-terminal supports them.

    Raises: termios.error when `fd` is no terminal.
    """
    changed = apply_modes(termios.tcgetattr(fd), modes)
    # A pseudo-terminal always keeps 8 bits and no parity. glibc compares afterwards and then
    # reports an error although every other mode was set.
    with contextlib.suppress(termios.error):
        termios.tcsetattr(fd, termios.TCSANOW, changed)


def open_pty(account: Account, spec: PtySpec) -> Pty:
    """Open a pseudo-terminal that belongs to `account`, with the client's size and modes.

    The master does not block. The slave has mode 0620 and group `tty` where that group exists
    (so that `write` and `mesg` work), 0600 otherwise.

    Raises: StartError NO_PTY.
    """
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise StartError(StartCode.NO_PTY, f"no pseudo-terminal is to be had: {error.strerror}") from error
    try:
        os.set_blocking(master, False)
        _give(slave, account)
        set_modes(slave, spec.modes)
        set_window(master, spec.window)
        return Pty(master, slave, os.ttyname(slave))
    except (OSError, termios.error) as error:
        os.close(master)
        os.close(slave)
        raise StartError(StartCode.NO_PTY, f"the pseudo-terminal cannot be prepared: {error}") from error


def _give(slave: int, account: Account) -> None:
    if os.geteuid() != 0 or os.fstat(slave).st_uid == account.uid:
        return  # devpts gave it to the account that opened it
    try:
        group, mode = grp.getgrnam("tty").gr_gid, 0o620
    except KeyError:
        group, mode = account.gid, 0o600
    os.fchown(slave, account.uid, group)
    os.fchmod(slave, mode)


def set_window(master: int, window: WindowSize) -> None:
    """Set the size; the kernel sends WINCH to the foreground job when it changed."""
    cells = (window.rows, window.columns, window.width_px, window.height_px)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", *(min(number, 0xFFFF) for number in cells)))


def send_break(master: int) -> None:
    """Send a break: RFC 4335. A pseudo-terminal has no line, so its length means nothing.

    Raises: termios.error when the terminal is gone.
    """
    termios.tcsendbreak(master, 0)
