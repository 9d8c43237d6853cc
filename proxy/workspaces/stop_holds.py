"""Stop holds: a stop on request is not undone by clients that reconnect by themselves."""

import math
from datetime import UTC, datetime, timedelta

from proxy.errors.programs import WorkspaceHeld
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.userstring import UserString, format_user_string
from proxy.workspaces.backend import Stop, WorkspaceRequest


def check_may_start(request: WorkspaceRequest) -> None:
    """Allow a start unless the request is for a workspace that runs already.

    Every backend calls this before it begins or joins a start. Raises: WorkspaceNotFound.
    """
    if not request.may_start:
        raise WorkspaceNotFound(f"workspace {request.name} does not run")


def check_hold(stop: Stop | None, request: WorkspaceRequest) -> None:
    """Allow a start unless the workspace was stopped on request within `request.hold_s`.

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
"""Values of `Stop.by` for automatic stops, which the next connection undoes."""


def held_for(stopped_by: str, stopped_at: datetime, now: datetime, hold_s: float) -> timedelta:
    """Return the time for which a connection still does not undo a stop; zero for none."""
    if stopped_by in NOT_ASKED_FOR:
        return timedelta()
    return max(timedelta(), stopped_at + timedelta(seconds=hold_s) - now)


def who_stopped(stop: Stop, user: str) -> str:
    """Describe for the owner of a workspace by whom it was stopped, and why."""
    if stop.by == user:
        return "you"
    who = {"idle": "Fairlead", "lifetime": "Fairlead", "failed": "Fairlead"}.get(stop.by, "an operator")
    return f"{who} ({stop.reason})" if stop.reason else who


def start_command(value: UserString) -> str:
    """Describe the command that starts a workspace; only the user knows the name of the host."""
    return f"ssh -s {format_user_string(value)}@HOST workspace-start"


USUAL_WARN_S = 300
"""The default of `workspace.idle_warn_s`, and of shelld."""


def warn_before_s(idle_warn_s: float, idle_stop_s: float) -> float:
    """Return the seconds from the warning of its users to the stop of an idle workspace; 0: no warning."""
    return min(idle_warn_s, idle_stop_s / 2)


def ago(passed: timedelta) -> str:
    """Describe a past time for users."""
    return f"{duration(passed)} ago" if passed >= timedelta(seconds=1) else "just now"


def duration(span: timedelta) -> str:
    """Describe a duration in its largest unit, rounded up, so that it is certainly over by then."""
    seconds = span.total_seconds()
    for unit, length_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds > length_s:
            return f"{math.ceil(seconds / length_s)} {unit}s"
    count = max(1, math.ceil(seconds))
    return f"{count} second{'' if count == 1 else 's'}"
