"""Commands, values and paths: bytes on both wires, text in here, and nothing lost in between.

POSIX knows no encoding of them. A byte that is no part of UTF-8 is a lone surrogate in the text (PEP 383).
Such text must be `shown` before it goes into a record, an event or a sentence.
"""

import re

_FIRST = 0xDC00
_OTHER_BYTE = re.compile("[\udc80-\udcff]")


def text_of(data: bytes) -> str:
    """Return the text of any bytes; `bytes_of` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return the bytes that `text_of` made a text of, or the UTF-8 of any other text."""
    return text.encode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Return whether the bytes of a text are UTF-8."""
    return _OTHER_BYTE.search(text) is None


def shown(text: str) -> str:
    r"""Return text in which a byte that is not UTF-8 is written as `\xe9`; other lone surrogates stay."""
    return _OTHER_BYTE.sub(lambda found: f"\\x{ord(found[0]) - _FIRST:02x}", text)
