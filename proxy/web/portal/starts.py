"""The starts of workspaces that users asked for on a page, carried on after the page was answered.

A start has the backend's own deadline. Its progress and its failure are remembered by the process that
carries it; pages of other replicas show the phase that the backend gives.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import structlog

from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.programs import Refused
from proxy.model import Progress, Visit
from proxy.userstring import format_user_string

_log = structlog.get_logger("portal")

_MOST_FAILURES = 1_000


class Controlled(Protocol):
    """The controls of workspaces behind the policy; `access.gateway` has them."""

    async def control(self, visit: Visit, what: str, report: Callable[[Progress], None]) -> str:
        """Run one of policy.CONTROLS. Raises: Refused, BlueprintError, WorkspaceError."""


class Starts:
    """The starts of one process, at most `at_once`."""

    def __init__(self, controlled: Controlled, at_once: int, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a start ends."""
        self._controlled = controlled
        self._at_once = at_once
        self._changed = changed
        self._progress: dict[str, str] = {}
        self._failures: OrderedDict[str, str] = OrderedDict()
        self._tasks = TaskOwner("portal-starts")

    async def close(self) -> None:
        """Report no more; the workspaces go on starting by themselves."""
        await self._tasks.close()

    def begin(self, visit: Visit) -> None:
        """Start a workspace, unless it is being started here. Raises: Refused when too many are."""
        key = _key(visit)
        if key in self._progress:
            return
        if len(self._progress) >= self._at_once:
            raise Refused("too many workspaces are being started at the moment; try again soon")
        self._progress[key] = "asked to start"
        self._failures.pop(key, None)
        self._tasks.spawn(self._carry(visit, key), name=key)

    def progress_of(self, owner: str, address: str) -> str:
        """Return the last progress of a start here, of a user's id and a user string; empty for none."""
        return self._progress.get(f"{owner} {address}", "")

    def failure_of(self, owner: str, address: str) -> str:
        """Return the sentence by which the last start here failed; empty for none."""
        return self._failures.get(f"{owner} {address}", "")

    async def _carry(self, visit: Visit, key: str) -> None:
        def report(progress: Progress) -> None:
            self._progress[key] = progress.text

        try:
            await self._controlled.control(visit, "workspace-start", report)
        except FairleadError as exc:
            _log.info("start failed", user=visit.actor.name, code=exc.code, reason=str(exc))
            self._failures[key] = exc.user_message
            if len(self._failures) > _MOST_FAILURES:
                self._failures.popitem(last=False)
        finally:
            del self._progress[key]
            self._changed()


def _key(visit: Visit) -> str:
    return f"{visit.owner.id} {format_user_string(visit.address)}"
