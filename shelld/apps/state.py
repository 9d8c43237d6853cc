"""Phases and states of apps. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shelld.programs.program import Ended


class Phase(StrEnum):
    """Phases of an app. Names are those of `AppState.Phase`."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    READY = "READY"
    BACKOFF = "BACKOFF"
    FAILED = "FAILED"


SETTLED = frozenset({Phase.STOPPED, Phase.READY, Phase.FAILED})
"""Phases that an app does not leave within moments by itself."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of an app at one moment."""

    slug: str
    phase: Phase
    reason: str
    """A sentence for the user; empty where the phase says everything."""
    ended: Ended | None
    """The end of the last process; None while none has ended."""
    restarts: int
    since_s: float
    """Seconds in this phase."""
    port: int
    socket: str
    pid: int
    lines: tuple[str, ...]
    """The last lines of the log."""
    digest: str
    stopped: bool
    """Whether a user stopped it."""
