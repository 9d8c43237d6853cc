"""Values about an account at a provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Profile:
    """An account, as its provider describes it to the user's own token."""

    provider: str
    """The name of the provider in the settings."""
    issuer: str
    """The issuer of the subjects; with `subject` the identity that a user record is bound to."""
    subject: str
    """Stable: never a name that can change and later belong to another account."""
    login: str
    """The account's present name at the provider."""
    name: str
    """User name by the configured mapping, lower-case."""
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
    """Fingerprints that the user confirmed on a page that showed them."""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class KeyList:
    """Keys that a provider lists for one account, without weak and signing-only ones."""

    blobs: frozenset[bytes] = field(repr=False)
    stale: bool = False
    """The provider did not answer; this is its last list."""
    age_s: float = 0.0
