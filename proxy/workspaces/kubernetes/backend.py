"""Workspaces as StatefulSets of a cluster, each with one pod or none.

Simultaneous changes by many proxies converge, because all of them apply the same objects and nothing is kept
outside of the cluster: what a workspace is and whose stands in its StatefulSet, why it was stopped beside it.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from proxy.errors.programs import NameReserved, Refused
from proxy.errors.workspaces import (
    ClusterError,
    ClusterNotFound,
    ClusterRefused,
    StopTimeout,
    WorkspaceNotFound,
)
from proxy.identity import reserved_names
from proxy.model import Endpoint, User, WorkspaceName
from proxy.settings.kubernetes import KubernetesSettings
from proxy.trust.certmanager import certificate_name
from proxy.workspaces.backend import (
    Features,
    Report,
    Stop,
    WorkspaceEvent,
    WorkspacePhase,
    WorkspaceRecord,
    WorkspaceRequest,
)
from proxy.workspaces.kubernetes import labels
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.diagnosis import Prognosis, Situation, event_order, judge
from proxy.workspaces.kubernetes.endpoints import answers, endpoint_of, is_ready, is_started
from proxy.workspaces.kubernetes.manifest import CONTAINER
from proxy.workspaces.kubernetes.objects import (
    CERTIFICATE,
    CLAIM,
    CONFIG_MAP,
    EVENT,
    NETWORK_POLICY,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Kind,
    Object,
    annotations_of,
    listed,
    made_at,
    moment,
    name_of,
    uid_of,
)
from proxy.workspaces.kubernetes.renewal import Renewal
from proxy.workspaces.kubernetes.startup import Trust, WorkspaceStartup, check_owner, record_owner
from proxy.workspaces.kubernetes.view import ClusterView, involved, pod_name
from proxy.workspaces.kubernetes.workloads import Workloads
from proxy.workspaces.ownership import Title
from proxy.workspaces.pending_starts import PendingStart, PendingStarts
from proxy.workspaces.stop_holds import check_hold, check_may_start

_FIRST_POLL_S = 0.1
_LAST_POLL_S = 1.0
_LOG_POLL_S = 0.5
_UNCLEAR = {WorkspacePhase.STARTING, WorkspacePhase.FAILED}
_POD_SUFFIX = pod_name("")
_PARTS = (SERVICE, CONFIG_MAP, SECRET)

_log = structlog.get_logger("kubernetes")


class KubernetesBackend:
    """The Backend of one namespace of one cluster."""

    def __init__(self, settings: KubernetesSettings, trust: Trust, *, start_timeout_s: float) -> None:
        self._settings = settings
        self._namespace = settings.namespace
        self._trust = trust
        self._api = Api(settings)
        self._view = ClusterView(self._api, settings)
        self._renewal = Renewal(self._api, self._namespace, trust)
        self._starts = PendingStarts(start_timeout_s)
        self._workloads = Workloads(self._api, settings, trust)
        self.features = Features(repositories=True, workloads=bool(settings.inject))

    # ----------------------------------------------------------------------------------- looking

    async def find(self, name: str) -> WorkspaceRecord | None:
        """See Backend."""
        if not labels.is_object_name(name):
            return None
        if self._view.is_current:
            stateful_set, pod = self._known(name)
        else:
            stateful_set, pod = await asyncio.gather(
                self._api.find(STATEFUL_SET, self._namespace, name),
                self._api.find(POD, self._namespace, pod_name(name)),
            )
        if stateful_set is None:
            return await self._workloads.find(name)
        if not _is_ours(stateful_set):
            return None
        (record,) = await self._records([(stateful_set, pod)])
        return record

    async def holder(self, name: str) -> WorkspaceRecord | None:
        """See Backend."""
        if labels.is_object_name(name) and (known := self._view.stateful_sets.get(name)) is not None:
            return labels.record_of(known) if _is_ours(known) else None
        return await self.find(name) or await self._kept(name)

    async def list(self) -> Sequence[WorkspaceRecord]:
        """See Backend."""
        if self._view.is_current:
            stateful_sets, pods = self._view.stateful_sets.all(), self._view.pods.all()
        else:
            found = await asyncio.gather(
                self._api.list(Query(STATEFUL_SET, self._namespace, labels.ALL_WORKSPACES)),
                self._api.list(Query(POD, self._namespace, labels.ALL_WORKSPACES)),
            )
            stateful_sets, pods = (list(listing.items) for listing in found)
        by_name = {name_of(pod): pod for pod in pods}
        records = await self._records([(one, by_name.get(pod_name(name_of(one)))) for one in stateful_sets])
        return sorted([*records, *await self._workloads.all()], key=lambda record: record.name)

    async def _records(self, found: Sequence[tuple[Object, Object | None]]) -> Sequence[WorkspaceRecord]:
        """Describe workspaces; for those that have not started, available events give the reason."""
        records = [_record(*one) for one in found]
        unclear = [one.name for one in records if one.phase in _UNCLEAR and one.started_at is None]
        if not unclear:
            return records
        names = [one for name in unclear for one in (name, pod_name(name))]
        # One workspace is asked about by its two names; for many, one list is less than all of these.
        about = [f"involvedObject.name={one}" for one in names] if len(unclear) == 1 else [""]
        queries = [Query(EVENT, self._namespace, fields=one) for one in about]
        try:
            listings = await asyncio.gather(*(self._api.list(query) for query in queries))
        except ClusterError as exc:
            _log.info("events not read", why=str(exc))
            return records
        known = frozenset(names)
        events: defaultdict[str, list[Object]] = defaultdict(list)
        for event in (event for listing in listings for event in listing.items):
            if (name := involved(event)) in known:
                events[name.removesuffix(_POD_SUFFIX)].append(event)
        return [_record(*one, events[name_of(one[0])]) for one in found]

    async def kept(self) -> Sequence[WorkspaceRecord]:
        """See Backend."""
        stateful_sets, claims = await asyncio.gather(
            self._api.list(Query(STATEFUL_SET, self._namespace, labels.ALL_WORKSPACES)),
            self._api.list(Query(CLAIM, self._namespace, labels.ALL_WORKSPACES)),
        )
        used = {name_of(one) for one in stateful_sets.items}
        homes: dict[str, list[Object]] = {}
        for claim in claims.items:
            if (name := labels.workspace_of(claim)) and name not in used:
                homes.setdefault(name, []).append(claim)
        records = [_kept_record(name, of_one) for name, of_one in sorted(homes.items())]
        return [record for record in records if record.user]

    async def logs(self, name: WorkspaceName, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """See Backend."""
        namespace, pod, container = await self._place(name)
        while True:
            try:
                async for line in self._api.log(namespace, pod, container, follow=follow, tail=tail):
                    yield line
            except (ClusterNotFound, ClusterRefused):  # no pod, or its container has not started
                if follow:
                    await asyncio.sleep(_LOG_POLL_S)
                    continue
            return

    async def events(self, name: WorkspaceName) -> Sequence[WorkspaceEvent]:
        """See Backend."""
        namespace, pod, _ = await self._place(name)
        claims = await self._claims(name)
        about = [name, pod, *(name_of(claim) for claim in claims)]
        queries = (Query(EVENT, namespace, fields=f"involvedObject.name={one}") for one in about)
        found = await asyncio.gather(*(self._api.list(query) for query in queries))
        events = sorted((event for listing in found for event in listing.items), key=event_order)
        return [_event(event) for event in events]

    async def locate(self, name: WorkspaceName) -> Endpoint | None:
        """See Backend."""
        stateful_set, pod = await asyncio.gather(
            self._api.find(STATEFUL_SET, self._namespace, name),
            self._api.find(POD, self._namespace, pod_name(name)),
        )
        if stateful_set is None or pod is None or not is_started(stateful_set, pod) or not is_ready(pod):
            return None
        return endpoint_of(name, labels.user_of(stateful_set), self._namespace, pod)

    # ---------------------------------------------------------------------------------- changing

    async def upkeep(self) -> None:
        """See Backend."""
        await self._renewal.run()

    def check_access(self, request: WorkspaceRequest) -> None:
        """See Backend."""
        if request.origin.workload:
            self._workloads.rule_for(request)

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """See Backend."""
        if not labels.is_object_name(request.name):
            raise WorkspaceNotFound(f"{request.name!r} cannot be the name of a workspace")
        _check_name(request)
        if request.origin.workload:
            return await self._workloads.ensure(request, report)
        await self._view.open()
        if endpoint := await self._running(request):
            return endpoint
        check_may_start(request)
        await self._check_hold(request)

        async def bring(start: PendingStart) -> Endpoint:
            startup = WorkspaceStartup(self._api, self._view, self._settings, self._trust, request, start)
            return await startup.run()

        return await self._starts.join(request, report, bring)

    async def stop(self, name: WorkspaceName, stop: Stop) -> None:
        """See Backend; a workspace in a user's workload is removed, and the program runs on."""
        if await self._removed(name):
            return
        stateful_set = await self._must_exist(name)
        if stateful_set["spec"].get("replicas") != 0:
            body = {"metadata": {"annotations": labels.stop_annotations(stop)}, "spec": {"replicas": 0}}
            try:
                stopped = await self._api.merge(STATEFUL_SET, self._namespace, name, body)
            except ClusterNotFound:
                raise _missing(name) from None
            self._view.stateful_sets.learn(stopped)
        await self._until_gone(POD, pod_name(name), name)
        _log.info("workspace stopped", workspace=name, by=stop.by)

    async def give(self, name: WorkspaceName, user: User, stop: Stop) -> None:
        """See Backend."""
        if await self._workloads.find_workload(name) is not None:
            raise Refused(f"workspace {name} is part of a workload and has no home of its own to hand over")
        stateful_set = await self._api.find(STATEFUL_SET, self._namespace, name)
        claims = await self._claims(name)
        if stateful_set is None and not claims:
            raise _missing(name)
        change = labels.owner_change(user, stop.at)
        if stateful_set is not None:
            # Owner and end in one step, so that no one starts it as the former owner in between.
            stopped = stateful_set["spec"].get("replicas") == 0
            noted = {} if stopped else labels.stop_annotations(stop)
            metadata = {**change, "annotations": {**change["annotations"], **noted}}
            given = await self._api.merge(
                STATEFUL_SET, self._namespace, name, {"metadata": metadata, "spec": {"replicas": 0}}
            )
            self._view.stateful_sets.learn(given)
        for claim in claims:
            await self._api.merge(CLAIM, self._namespace, name_of(claim), {"metadata": change})
        if stateful_set is not None:
            await self._until_gone(POD, pod_name(name), name)
        _log.info("workspace handed over", workspace=name, user=user.name, by=stop.by)

    async def delete(self, name: WorkspaceName, *, purge: bool) -> None:
        """See Backend."""
        if await self._removed(name):
            return
        claims = await self._claims(name) if purge else []
        if not claims:  # what was deleted before can still be purged
            await self._must_exist(name)
        pod = await self._api.find(POD, self._namespace, pod_name(name))
        stateful_set = await self._api.find(STATEFUL_SET, self._namespace, name)
        await self._api.delete(STATEFUL_SET, self._namespace, name, foreground=True)
        # While the StatefulSet is going, a new start of the workspace waits: its objects are not deleted.
        await asyncio.gather(*(self._api.delete(kind, self._namespace, name) for kind in _PARTS))
        if self._trust.issuer is not None:
            for kind in (CERTIFICATE, SECRET):  # in this order, or the Secret would be made again
                await self._api.delete(kind, self._namespace, certificate_name(name))
        for kind, going in ((POD, pod), (STATEFUL_SET, stateful_set)):
            if going is not None:  # and not those of a start that came after us
                await self._until_gone(kind, name_of(going), name, uid=uid_of(going))
        # Last, so that no pod ever runs without; a start that was faster needs it.
        if await self._api.find(STATEFUL_SET, self._namespace, name) is None:
            await self._api.delete(NETWORK_POLICY, self._namespace, name)
        for claim in claims:
            await self._api.delete(CLAIM, self._namespace, name_of(claim), uid=uid_of(claim))
        for claim in claims:
            await self._until_gone(CLAIM, name_of(claim), name)
        _log.info("workspace deleted", workspace=name, purged=purge)

    async def close(self) -> None:
        """See Backend."""
        await self._starts.close()
        await self._workloads.close()
        await self._view.close()
        await self._api.close()

    # ----------------------------------------------------------------------------------- helpers

    def _known(self, name: str) -> tuple[Object | None, Object | None]:
        return self._view.stateful_sets.get(name), self._view.pods.get(pod_name(name))

    async def _running(self, request: WorkspaceRequest) -> Endpoint | None:
        """Find a workspace that answers in the mirrored objects, without a request when they are current."""
        stateful_set, pod = self._known(request.name)
        if stateful_set is None:
            return None
        title = check_owner(stateful_set, request)
        if pod is None or not is_started(stateful_set, pod):
            return None
        # Kubernetes asks once a second, and a busy workspace may not answer it in time.
        if (is_ready(pod) and self._view.is_current) or await answers(pod):
            if title is Title.UNRECORDED:
                await self._record_owner(stateful_set, request.user)
            return endpoint_of(request.name, request.user.name, self._namespace, pod)
        return None

    async def _record_owner(self, stateful_set: Object, user: User) -> None:
        """Record whose a running workspace of an older release is, and whose its claims are."""
        recorded = await record_owner(self._api, STATEFUL_SET, stateful_set, user)
        self._view.stateful_sets.learn(recorded)
        with suppress(ClusterError):
            for claim in await self._claims(name_of(stateful_set)):
                if labels.title_to(claim, user) is Title.UNRECORDED:
                    await record_owner(self._api, CLAIM, claim, user)

    async def _kept(self, name: str) -> WorkspaceRecord | None:
        """Read whose the home is that a deleted workspace left."""
        claims = await self._claims(name)
        return _kept_record(name, claims) if claims else None

    async def _check_hold(self, request: WorkspaceRequest) -> None:
        """Respect a stop from its order on, while the pod still ends too. Raises: WorkspaceHeld."""
        if not request.hold_s:
            return
        found = self._view.stateful_sets.get(request.name)
        if found is None or not self._view.is_current:
            found = await self._api.find(STATEFUL_SET, self._namespace, request.name)
        if found is not None and found["spec"].get("replicas") == 0:
            check_hold(labels.stop_of(found), request)

    async def _removed(self, name: str) -> bool:
        """Take an injected workspace away; False when it is none."""
        if not self._settings.inject or not labels.is_object_name(name):
            return False
        workload = await self._workloads.find_workload(name)
        if workload is not None:
            await self._workloads.remove(name, workload)
        return workload is not None

    async def _place(self, name: str) -> tuple[str, str, str]:
        """Give namespace, pod and container of a workspace. Raises: WorkspaceNotFound."""
        if labels.is_object_name(name) and (place := await self._workloads.place(name)):
            return place
        await self._must_exist(name)
        return self._namespace, pod_name(name), CONTAINER

    async def _must_exist(self, name: str) -> Object:
        """Require a workspace of our own. Raises: WorkspaceNotFound."""
        found = None
        if labels.is_object_name(name):
            found = await self._api.find(STATEFUL_SET, self._namespace, name)
        if found is None or not _is_ours(found):
            raise _missing(name)
        return found

    async def _claims(self, name: str) -> Sequence[Object]:
        if not labels.is_object_name(name):
            return []
        return (await self._api.list(Query(CLAIM, self._namespace, labels.selector_of(name)))).items

    async def _until_gone(self, kind: Kind, name: str, workspace: str, *, uid: str = "") -> None:
        """Wait until an object is gone, that of `uid` or the first to be found.

        Raises: StopTimeout, with the reason that is known.
        """
        found: Object | None = None
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s):
                wait_s = _FIRST_POLL_S
                while (now := await self._api.find(kind, self._namespace, name)) is not None:
                    if uid_of(now) != (uid := uid or uid_of(now)):
                        break  # another one was made: by a start that came after us
                    found = now
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 1.5, _LAST_POLL_S)
        except TimeoutError:
            raise self._not_gone(kind, workspace, found) from None
        if found is not None:
            for mirror in (self._view.pods, self._view.stateful_sets):
                mirror.forget(found)

    def _not_gone(self, kind: Kind, workspace: str, found: Object | None) -> StopTimeout:
        why = ""
        if kind is POD and found is not None:
            diagnosis = judge(Situation(_PRESENT, found))
            why = f": {diagnosis.sentence}" if diagnosis.prognosis is not Prognosis.OK else ""
        late = f"workspace {workspace} has not ended within {self._settings.stop_timeout_s:g} s"
        return StopTimeout(f"{late} ({kind.name} {found and name_of(found)}){why}", user_message=late + why)


_PRESENT: Object = {"metadata": {"name": ""}, "spec": {}}


def _is_ours(stateful_set: Object) -> bool:
    return bool(labels.workspace_of(stateful_set)) and bool(labels.user_of(stateful_set))


def _kept_record(name: str, claims: Sequence[Object]) -> WorkspaceRecord:
    """Read whose the home is that has these claims."""
    # One that says whose it is by id decides before those that do not.
    first = min(claims, key=lambda claim: (labels.OWNER not in annotations_of(claim), made_at(claim)))
    noted = annotations_of(first)
    return WorkspaceRecord(
        WorkspaceName(name),
        noted.get(labels.USER, ""),
        "",
        made_at(first),
        owner=noted.get(labels.OWNER, ""),
    )


def _check_name(request: WorkspaceRequest) -> None:
    """Refuse a user whose name would be a system account in the pod. Raises: NameReserved."""
    decision = reserved_names.may_be_account(request.user.name)
    if request.blueprint.account is None and not decision:
        raise NameReserved(f"{decision.reason}; ask an operator for another user name")


def _missing(name: str) -> WorkspaceNotFound:
    return WorkspaceNotFound(f"there is no workspace {name!r}")


_OVER = frozenset({WorkspacePhase.STOPPING, WorkspacePhase.STOPPED})
"""Phases in which the noted stop is the latest; a start takes the note away only once it has begun."""


def _record(stateful_set: Object, pod: Object | None, events: Sequence[Object] = ()) -> WorkspaceRecord:
    diagnosis = judge(Situation(stateful_set, pod, events=events))
    is_reported = (
        diagnosis.phase in {WorkspacePhase.FAILED, WorkspacePhase.STARTING}
        or diagnosis.prognosis is not Prognosis.OK
    )
    started = next(
        (
            moment(status["state"]["running"].get("startedAt"))
            for status in listed(pod or {}, "status", "containerStatuses")
            if (status.get("state") or {}).get("running")
        ),
        None,
    )
    record = labels.record_of(stateful_set)
    return replace(
        record,
        phase=diagnosis.phase,
        detail=diagnosis.sentence if is_reported else "",
        started_at=started,
        stop=record.stop if diagnosis.phase in _OVER else None,
    )


def _event(event: Object) -> WorkspaceEvent:
    series = event.get("series") or {}
    return WorkspaceEvent(
        at=event_order(event)[0],
        kind=str(event.get("type") or "Normal").lower(),
        reason=str(event.get("reason") or ""),
        message=str(event.get("message") or ""),
        count=int(event.get("count") or series.get("count") or 1),
    )
