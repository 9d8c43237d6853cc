"""The origin that a browser left for signing in, and returns to. Pure.

Every part travels through the browser and none is believed: the label is looked up anew, the path is one of
that origin, and the code that goes back is good only with the cookie whose digest is `pre`.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from proxy.web.origins import parse_label

MAX_PATH = 1_500
"""Characters of a path that survives the way through a provider; a longer one becomes `/`."""

COMPLETED = "This sign-in was completed already, or it took too long. Open the address of the app again."
"""For a code that is not good any more, of a provider or of ours."""

_PATH = re.compile(r"/[!-~]*")
_SLOT = re.compile(r"[0-9a-f]{8}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{1,12}\.[0-9]{3}")


def new_slot() -> str:
    """Make the name of one way through the login, for the names of cookies."""
    return secrets.token_hex(4)


def is_slot(text: str) -> bool:
    """Tell whether a text is the name of a way."""
    return _SLOT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Return:
    """An app's origin, by its label, and the page that the browser left there."""

    label: str
    path: str
    """With its query; begins with a slash."""
    slot: str
    """Of the cookie."""
    pre: str
    """Digest of the cookie's value."""
    left_at: str
    """Seconds since 1970."""

    def query(self) -> dict[str, str]:
        """Return the parameters of an address."""
        return asdict(self)

    @classmethod
    def read(cls, given: Mapping[str, str]) -> "Return | None":
        """Read parameters; None where one is missing or malformed."""
        label, path = given.get("label", ""), given.get("path", "")
        slot, pre, left_at = given.get("slot", ""), given.get("pre", ""), given.get("left_at", "")
        fits = (
            parse_label(label) is not None
            and len(path) <= MAX_PATH
            and _PATH.fullmatch(path)
            and is_slot(slot)
            and _DIGEST.fullmatch(pre)
            and _TIME.fullmatch(left_at)
        )
        return cls(label, path, slot, pre, left_at) if fits else None
