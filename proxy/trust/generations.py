"""Generations of trust, and the succession from one to the next. Pure.

A generation is an authority and a master key. Its life has three moments. They follow from one stored value
(`issues_from`), so every proxy computes the same without further messages:

    made ── announced ──▶ issues_from ── issues ──▶ the successor's issues_from ── retiring ──▶ removed
         every workspace learns          certificates and      still trusted, while workspaces
         to trust it                     tokens are signed     get certificates of the successor

Every proxy and workspace trusts every stored generation, and signs with the newest whose `issues_from` has
passed. So a peer never meets a certificate that it does not trust yet, or no longer trusts.
"""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Self

from proxy.trust.authority import Authority, KeyPair
from proxy.trust.tokens import KEY_BYTES

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Lengths of the parts of a generation's life; see `settings.trust`."""

    announce: timedelta
    rotate_after: timedelta
    retire: timedelta
    authority_lifetime: timedelta
    back_date: timedelta


@dataclass(frozen=True, slots=True)
class Generation:
    """One authority and one master key."""

    number: int
    issues_from: datetime
    master: bytes
    authority: Authority | None
    """None where another system issues certificates."""

    @classmethod
    def create(
        cls, number: int, now: datetime, issues_from: datetime, schedule: Schedule, *, signs: bool
    ) -> Self:
        """Create a generation; `signs` selects whether it has an authority."""
        authority = None
        if signs:
            label = f"{number} of {now:%Y-%m-%d}"
            authority = Authority.create(label, now, schedule.authority_lifetime, schedule.back_date)
        return cls(number, issues_from, secrets.token_bytes(KEY_BYTES), authority)


@dataclass(frozen=True, slots=True)
class Generations:
    """The trusted generations, oldest first; never empty."""

    all: tuple[Generation, ...]

    def issuing(self, now: datetime) -> Generation:
        """Return the generation that signs now: the newest whose `issues_from` has passed."""
        return next((one for one in reversed(self.all) if one.issues_from <= now), self.all[0])

    @property
    def authorities(self) -> list[Authority]:
        """Return every trusted authority, oldest first."""
        return [one.authority for one in self.all if one.authority is not None]

    @property
    def is_rotating(self) -> bool:
        """Return whether a successor is announced or a predecessor is not yet removed."""
        return len(self.all) > 1

    def with_successor(
        self, now: datetime, announce: timedelta, schedule: Schedule, *, signs: bool
    ) -> "Generations":
        """Return these with one more generation, which takes over after `announce`."""
        number = self.all[-1].number + 1
        return Generations((*self.all, Generation.create(number, now, now + announce, schedule, signs=signs)))


def first(now: datetime, schedule: Schedule, *, signs: bool) -> Generations:
    """Create the first generation, which signs at once, because no older one is trusted."""
    return Generations((Generation.create(1, now, now, schedule, signs=signs),))


def advance(found: Generations, now: datetime, schedule: Schedule, *, signs: bool) -> Generations:
    """Remove retired generations and announce a successor, where due; else return the same object.

    A generation that cannot sign, because its authority expired or it never had one, gets a successor that
    signs at once: a wait would not help.
    """
    last = found.all[-1]
    kept = tuple(
        one
        for one, successor in zip(found.all, (*found.all[1:], None), strict=True)
        if successor is None or now < successor.issues_from + schedule.retire
    )
    advanced = found if len(kept) == len(found.all) else Generations(kept)
    if signs and not _can_sign(last, now):
        return advanced.with_successor(now, timedelta(), schedule, signs=signs)
    if now >= last.issues_from + schedule.rotate_after:
        return advanced.with_successor(now, schedule.announce, schedule, signs=signs)
    return advanced


def dump(generations: Generations) -> bytes:
    """Encode generations with their keys unencrypted; only Fairlead may read the result."""
    content = {"format": _FORMAT, "generations": [_dump(one) for one in generations.all]}
    return json.dumps(content, indent=1).encode()


def load(raw: bytes) -> Generations:
    """Decode generations of `dump`. Raises: ValueError, without any of the content."""
    try:
        content = json.loads(raw)
        return _ordered(content["format"], [_load(one) for one in content["generations"]])
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"what is kept of trust cannot be read ({type(exc).__name__})") from None


def _ordered(form: int, found: Sequence[Generation]) -> Generations:
    if form != _FORMAT or not found or any(one.number >= later.number for one, later in pairwise(found)):
        raise ValueError("of another release, without generations, or out of order")
    return Generations(tuple(found))


def _can_sign(generation: Generation, now: datetime) -> bool:
    authority = generation.authority
    return authority is not None and now < authority.expires_at


def _dump(one: Generation) -> dict[str, Any]:
    pair = one.authority.dump() if one.authority else None
    return {
        "number": one.number,
        "issues_from": one.issues_from.isoformat(),
        "master": base64.b64encode(one.master).decode(),
        "certificate": pair.certificate.decode() if pair else None,
        "key": pair.key.decode() if pair else None,
    }


def _load(raw: dict[str, Any]) -> Generation:
    master = base64.b64decode(raw["master"], validate=True)
    issues_from = datetime.fromisoformat(raw["issues_from"])
    if len(master) < KEY_BYTES or issues_from.tzinfo is None:
        raise ValueError("a master key is too short, or a moment has no time zone")
    authority = None
    if raw["certificate"] is not None:
        authority = Authority.load(KeyPair(raw["certificate"].encode(), raw["key"].encode()))
    return Generation(int(raw["number"]), issues_from, master, authority)
