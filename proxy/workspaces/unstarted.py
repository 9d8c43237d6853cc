"""Workspaces that do not start: after a time they are given up, since they take room and serve no user."""

from collections.abc import Sequence

from proxy.model import WorkspaceName
from proxy.settings.workspace import WorkspaceSettings
from proxy.workspaces.backend import WorkspacePhase, WorkspaceRecord


class Unstarted:
    """The workspaces that do not start, as one process has seen them."""

    def __init__(self, settings: WorkspaceSettings) -> None:
        failed_s = settings.failed_stop_s
        self._after_s = (
            {
                WorkspacePhase.FAILED: failed_s,
                WorkspacePhase.STARTING: failed_s + settings.start_timeout_s,
            }
            if failed_s
            else {}
        )
        self._since: dict[tuple[WorkspaceName, WorkspacePhase], float] = {}

    def due(self, records: Sequence[WorkspaceRecord], now: float) -> list[WorkspaceRecord]:
        """Return the workspaces that have been in their phase for too long; `now` is the loop's time, s.

        A container that runs is never among them: it may be too busy to answer. Another attempt to start
        changes the phase, so that it has all of its time.
        """
        stuck = [one for one in records if one.phase in self._after_s and one.started_at is None]
        self._since = {(one.name, one.phase): self._since.get((one.name, one.phase), now) for one in stuck}
        return [one for one in stuck if now - self._since[one.name, one.phase] >= self._after_s[one.phase]]
