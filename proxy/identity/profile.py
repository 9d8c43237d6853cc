"""Values about an account at a provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Profile:
    """An account as its provider describes it to the person's own token."""

    provider: str
    """Our name of the provider, from settings."""
    issuer: str
    """Whose subjects these are; with `subject` the identity that a user record is bound to."""
    subject: str
    """Stable: never a name that the person can change and somebody else can take."""
    login: str
    """What the provider calls the account at the moment."""
    name: str
    """User name by our mapping, lower-case."""
    full_name: str = ""
    email: str = ""
    """Verified by the provider, or empty."""
    groups: tuple[str, ...] = ()
    uid: int | None = None
    active: bool = True
    """False for an account that the provider blocked."""
    keys: tuple[str, ...] | None = None
    """Public key lines in the claims; None when the mapping names none."""
    confirmed: frozenset[str] = frozenset()
    """Fingerprints that the person confirmed on a page that showed them."""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class KeyList:
    """Keys that a provider lists for one account, weak and signing-only ones left out."""

    blobs: frozenset[bytes] = field(repr=False)
    stale: bool = False
    """The provider could not be asked; this is what it said last."""
    age_s: float = 0.0
