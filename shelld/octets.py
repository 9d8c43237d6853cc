"""Commands, values and paths: bytes to the kernel, text in here, and nothing lost in between.

A byte that is no part of UTF-8 is a lone surrogate in the text (PEP 383), whatever locale shelld was started
in. Such text must be `shown` before it is encoded as UTF-8 for people.
"""

from __future__ import annotations

import re

_FIRST = 0xDC00
_OTHER_BYTE = re.compile("[\udc80-\udcff]")


def text_of(data: bytes) -> str:
    """Return the text of any bytes; `bytes_of` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return the bytes that `text_of` made a text of, or the UTF-8 of any other text."""
    return text.encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    r"""Return text in which a byte that is not UTF-8 is written as `\xe9`; other lone surrogates stay."""
    return _OTHER_BYTE.sub(lambda found: f"\\x{ord(found[0]) - _FIRST:02x}", text)
