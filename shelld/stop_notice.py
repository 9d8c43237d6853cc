"""Texts and files for the stop of a workspace by itself."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

from shelld.log import Log

_log = Log("shelld.stop_notice")

STOPPED = "this workspace is being stopped"


def idle(limit_s: float) -> str:
    """Return the reason of a workspace that stops after `limit_s` seconds without activity."""
    return f"this workspace did nothing for {duration(limit_s)} and stops now; the next connection starts it"


def soon(idle_s: float, left_s: float) -> str:
    """Return the warning of a workspace that was idle for so long and stops in so long."""
    return (
        f"this workspace did nothing for {duration(_minutes(idle_s))} and stops in "
        f"{duration(_minutes(left_s))} unless it is used"
    )


def _minutes(seconds: float) -> float:
    """Round to whole minutes where there are some."""
    return seconds if seconds < 90 else round(seconds / 60) * 60


def duration(seconds: float) -> str:
    """Return a time in its largest whole unit: 8 hours, 90 minutes, 1 second."""
    for unit, length_s in (("hour", 3600), ("minute", 60)):
        if seconds >= length_s and seconds % length_s == 0:
            return _counted(int(seconds // length_s), unit)
    return _counted(round(seconds), "second")


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def note(path: str, *, by: str, reason: str) -> None:
    """Write the reason of shelld's stop, whole or not at all; a failed write does not delay the stop."""
    content = {"by": by, "at": datetime.now(UTC).isoformat(), "reason": reason}
    fresh = path + ".new"
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        os.replace(fresh, path)
    except OSError as error:
        _log.warning("end not noted", path=path, reason=error.strerror)
