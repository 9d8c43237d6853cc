"""Conversion of commands, values and paths: bytes on both wires, text inside, without loss.

POSIX defines no encoding for them. A byte outside UTF-8 is a lone surrogate in the text (PEP 383).
Such text must be `shown` before it goes into a record, an event or a sentence.
"""

import re

_FIRST = 0xDC00
_OTHER_BYTE = re.compile("[\udc80-\udcff]")


def text_of(data: bytes) -> str:
    """Return the text of any bytes; `bytes_of` returns the same bytes again."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return the bytes from which `text_of` made a text, or the UTF-8 of any other text."""
    return text.encode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Return whether the bytes of a text are UTF-8."""
    return _OTHER_BYTE.search(text) is None


def shown(text: str) -> str:
    r"""Return text in which a byte that is not UTF-8 is written as `\xe9`; other lone surrogates stay."""
    return _OTHER_BYTE.sub(lambda found: f"\\x{ord(found[0]) - _FIRST:02x}", text)
