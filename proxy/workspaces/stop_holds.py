"""A stop that somebody asked for is not undone by whatever reconnects by itself."""

import math
from datetime import UTC, datetime, timedelta

from proxy.errors.programs import WorkspaceHeld
from proxy.userstring import UserString, format_user_string
from proxy.workspaces.backend import Stop, WorkspaceRequest


def check_hold(stop: Stop | None, request: WorkspaceRequest) -> None:
    """Let a start through, unless the workspace was stopped on request within `request.hold_s`.

    Every backend calls this before it begins or joins a start. Raises: WorkspaceHeld.
    """
    if stop is None:
        return
    now = datetime.now(UTC)
    left = held_for(stop.by, stop.at, now, request.hold_s)
    if left:
        who = who_stopped(stop, request.user.name)
        raise WorkspaceHeld(
            f"workspace {request.name} was stopped by {who} {ago(now - stop.at)} and stays stopped for "
            f"{duration(left)}; to start it now: {start_command(request.origin)}"
        )


NOT_ASKED_FOR = frozenset({"idle", "lifetime", "init", "failed"})
"""Who stops workspaces without anybody having asked: the next connection starts them again."""


def held_for(stopped_by: str, stopped_at: datetime, now: datetime, hold_s: float) -> timedelta:
    """Give how much longer a stop is not undone by a connection; zero for not at all."""
    if stopped_by in NOT_ASKED_FOR:
        return timedelta()
    return max(timedelta(), stopped_at + timedelta(seconds=hold_s) - now)


def who_stopped(stop: Stop, user: str) -> str:
    """Name whoever stopped a workspace to its owner, and why, when that was said."""
    if stop.by == user:
        return "you"
    who = {"idle": "Fairlead", "lifetime": "Fairlead", "failed": "Fairlead"}.get(stop.by, "an operator")
    return f"{who} ({stop.reason})" if stop.reason else who


def start_command(value: UserString) -> str:
    """Say what starts a workspace; which name the host has for its user, only its user knows."""
    return f"ssh -s {format_user_string(value)}@HOST workspace-start"


def ago(passed: timedelta) -> str:
    return f"{duration(passed)} ago" if passed >= timedelta(seconds=1) else "just now"


def duration(span: timedelta) -> str:
    """Say a time as people do, in its largest unit, rounded up: it is over by then."""
    seconds = span.total_seconds()
    for unit, length_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds > length_s:
            return f"{math.ceil(seconds / length_s)} {unit}s"
    count = max(1, math.ceil(seconds))
    return f"{count} second{'' if count == 1 else 's'}"
