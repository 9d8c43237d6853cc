"""Browser sessions on Fairlead's pages: issued values, their subjects, and their end.

A value that Fairlead did not issue has no subject and is never adopted. A sign-in issues a new value and ends
the former one. So a value that another party planted, read or had issued to itself is worth nothing after the
sign-in (session fixation). Only digests of values are kept.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.http.clock import REAL, Clock

_T = TypeVar("_T")

LIFE_S = 3_600
"""Seconds from the issue of a value to its end; also the Max-Age of its cookie."""


@dataclass(frozen=True, slots=True)
class _Session(Generic[_T]):
    about: _T
    expires_at: float


class Sessions(Generic[_T]):
    """Issued values of one process, at most `limit`; beyond that the oldest ends first."""

    def __init__(self, limit: int, *, life_s: float = LIFE_S, clock: Clock = REAL) -> None:
        self._limit = limit
        self._life_s = life_s
        self._clock = clock
        self._sessions: OrderedDict[str, _Session[_T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, about: _T) -> str:
        """Issue a value for the subject `about`."""
        value = new_value()
        self._sessions[digest(value)] = _Session(about, self._clock.now() + self._life_s)
        while len(self._sessions) > self._limit:
            self._sessions.popitem(last=False)
        return value

    def __contains__(self, value: str) -> bool:
        """Return whether a value was issued here and has not ended."""
        return self._session(value) is not None

    def find(self, value: str) -> _T | None:
        """Return the subject of an issued value; None for any other value, and after its end."""
        found = self._session(value)
        return None if found is None else found.about

    def _session(self, value: str) -> _Session[_T] | None:
        found = self._sessions.get(digest(value))
        return found if found is not None and found.expires_at > self._clock.now() else None

    def renew(self, value: str, about: _T) -> str:
        """Issue the value of a browser that has signed in, and end its former value."""
        self.end(value)
        return self.begin(about)

    def end(self, value: str) -> None:
        """End the session of a value; do nothing without one."""
        self._sessions.pop(digest(value), None)

    def end_where(self, is_over: Callable[[_T], bool]) -> None:
        """End every session whose subject fulfils a condition."""
        for key in [key for key, session in self._sessions.items() if is_over(session.about)]:
            del self._sessions[key]


def new_value() -> str:
    """Return a value of 256 random bits, in characters allowed in cookies and URLs."""
    return secrets.token_urlsafe(32)


def digest(value: str) -> str:
    """Return the stored form of a value: it identifies the value, and cannot be turned back into it."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def is_of(value: str, kept: str) -> bool:
    """Return whether `kept` is the digest of a value, in time that depends on neither."""
    return hmac.compare_digest(digest(value), kept)
