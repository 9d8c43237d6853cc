"""Cookies of Fairlead's pages, read as bytes: names, the `Cookie` field, and imitated names. Pure.

A browser compares names as bytes and trims SP and HTAB only. `U+2000 __Host-Http-x` is therefore no
`__Host-Http-` name to it, and any sibling host may set such a cookie. A server that trims or folds more than
the browser mistakes that cookie for its own.

Sources: RFC 6265 §4.2.1 and §5.2; RFC 6265bis (draft 22) §4.1.3, name prefixes.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

HOST_ONLY_PREFIX = "__Host-Http-"
"""A browser accepts such a name only by `Set-Cookie` of this very host over https, never from a script or
from a sibling host. A browser that does not know it treats it as `__Host-`, with which it begins.
"""

_VALUE = re.compile(rb"[A-Za-z0-9_-]{20,100}")
_UNSEEN = bytes(code for code in range(128) if code <= 0x20 or code == 0x7F)
_SLOT = rb"(?:-[a-z0-9]+)*"


class CookieNames:
    """The names of one site's cookies: `stem`, or `stem-slot` where there are several."""

    def __init__(self, purpose: str, *, is_secure: bool) -> None:
        """Name cookies after `purpose`, lower-case ASCII; `is_secure` states that browsers use https.

        Over plain http names have no prefix: it needs `Secure`, and WebKit drops `Secure` cookies there.
        """
        self._stem = f"{HOST_ONLY_PREFIX if is_secure else ''}fairlead-{purpose}"
        self._ours = _pattern(self._stem.encode())
        self._folded = _pattern(self._stem.casefold().encode())
        self._as_sent = re.compile(rb"[ \t]*" + self._ours.pattern + rb"[ \t]*")

    def name(self, slot: str = "") -> str:
        """Return the name of the cookie for `slot`, lower-case ASCII letters and digits joined by `-`."""
        return f"{self._stem}-{slot}" if slot else self._stem

    def value(self, fields: Iterable[bytes], slot: str = "") -> str:
        """Return the value of one of these cookies from the `Cookie` fields of a request.

        Empty when there is none, when there are two, as after a sibling host has set one for the parent
        domain, or when the value has a form that Fairlead never issues.
        """
        wanted = self.name(slot).encode()
        found = [value for name, value in parse(fields) if name == wanted]
        return found[0].decode() if len(found) == 1 and _VALUE.fullmatch(found[0]) else ""

    def own(self, fields: Iterable[bytes]) -> list[tuple[str, str]]:
        """Return the cookies with these names, unchanged, and no other site's."""
        return [
            (name.decode(), value.decode())
            for name, value in parse(fields)
            if self._ours.fullmatch(name) and _VALUE.fullmatch(value)
        ]

    def slots(self, fields: Iterable[bytes]) -> list[str]:
        """Return the slots of the cookies with these names, in their order."""
        names = [name.decode() for name, _ in parse(fields) if self._ours.fullmatch(name)]
        return [name.removeprefix(self._stem).removeprefix("-") for name in names]

    def imitation(self, fields: Iterable[bytes]) -> bytes | None:
        """Return the first name that equals one of these only after case or Unicode are folded.

        None without any.
        """
        return next((name for name, _ in _pairs(fields) if self._imitates(name)), None)

    def _imitates(self, name: bytes) -> bool:
        """Return whether a name, exactly as sent, imitates one of these.

        Independent of mistakes in `parse`.
        """
        if len(name) < len(self._stem) // 2 or self._as_sent.fullmatch(name):
            return False  # no byte of a name expands to more than two letters
        return any(self._folded.fullmatch(spelling) for spelling in _foldings(name))


def parse(fields: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and value of every cookie of `Cookie` fields; a cookie without `=` has an empty name."""
    for name, value in _pairs(fields):
        yield trim(name), trim(value)


def trim(text: bytes) -> bytes:
    """Remove SP and HTAB from both ends, as browsers do, and nothing else (RFC 6265 §5.2)."""
    return text.strip(b" \t")


def _pairs(fields: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for field in fields:
        for pair in field.split(b";"):
            name, equals, value = pair.partition(b"=")
            yield (name, value) if equals else (b"", name)


def _pattern(stem: bytes) -> re.Pattern[bytes]:
    return re.compile(re.escape(stem) + _SLOT)


def _foldings(name: bytes) -> Iterator[bytes]:
    """Yield the texts for which a careless reader may mistake `name`, as UTF-8 and as Latin-1.

    Case, width and accents are folded; blanks, control characters and then all non-ASCII are removed.
    """
    for encoding in ("ascii",) if name.isascii() else ("utf-8", "latin-1"):
        text = unicodedata.normalize("NFKD", name.decode(encoding, "ignore")).casefold()
        yield text.encode("ascii", "ignore").translate(None, _UNSEEN)
