"""Limits on the number of workspaces, checked before a workspace is created or started.

Several proxies that admit at the same moment may exceed a limit by one each; one proxy counts what it has
admitted and the backend does not show yet.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy.blueprints.audience import may_use
from proxy.errors.programs import Refused
from proxy.model import ALLOWED, Decision, User, WorkspaceName
from proxy.settings.blueprints import PersonRule
from proxy.workspaces.backend import Backend, WorkspacePhase, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.ownership import title_to

_RUNNING = frozenset({WorkspacePhase.STARTING, WorkspacePhase.RUNNING, WorkspacePhase.FAILED})
"""Phases that count as running. A stopping workspace does not, so that its user need not wait."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A limit on the number of workspaces; None for any number."""

    total: int | None = None
    """Existing, running or not."""
    running: int | None = None


@dataclass(frozen=True, slots=True)
class CountedWorkspace:
    """A workspace that counts, with its name for the user."""

    name: str
    blueprint: str
    running: bool


class Quotas:
    """The limits of users and of blueprints, over the workspaces of one backend."""

    def __init__(self, backend: Backend, rules: Sequence[PersonRule]) -> None:
        self._backend = backend
        self._rules = tuple(rules)
        self._admitted: dict[WorkspaceName, tuple[WorkspaceRequest, int]] = {}

    @asynccontextmanager
    async def admitted(self, request: WorkspaceRequest) -> AsyncIterator[None]:
        """Reserve a place for a workspace while it starts. A running one needs none.

        Without limits this costs nothing.

        Raises: Refused with a sentence.
        """
        own = ceiling_of(request.user, self._rules)
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
        # No await since the decision, so the next caller counts this one.
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
            return ALLOWED
        others = [
            (
                bool(title_to(record, request.user)),
                CountedWorkspace(record.name, record.blueprint, record.phase in _RUNNING),
            )
            for record in records
            if record.name != request.name and record.name not in self._admitted
        ]
        others += [
            (
                admitted.user.id == request.user.id,
                CountedWorkspace(name, admitted.blueprint.name, running=True),
            )
            for name, (admitted, _) in self._admitted.items()
        ]
        mine = [held for is_mine, held in others if is_mine]
        if not (decision := may_own(own, mine, exists=exists)):
            return decision
        blueprint = request.blueprint.name
        same = [held for _, held in others if held.blueprint == blueprint]
        return may_fill(blueprint, shared, same, exists=exists)


def ceiling_of(user: User, rules: Sequence[PersonRule]) -> Ceiling:
    """Return the limit of a user; each number is from the first rule that has it."""
    own = [rule for rule in rules if _holds(rule, user)]
    return Ceiling(
        total=next((rule.max_workspaces for rule in own if rule.max_workspaces is not None), None),
        running=next((rule.max_running for rule in own if rule.max_running is not None), None),
    )


def _holds(rule: PersonRule, user: User) -> bool:
    return bool(may_use(user, users=rule.users, groups=rule.groups))


def may_own(ceiling: Ceiling, held: Sequence[CountedWorkspace], *, exists: bool) -> Decision:
    """Decide whether a user may start one more workspace besides `held`; `exists`: it is not created."""
    if not exists and ceiling.total is not None and len(held) >= ceiling.total:
        return Decision(
            f"you may have {_count(ceiling.total)} and have {_listed(held)}; "
            "delete one, or ask an operator for more"
        )
    running = [one for one in held if one.running]
    if ceiling.running is not None and len(running) >= ceiling.running:
        return Decision(
            f"you may have {_count(ceiling.running)} running and have {_listed(running)}; "
            "stop one, or ask an operator for more"
        )
    return ALLOWED


def may_fill(blueprint: str, ceiling: Ceiling, held: Sequence[CountedWorkspace], *, exists: bool) -> Decision:
    """Decide whether a blueprint may have one more workspace besides `held`, those of all users."""
    if not exists and ceiling.total is not None and len(held) >= ceiling.total:
        return Decision(
            f"blueprint {blueprint} has room for {_count(ceiling.total)} of all users together, and those "
            "exist; try another blueprint, or ask an operator"
        )
    if ceiling.running is not None and sum(one.running for one in held) >= ceiling.running:
        return Decision(
            f"blueprint {blueprint} has room for {_count(ceiling.running)} running of all users together, "
            "and those run; try again when one has stopped, or ask an operator"
        )
    return ALLOWED


def _count(number: int) -> str:
    return "no workspace" if number == 0 else f"{number} workspace{'' if number == 1 else 's'}"


def _listed(held: Sequence[CountedWorkspace]) -> str:
    return ", ".join(f"{one.name} ({one.blueprint})" for one in held[:10]) or "none"
