"""Cookie fields: our own are taken out literally, all other bytes stay as they are. Pure.

A name that an app might take for ours is taken out too: one that equals ours once blanks are trimmed or case
is folded. What differs in any other way is an app's own cookie and is left alone.
"""

import re
from contextlib import suppress

SESSION, LOGIN, PRE = "fairlead", "fairlead-login", "fairlead-pre-"
PREFIX = "__Host-Http-"
"""Of the names over https: browsers let no script and no sibling host set such a cookie, and those that do
not know it treat it as `__Host-` (draft-ietf-httpbis-layered-cookies, cookie name prefixes)."""

_OURS = re.compile(r"(?:__host-http-)?fairlead(?:-login|-pre-[a-z0-9_-]{1,64})?")
_IN_EACH = SESSION.encode()
_TRIMMED = "\ufeff\u200b\u2060\u180e"
"""Blanks of other languages, which `str.strip` leaves."""
_DOMAIN = re.compile(rb";[ \t]*domain[ \t]*(?:=[^;]*)?(?=;|\Z)", re.IGNORECASE)


def is_ours(name: bytes) -> bool:
    """Tell whether an app could take this cookie name for one of ours.

    Both readings of bytes are tried that programs use, UTF-8 and Latin-1.
    """
    readings = [name.decode("latin-1")]
    with suppress(UnicodeDecodeError):
        readings.append(name.decode())
    return any(_OURS.fullmatch(_folded(text)) for text in readings)


def without_ours(value: bytes) -> bytes:
    """Return a Cookie field without our cookies; the bytes of all others are untouched, and their order.

    Empty when nothing is left.
    """
    if _IN_EACH not in value.lower():  # no letter outside ASCII folds to one of these
        return value
    pairs = value.split(b";")
    kept = [pair for pair in pairs if not is_ours(pair.partition(b"=")[0])]
    return value if len(kept) == len(pairs) else b";".join(kept).strip(b" \t")


def set_by_app(value: bytes) -> bytes | None:
    """Return a Set-Cookie field of an app as it may reach a browser; None: not at all.

    Our names are dropped. A `Domain` would let the app reach its siblings and is taken off; the cookie stays.
    """
    folded = value.lower()
    if _IN_EACH in folded and is_ours(value.partition(b";")[0].partition(b"=")[0]):
        return None
    return _DOMAIN.sub(b"", value) if b"domain" in folded else value


def _folded(text: str) -> str:
    """Trim all that any program may count as blank or quote, and fold the case."""
    before = ""
    while text != before:
        before, text = text, text.strip().strip(_TRIMMED).strip('"')
    return text.casefold()
