"""Workspaces that are injected into workloads: `workload=kind/name+ns=…`.

Users who may are listed in `kubernetes.inject`; none by default. An injection that does not start is removed,
so that a failure here leaves the workload as it was.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog

from proxy.errors.programs import Refused
from proxy.errors.workspaces import ClusterConflict, ClusterError, WorkspaceNotFound, WorkspaceUnstartable
from proxy.model import Endpoint, Phase, User, WorkspaceName
from proxy.settings.kubernetes import InjectRule, KubernetesSettings
from proxy.trust.authority import server_name
from proxy.workspaces.backend import Report, WorkspacePhase, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.kubernetes import inject, labels, manifest
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.diagnosis import Situation, judge
from proxy.workspaces.kubernetes.endpoints import answers, endpoint_of, is_container_running
from proxy.workspaces.kubernetes.manifest import config_of
from proxy.workspaces.kubernetes.objects import (
    CONFIG_MAP,
    POD,
    SECRET,
    Object,
    annotations_of,
    is_going,
    labels_of,
    listed,
    made_at,
    moment,
    name_of,
    namespace_of,
    uid_of,
)
from proxy.workspaces.kubernetes.patience import Patience
from proxy.workspaces.kubernetes.rollout import Rollout, watching
from proxy.workspaces.kubernetes.startup import Trust, decoded, refused
from proxy.workspaces.kubernetes.trial import try_injection
from proxy.workspaces.ownership import check_title
from proxy.workspaces.pending_starts import PendingStart, PendingStarts
from proxy.workspaces.stop_holds import check_may_start

_POLL_S = 0.3
_PRESENT: Object = {"metadata": {"name": ""}, "spec": {}}
_OURS = (inject.CONTAINER, manifest.INIT_CONTAINER)
"""Containers that an injection adds."""

_log = structlog.get_logger("kubernetes")


class Workloads:
    """The workloads that may be entered."""

    def __init__(self, api: Api, settings: KubernetesSettings, trust: Trust) -> None:
        self._api = api
        self._settings = settings
        self._trust = trust
        self._starts = PendingStarts(settings.inject_timeout_s)

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Inject the workspace where it is not, and wait until shelld answers in one of the pods.

        Raises: Refused, WorkspaceNotFound, WorkspaceStartFailed, ReadyTimeout.
        """
        rule = self.rule_for(request)
        # Pods of a workspace that was taken away a moment ago may answer still.
        if await self._is_entered(request) and (endpoint := await self._answering(request)):
            return endpoint
        check_may_start(request)
        return await self._starts.join(request, report, lambda start: self._bring(start, request, rule))

    def rule_for(self, request: WorkspaceRequest) -> InjectRule:
        """Find the rule that lets a user into workloads of a namespace. Raises: Refused, without details."""
        return _rule_for(request.user, request.origin.ns, self._settings.inject)

    async def find(self, name: str) -> WorkspaceRecord | None:
        """Find an injected workspace by name. Raises: ClusterError."""
        found = await self.find_workload(name)
        return None if found is None else _record(found)

    async def all(self) -> Sequence[WorkspaceRecord]:
        """Give every injected workspace. Raises: ClusterError."""
        return [_record(one) for one in await self._select(labels.WORKSPACE) if _is_injected(one)]

    async def find_workload(self, name: str) -> Object | None:
        """Find the workload that a workspace was injected into. Raises: ClusterError."""
        found = [one for one in await self._select(f"{labels.WORKSPACE}={name}") if _is_injected(one)]
        return found[0] if found else None

    async def place(self, name: str) -> tuple[str, str, str] | None:
        """Give namespace, pod and container of a workspace; None for one that is not injected.

        Raises: ClusterError.
        """
        if (workload := await self.find_workload(name)) is None:
            return None
        namespace = namespace_of(workload)
        pods = await self._pods(namespace, name)
        return namespace, name_of(pods[-1]) if pods else "", inject.CONTAINER

    async def remove(self, name: str, workload: Object) -> None:
        """Take an injected workspace away, exactly. Raises: ClusterError."""
        await self._api.apply(inject.removal(workload), manager=inject.manager_of(name), force=False)
        namespace = namespace_of(workload)
        await asyncio.gather(*(self._api.delete(kind, namespace, name) for kind in (CONFIG_MAP, SECRET)))
        _log.info("workspace removed", workspace=name, workload=_called(workload), namespace=namespace)

    async def close(self) -> None:
        """Cancel the starts of this process."""
        await self._starts.close()

    # ----------------------------------------------------------------------------------- helpers

    async def _select(self, selector: str) -> Sequence[Object]:
        queries = [
            Query(kind, rule.namespace, selector)
            for rule in self._settings.inject
            for kind in inject.KINDS.values()
        ]
        listings = await asyncio.gather(*(self._api.list(query) for query in queries))
        # Items of a list do not say what they are.
        return [
            {"kind": query.kind.name, "apiVersion": query.kind.api, **item}
            for query, listing in zip(queries, listings, strict=True)
            for item in listing.items
        ]

    async def _pods(self, namespace: str, name: str) -> Sequence[Object]:
        found = await self._api.list(Query(POD, namespace, f"{labels.WORKSPACE}={name}"))
        return sorted((pod for pod in found.items if not is_going(pod)), key=made_at)

    async def _is_entered(self, request: WorkspaceRequest) -> bool:
        """Return whether the workload has this workspace, which is then this user's.

        Raises: WorkspaceNotFound, OwnerUnknown.
        """
        workload = await self._workload(request)
        if labels_of(workload).get(labels.WORKSPACE) != request.name:
            return False
        check_title(_record(workload), request.name, request.user)
        return True

    async def _answering(self, request: WorkspaceRequest) -> Endpoint | None:
        for pod in await self._pods(request.origin.ns, request.name):
            if is_container_running(pod, inject.CONTAINER) and await answers(pod):
                return self._endpoint(request, pod)
        return None

    def _endpoint(self, request: WorkspaceRequest, pod: Object) -> Endpoint:
        return endpoint_of(request.name, request.user.name, request.origin.ns, pod, inject.CONTAINER)

    async def _bring(self, start: PendingStart, request: WorkspaceRequest, rule: InjectRule) -> Endpoint:
        start.tell(Phase.PREPARING, f"preparing workspace {request.name}")
        workload = await self._workload(request)
        await self._try_first(request, workload, rule)
        async with watching(self._api, self._settings, workload) as rollout:
            try:
                await self._inject(request, workload, rule)
                return await self._watch(start, request, rollout, workload)
            except ClusterError as exc:
                await self._undo(request, workload)
                raise refused(request.name, request.origin.ns, exc) from exc
            except BaseException:  # also the deadline: half of a workspace must not stay in a workload
                await self._undo(request, workload)
                raise

    async def _try_first(self, request: WorkspaceRequest, workload: Object, rule: InjectRule) -> None:
        """Try the injection in a dry run, before anything is changed.

        Raises: WorkspaceStartFailed, with the reason.
        """
        if _is_injected(workload):  # by an earlier start, or by another replica a moment ago
            return
        body = inject.injection(request, workload, self._settings, rule)
        manager = inject.manager_of(request.name)
        try:
            pods = await self._own_pods(workload)
            await try_injection(self._api, workload, body, manager=manager, pods=pods)
        except ClusterConflict as exc:
            raise _taken(workload) from exc
        except ClusterError as exc:
            failure = refused(request.name, request.origin.ns, exc)
            raise type(failure)(
                f"{_called(workload)} left as it is: {failure}",
                user_message=f"{_called(workload)} was left as it is: {failure.user_message}",
            ) from exc

    async def _own_pods(self, workload: Object) -> Sequence[Object]:
        """Return the pods of a workload, injected or not. Raises: ClusterError."""
        chosen = workload["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in chosen.items())
        return (await self._api.list(Query(POD, namespace_of(workload), selector))).items if selector else ()

    async def _workload(self, request: WorkspaceRequest) -> Object:
        kind, _, name = request.origin.workload.partition("/")
        try:
            found = await self._api.find(inject.KINDS[kind], request.origin.ns, name)
        except ClusterError as exc:
            raise refused(request.name, request.origin.ns, exc) from exc
        if found is None:
            raise WorkspaceNotFound(f"there is no {kind} {name!r} in namespace {request.origin.ns}")
        if labels_of(found).get(labels.WORKSPACE) not in {None, request.name}:
            raise _taken(found)
        return found

    async def _inject(self, request: WorkspaceRequest, workload: Object, rule: InjectRule) -> None:
        namespace = request.origin.ns
        present = decoded(await self._api.find(SECRET, namespace, request.name))
        files = self._trust.workspace_files(request.name, server_name(request.name, namespace), present)
        config = config_of(request, inject.home_of(request), mounted=True)
        for part in inject.parts(request, config, files):
            await self._api.apply(part)
        body = inject.injection(request, workload, self._settings, rule)
        try:
            await self._api.apply(body, manager=inject.manager_of(request.name), force=False)
        except ClusterConflict as exc:
            raise _taken(workload) from exc

    async def _watch(
        self, start: PendingStart, request: WorkspaceRequest, rollout: Rollout, workload: Object
    ) -> Endpoint:
        what = _called(workload)
        patience = Patience(self._settings.patience_s)
        while True:
            pods = await self._pods(request.origin.ns, request.name)
            for pod in pods:
                if is_container_running(pod, inject.CONTAINER) and await answers(pod):
                    return self._endpoint(request, pod)
            diagnoses = rollout.refusals() + [
                judge(Situation(_PRESENT, _ours(pod), events=rollout.about(pod, _OURS))) for pod in pods
            ]
            if failed := patience.exhausted(diagnoses):
                raise _put_back(request, workload, failed.sentence, failed.detail)
            if not pods:
                start.tell(Phase.STARTING, f"waiting until {what} replaces its pods")
            for diagnosis in diagnoses:
                start.tell(Phase.STARTING, f"in {what}: {diagnosis.sentence}")
            await asyncio.sleep(_POLL_S)

    async def _undo(self, request: WorkspaceRequest, workload: Object) -> None:
        """Leave a workload as it was, and its pods too: some kinds would not replace a broken one."""
        try:
            async with asyncio.timeout(self._settings.retry_for_s):
                await self.remove(request.name, workload)
                for pod in await self._pods(request.origin.ns, request.name):
                    await self._api.delete(POD, request.origin.ns, name_of(pod), uid=uid_of(pod))
        except (ClusterError, TimeoutError) as exc:
            _log.error(
                "workspace not taken away", workspace=request.name, workload=_called(workload), why=str(exc)
            )


def _rule_for(user: User, namespace: str, rules: Sequence[InjectRule]) -> InjectRule:
    mine = {group.casefold() for group in user.groups} | {"*"}
    for rule in rules:
        if rule.namespace == namespace and any(group.casefold() in mine for group in rule.groups):
            return rule
    raise Refused(f"you may not enter workloads of namespace {namespace}; ask an operator")


def _taken(workload: Object) -> WorkspaceUnstartable:
    return WorkspaceUnstartable(
        f"{_called(workload)} holds another workspace already; it has room for one: ask who uses it"
    )


def _put_back(
    request: WorkspaceRequest, workload: Object, sentence: str, detail: str
) -> WorkspaceUnstartable:
    what = _called(workload)
    return WorkspaceUnstartable(
        f"workspace {request.name} in {what}: {detail or sentence}",
        user_message=f"{what} was put back as it was: {sentence}",
    )


def _called(workload: Object) -> str:
    return f"{str(workload['kind']).lower()} {name_of(workload)}"


def _is_injected(workload: Object) -> bool:
    """Return whether it is a user's program, and not the StatefulSet of a workspace of our own."""
    names = [one["name"] for one in listed(workload, "spec", "template", "spec", "containers")]
    return inject.CONTAINER in names


def _ours(pod: Object) -> Object:
    """Look at our containers only: a user may come because another one fails."""
    status = dict(pod.get("status") or {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        status[kind] = [one for one in listed(pod, "status", kind) if one["name"] in _OURS]
    return {**pod, "status": status}


def _record(workload: Object) -> WorkspaceRecord:
    noted = annotations_of(workload)
    return WorkspaceRecord(
        WorkspaceName(labels_of(workload)[labels.WORKSPACE]),
        user=noted.get(labels.USER, ""),
        blueprint=noted.get(labels.BLUEPRINT, ""),
        created_at=_injected_at(workload),
        user_string=noted.get(labels.USER_STRING, ""),
        phase=WorkspacePhase.RUNNING,
        location=f"{namespace_of(workload)}/{str(workload['kind']).lower()}/{name_of(workload)}",
        owner=noted.get(labels.OWNER, ""),
    )


def _injected_at(workload: Object) -> datetime:
    """Return when a workspace came into a workload, which is older, as the cluster notes of our manager."""
    manager = inject.manager_of(labels_of(workload).get(labels.WORKSPACE, ""))
    times = (
        moment(one.get("time"))
        for one in listed(workload, "metadata", "managedFields")
        if one.get("manager") == manager
    )
    return max(filter(None, times), default=made_at(workload))
