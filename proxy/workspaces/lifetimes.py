"""Limits on idle time and lifetime of a workspace, from its blueprint in effect."""

from dataclasses import dataclass, replace
from enum import Enum

from proxy.errors.stores import UserNotFound
from proxy.identity.directory import Directory
from proxy.settings.workspace import WorkspaceSettings
from proxy.userstring import UserString
from proxy.workspaces.backend import WorkspaceRecord
from proxy.workspaces.ownership import title_to
from proxy.workspaces.provisioner import Workspaces


class Due(Enum):
    """The action that is due for a running workspace."""

    NOTHING = "nothing"
    WARN = "warn"
    """Warn of the end of its life."""
    STOP_IDLE = "stop, idle"
    STOP_OLD = "stop, old"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on idle time and lifetime in seconds; 0 for none."""

    idle_stop_s: float = 0
    lifetime_s: float = 0
    lifetime_warn_s: float = 0

    def due(self, idle_s: float, age_s: float) -> Due:
        """Return the action that is due `idle_s` seconds after activity and `age_s` after the start."""
        if self.lifetime_s and age_s >= self.lifetime_s:
            return Due.STOP_OLD
        if self.idle_stop_s and idle_s >= self.idle_stop_s:
            return Due.STOP_IDLE
        if self.lifetime_s and age_s >= self.lifetime_s - self.lifetime_warn_s:
            return Due.WARN
        return Due.NOTHING

    def next_due_s(self, idle_s: float, age_s: float) -> float | None:
        """Return the seconds until an action can be due; None for never."""
        moments = [self.idle_stop_s - idle_s] if self.idle_stop_s else []
        if self.lifetime_s:
            to_end_s = self.lifetime_s - age_s
            to_warning_s = to_end_s - self.lifetime_warn_s
            moments.append(to_warning_s if to_warning_s > 0 else to_end_s)
        return max(0.0, min(moments)) if moments else None


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
        own_idle_s, own_lifetime_s = blueprint.idle_stop_s, blueprint.lifetime_s
        return Bounds(
            self._settings.idle_stop_s if own_idle_s is None else own_idle_s,
            self._settings.lifetime_s if own_lifetime_s is None else own_lifetime_s,
            self._settings.lifetime_warn_s,
        )
