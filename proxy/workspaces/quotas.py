"""How many workspaces there may be: checked before anything is made or started.

Several proxies that admit at the same moment may exceed a ceiling by one each; one proxy counts what it
has admitted and the backend does not show yet.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from proxy.access import policy
from proxy.access.policy import Ceiling, Decision, Held
from proxy.errors.programs import Refused
from proxy.model import WorkspaceName
from proxy.settings.blueprints import PersonRule
from proxy.workspaces.backend import Backend, WorkspacePhase, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.ownership import title_to

_RUNNING = frozenset({WorkspacePhase.STARTING, WorkspacePhase.RUNNING, WorkspacePhase.FAILED})
"""What takes up room; one that is stopping gives its room up, and its person should not have to wait."""


class Quotas:
    """The ceilings of users and of blueprints, over the workspaces of one backend."""

    def __init__(self, backend: Backend, rules: Sequence[PersonRule]) -> None:
        self._backend = backend
        self._rules = tuple(rules)
        self._admitted: dict[WorkspaceName, tuple[WorkspaceRequest, int]] = {}

    @asynccontextmanager
    async def admitted(self, request: WorkspaceRequest) -> AsyncIterator[None]:
        """Hold a place for a workspace while it is brought up. A running one needs none, and costs nothing
        where there are no ceilings.

        Raises: Refused with a sentence.
        """
        own = policy.ceiling_of(request.user, self._rules)
        quota = request.blueprint.quota
        shared = Ceiling(quota.total, quota.running)
        if (own, shared) == (Ceiling(), Ceiling()):
            yield
            return
        record = await self._backend.find(request.name)
        if record is None or record.phase not in _RUNNING:
            records = await self._backend.list()
            if not (decision := self._decide(request, records, own, shared, exists=record is not None)):
                raise Refused(decision.reason)
        # No await since the decision: whoever comes next sees this one.
        _, times = self._admitted.get(request.name, (request, 0))
        self._admitted[request.name] = (request, times + 1)
        try:
            yield
        finally:
            _, times = self._admitted.pop(request.name)
            if times > 1:
                self._admitted[request.name] = (request, times - 1)

    def _decide(
        self,
        request: WorkspaceRequest,
        records: Sequence[WorkspaceRecord],
        own: Ceiling,
        shared: Ceiling,
        *,
        exists: bool,
    ) -> Decision:
        if request.name in self._admitted:
            return policy.ALLOWED
        others = [
            (
                bool(title_to(record, request.user)),
                Held(record.name, record.blueprint, record.phase in _RUNNING),
            )
            for record in records
            if record.name != request.name and record.name not in self._admitted
        ]
        others += [
            (admitted.user.id == request.user.id, Held(name, admitted.blueprint.name, running=True))
            for name, (admitted, _) in self._admitted.items()
        ]
        mine = [held for is_mine, held in others if is_mine]
        if not (decision := policy.may_own(own, mine, exists=exists)):
            return decision
        blueprint = request.blueprint.name
        same = [held for _, held in others if held.blueprint == blueprint]
        return policy.may_fill(blueprint, shared, same, exists=exists)
