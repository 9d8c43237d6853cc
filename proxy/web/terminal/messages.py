"""Messages between the page of a terminal and the proxy. Pure.

Binary messages are input to the program, and its output. Text messages are JSON objects with one key:

    page  ─▶ {"open": SIZE}         first, once: start the program
             {"resize": SIZE}       SIZE = {"columns", "rows", "width", "height"}, the latter two in pixels
             {"shown": N}           bytes of output that the terminal has drawn, in all
    proxy ─▶ {"room": N}            bytes of input that may be sent, in all
             {"exit": WORDS}        how the program ended; the last message

Both directions are paced by counts, as the channels of SSH are by windows (RFC 4254 §5.2): a browser stores
all messages that a page has not handled, so TCP alone would not hold the sender up.
"""

from dataclasses import dataclass

import orjson

from proxy.model import Exit, ExitStatus, WindowSize

SUBPROTOCOL = "fairlead.terminal.v1"
MAX_SIDE = 10_000
"""Columns, rows or pixels; the kernel takes 16 bits of each."""


class MessageInvalid(Exception):
    """A text message that no page of ours sends."""


@dataclass(frozen=True, slots=True)
class Open:
    """The request to start the program."""

    size: WindowSize


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal has another size."""

    size: WindowSize


@dataclass(frozen=True, slots=True)
class Shown:
    """The terminal has drawn so many bytes in all."""

    total: int


def read(text: str) -> Open | Resize | Shown:
    """Read a text message of the page. Raises: MessageInvalid naming the fault."""
    try:
        said = orjson.loads(text)
    except ValueError:
        raise MessageInvalid("a text message is no JSON") from None
    match said:
        case {"open": dict(size), **rest} if not rest:
            return Open(_size(size))
        case {"resize": dict(size), **rest} if not rest:
            return Resize(_size(size))
        case {"shown": int(total), **rest} if not rest and not isinstance(total, bool):
            return Shown(total)
    raise MessageInvalid("a text message is none of open, resize and shown")


def _size(said: dict[str, object]) -> WindowSize:
    def side(name: str, least: int) -> int:
        value = said.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_SIDE:
            raise MessageInvalid(f"{name} is not a number from {least} to {MAX_SIDE}")
        return value

    return WindowSize(side("columns", 1), side("rows", 1), side("width", 0), side("height", 0))


def room(total: int) -> str:
    """Write how much input may be sent in all."""
    return orjson.dumps({"room": total}).decode()


def ended(end: Exit) -> str:
    """Write how the program ended."""
    if isinstance(end, ExitStatus):
        words = "The shell has ended." if not end.status else f"The shell has ended with status {end.status}."
    else:
        words = f"The shell was ended by the signal {end.name}."
    return orjson.dumps({"exit": words}).decode()
