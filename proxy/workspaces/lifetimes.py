"""Limits on idle time and lifetime of a workspace, from its blueprint in effect."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from proxy.blueprints.schema import Blueprint
from proxy.errors.stores import UserNotFound
from proxy.identity.directory import Directory
from proxy.settings.workspace import WorkspaceSettings
from proxy.userstring import UserString
from proxy.workspaces.backend import WorkspaceRecord
from proxy.workspaces.ownership import title_to
from proxy.workspaces.provisioner import Workspaces
from proxy.workspaces.stop_holds import warn_before_s


class Due(Enum):
    """The action that is due for a running workspace."""

    NOTHING = "nothing"
    WARN = "warn"
    """Warn of the end of its life."""
    WARN_IDLE = "warn, idle"
    """Warn of the stop of an idle workspace."""
    STOP_IDLE = "stop, idle"
    STOP_OLD = "stop, old"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on idle time and lifetime in seconds; 0 for none."""

    idle_stop_s: float = 0
    lifetime_s: float = 0
    lifetime_warn_s: float = 0
    idle_warn_s: float = 0
    """How long before a stop for idleness users are warned."""
    stops_itself: bool = False
    """The workspace stops by itself when it is idle."""

    def due(self, idle_s: float, age_s: float) -> Due:
        """Return the action that is due `idle_s` seconds after activity and `age_s` after the start."""
        if self.lifetime_s and age_s >= self.lifetime_s:
            return Due.STOP_OLD
        if self.idle_stop_s and idle_s >= self.idle_stop_s:
            return Due.NOTHING if self.stops_itself else Due.STOP_IDLE
        if self.lifetime_s and age_s >= self.lifetime_s - self.lifetime_warn_s:
            return Due.WARN
        if self.idle_warn_s and self.idle_stop_s and idle_s >= self.idle_stop_s - self.idle_warn_s:
            return Due.WARN_IDLE
        return Due.NOTHING

    def next_due_s(self, idle_s: float, age_s: float) -> float | None:
        """Return the seconds until an action can be due; None for never."""
        moments = []
        if self.idle_stop_s:
            to_stop_s = self.idle_stop_s - idle_s
            moments.append(to_stop_s - self.idle_warn_s if to_stop_s > self.idle_warn_s else to_stop_s)
        if self.lifetime_s:
            to_end_s = self.lifetime_s - age_s
            to_warning_s = to_end_s - self.lifetime_warn_s
            moments.append(to_warning_s if to_warning_s > 0 else to_end_s)
        return max(0.0, min(moments)) if moments else None


def stops_when_idle_at(record: WorkspaceRecord, bounds: Bounds) -> datetime | None:
    """Return when a workspace stops unless it is used before; None where it does not, or does not tell.

    For pages and commands that show it; `record` is one of `reported`. Pure.
    """
    if record.active_at is None or not bounds.idle_stop_s:
        return None
    return record.active_at + timedelta(seconds=bounds.idle_stop_s)


class BlueprintLifetimes:
    """The limits of the blueprint that the owner's next login would get."""

    def __init__(self, workspaces: Workspaces, directory: Directory, settings: WorkspaceSettings) -> None:
        """Create it; `settings` have the limits for blueprints without their own."""
        self._workspaces = workspaces
        self._directory = directory
        self._settings = settings

    async def __call__(self, record: WorkspaceRecord) -> Bounds:
        """Return the limits of a workspace. Raises: FairleadError when blueprint or user no longer exist."""
        user = await self._directory.find(record.user)
        if user is None or not title_to(record, user):
            raise UserNotFound(f"the user {record.user} of workspace {record.name} is no user any more")
        # Limits grant nothing, so old groups suffice: a workspace of a long absent user is to be stopped,
        # too.
        user = replace(user, groups=user.restricting_groups)
        asked = UserString(user.name, pod=record.name)
        blueprint = (await self._workspaces.request(user, asked)).blueprint
        return bounds_of(blueprint, self._settings)


def bounds_of(blueprint: Blueprint, settings: WorkspaceSettings) -> Bounds:
    """Return the limits of workspaces of a blueprint. Pure."""
    idle_s = settings.idle_stop_s if blueprint.idle_stop_s is None else blueprint.idle_stop_s
    return Bounds(
        idle_s,
        settings.lifetime_s if blueprint.lifetime_s is None else blueprint.lifetime_s,
        settings.lifetime_warn_s,
        warn_before_s(settings.idle_warn_s, idle_s),
    )
