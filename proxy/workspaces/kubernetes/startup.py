"""One start of one workspace: its objects are applied, and progress is reported until shelld answers.

Any number of proxies may do this for one workspace at the same moment. Each applies the same objects, which
is harmless, or finds that another has just done so, and all watch the same pod.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

import structlog

from proxy.blueprints.pod import Storage
from proxy.errors.programs import OwnerUnknown
from proxy.errors.workspaces import (
    ClusterConflict,
    ClusterError,
    ClusterForbidden,
    ClusterNotFound,
    ClusterRefused,
    ClusterUnavailable,
    WorkspaceStartFailed,
    WorkspaceUnstartable,
)
from proxy.model import Endpoint, Phase, User, WorkspaceName
from proxy.settings.kubernetes import KubernetesSettings
from proxy.settings.trust import TrustSettings
from proxy.trust.authority import server_name
from proxy.trust.certmanager import API_VERSION, certificate_name
from proxy.trust.manager import CERTIFICATE_FILE, KEY_FILE
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.kubernetes import explanations, labels, volumes
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.diagnosis import Diagnosis, Prognosis, StartStage, judge
from proxy.workspaces.kubernetes.endpoints import answers, endpoint_of
from proxy.workspaces.kubernetes.manifest import Manifest, build, place_of
from proxy.workspaces.kubernetes.objects import (
    CLAIM,
    EVENT,
    POD,
    SECRET,
    STATEFUL_SET,
    Kind,
    Object,
    annotations_of,
    is_going,
    labels_of,
    made_at,
    name_of,
    namespace_of,
    uid_of,
)
from proxy.workspaces.kubernetes.patience import Patience
from proxy.workspaces.kubernetes.view import ClusterView, pod_name
from proxy.workspaces.ownership import Title, check_title
from proxy.workspaces.pending_starts import PendingStart

_FRESH_S = 2
"""A failed pod older than this is made anew when the workspace is requested again."""

_CONFLICTS = 5
_POLL_S = 0.5
_UNREACHED_PAUSE_S = 1.0

_T = TypeVar("_T")
_log = structlog.get_logger("kubernetes")


class Trust(Protocol):
    """The source of the files by which a workspace and its proxies know each other: `proxy.trust.manager`."""

    @property
    def rotation_state(self) -> object:
        """Return a value that differs as soon as files may have to change before they expire."""

    @property
    def issuer(self) -> TrustSettings | None:
        """Return the issuer of certificates of workspaces; None when `workspace_files` holds them."""

    def workspace_files(self, workspace: str, name: str, present: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Give the files of a workspace's Secret, those of `present` kept where they are good."""


class WorkspaceStartup:
    """The start of one workspace, until it answers."""

    def __init__(
        self,
        api: Api,
        view: ClusterView,
        settings: KubernetesSettings,
        trust: Trust,
        request: WorkspaceRequest,
        start: PendingStart,
    ) -> None:
        self._api = api
        self._view = view
        self._settings = settings
        self._trust = trust
        self._request = request
        self._start = start
        self._name = request.name
        self._namespace = settings.namespace
        self._replaced: set[str] = set()
        """Pods that we gave up: their state no longer counts."""
        self._applied = False

    async def run(self) -> Endpoint:
        """Start the workspace, without a deadline. Raises: WorkspaceNotFound, WorkspaceStartFailed."""
        self._start.tell(Phase.PREPARING, f"preparing workspace {self._name}")
        async with self._view.waiting([self._name, pod_name(self._name)]) as woken:
            manifest = await self._bring_about()
            endpoint = await self._watch(woken)
            # Again: a deletion that overlapped with this start may have taken it away behind our back.
            await self._persist(lambda: self._apply(manifest.network_policy))
            return endpoint

    async def _bring_about(self) -> Manifest:
        manifest = await self._persist(self._make)
        await self._persist(lambda: self._replace_failed(manifest))
        return manifest

    # ------------------------------------------------------------------------------- making it be there

    async def _make(self) -> Manifest:
        """Apply every object, unless another proxy has just done so and all is well with that."""
        stateful_set = await self._present()
        present = await self._api.find(SECRET, self._namespace, self._name)
        files, issuer = self._files(present), self._trust.issuer
        older, given = await self._older_claims(), await self._is_given()
        events_before = await self._events_before(stateful_set)
        manifest = build(
            self._request,
            self._settings,
            files,
            now=datetime.now(UTC),
            issuer=issuer,
            older_claims=older,
            given=given,
        )
        manifest = _annotated(manifest, {labels.EVENTS_BEFORE: events_before})
        if stateful_set is not None:
            manifest = _with_origin_of(stateful_set, manifest, self._request)
            if _is_started(stateful_set, manifest) and self._is_well_under_way():
                return manifest
        self._applied = True
        await self._claim(manifest)
        await asyncio.gather(*(self._apply(part) for part in manifest.parts))
        if issuer is not None:
            await self._certified()
        applied = await self._apply(manifest.stateful_set)
        if any(key in annotations_of(applied) for key in labels.STOP_ANNOTATIONS):
            # Not ours by apply, since they were written at the stop: they are removed by name.
            body = {"metadata": {"annotations": labels.stop_annotations(None)}}
            applied = await self._api.merge(STATEFUL_SET, self._namespace, self._name, body)
        self._view.stateful_sets.learn(applied)
        return manifest

    def _is_well_under_way(self) -> bool:
        """Return whether there is a pod without a fault that applying everything anew might cure."""
        situation = self._view.situation(self._name)
        return situation.pod is not None and judge(situation).prognosis is Prognosis.OK

    async def _present(self) -> Object | None:
        """Find the StatefulSet, which must be this user's; one that is being deleted is waited for."""
        while True:
            found = await self._api.find(STATEFUL_SET, self._namespace, self._name)
            check_owner(found, self._request)
            if found is None or not is_going(found):
                return found
            self._start.tell(Phase.PREPARING, "waiting until the previous workspace is deleted")
            await asyncio.sleep(_POLL_S)

    async def _events_before(self, stateful_set: Object | None) -> str:
        """Return the version up to which events are about earlier starts; a new StatefulSet has had none."""
        if stateful_set is None:
            return "0"
        about = f"involvedObject.uid={uid_of(stateful_set)}"
        try:
            return (await self._api.list(Query(EVENT, self._namespace, fields=about))).version
        except ClusterForbidden:  # then no refusal is seen either
            return "0"

    def _files(self, secret: Object | None) -> Mapping[str, bytes]:
        present = decoded(secret)
        return self._trust.workspace_files(self._name, server_name(self._name, self._namespace), present)

    async def _certified(self) -> None:
        """Wait for the certificate of the issuer: kubelet, which would miss it, tries again ever later."""
        name = certificate_name(self._name)
        while True:
            present = decoded(await self._api.find(SECRET, self._namespace, name))
            if present.get(CERTIFICATE_FILE) and present.get(KEY_FILE):
                return
            self._start.tell(Phase.PREPARING, f"waiting until cert-manager has issued certificate {name}")
            await asyncio.sleep(_POLL_S)

    async def _claim(self, manifest: Manifest) -> None:
        """Make the claims that are missing; existing ones are a user's home and stay as they are."""
        for claim in manifest.claims:
            while True:
                found = await self._api.find(CLAIM, self._namespace, name_of(claim))
                if found is None:
                    with suppress(ClusterConflict):
                        found = await self._api.create(claim)
                if found is not None and not is_going(found):
                    self._view.claims.learn(await self._own_claim(found, claim))
                    break
                self._start.tell(
                    Phase.PREPARING, f"waiting until the previous volume {name_of(claim)} is gone"
                )
                await asyncio.sleep(_POLL_S)

    async def _own_claim(self, claim: Object, wanted: Object) -> Object:
        """Return a claim that is this user's, with the owner recorded, or that belongs to no single user.

        Raises: WorkspaceUnstartable, OwnerUnknown.
        """
        if labels.OWNER not in annotations_of(wanted):
            return claim
        user, name = self._request.user, name_of(claim)
        match self._title_to(claim):
            case Title.RECORDED:
                return claim
            case Title.NONE:
                raise WorkspaceUnstartable(
                    f"claim {name} belongs to another user than {user.name}",
                    user_message="the volume of that name is another user's: ask an operator",
                )
            case Title.UNKNOWN:
                raise OwnerUnknown(
                    f"volume {name} is older than the user {user.name} of today, and may be an earlier "
                    "user's of that name; an operator can say whose: "
                    f"kubectl -n {self._namespace} annotate pvc {name} {labels.OWNER}={user.id}"
                )
        return await record_owner(self._api, CLAIM, claim, user)

    def _title_to(self, claim: Object) -> Title:
        """Judge a claim; one that an operator made by hand names no user, and is of who uses it first."""
        if {labels.USER, labels.OWNER} & annotations_of(claim).keys():
            return labels.title_to(claim, self._request.user)
        return Title.UNRECORDED

    async def _older_claims(self) -> Mapping[str, str]:
        """Find the claims of shared storages that an older release named, by storage."""
        place = place_of(self._request, self._settings)
        found = {}
        for name, storage in self._request.blueprint.storages.items():
            if storage.kind != "shared":
                continue
            older = volumes.older_claim_name(place, name, storage)
            claim = await self._api.find(CLAIM, self._namespace, older)
            if claim is not None and self._is_older_claim(claim, storage):
                found[name] = older
        return found

    def _is_older_claim(self, claim: Object, storage: Storage) -> bool:
        """Return whether an older release made a claim for this user, or for this blueprint.

        Names without a hash collide: a claim of that name may be of another user, or another storage.
        """
        if storage.scope == "user":
            return self._title_to(claim) is not Title.NONE
        noted = labels_of(claim).get(labels.BLUEPRINT)
        return noted in {None, labels.label_value(self._request.blueprint.name)}

    async def _is_given(self) -> bool:
        """Return whether an operator handed the home over, so that another user's files are in it."""
        claims = await self._api.list(Query(CLAIM, self._namespace, labels.selector_of(self._name)))
        return any(labels.GIVEN_AT in annotations_of(claim) for claim in claims.items)

    async def _apply(self, body: Object) -> Object:
        for attempt in range(_CONFLICTS):
            try:
                return await self._api.apply(body)
            except ClusterConflict:
                if attempt + 1 == _CONFLICTS:
                    raise
                await asyncio.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    async def _replace_failed(self, manifest: Manifest) -> None:
        """Replace a pod that cannot become ready, so that later corrections are tried at once."""
        situation = self._view.situation(self._name)
        pod = situation.pod
        if pod is None or is_going(pod):
            return
        diagnosis = judge(situation)
        if diagnosis.prognosis not in {Prognosis.NEEDS_CHANGE, Prognosis.NEEDS_CAPACITY}:
            return
        other = annotations_of(pod).get(labels.MANIFEST_HASH) != manifest.hash
        if other or datetime.now(UTC) - made_at(pod) > timedelta(seconds=_FRESH_S):
            self._replaced.add(uid_of(pod))
            await self._api.delete(POD, self._namespace, name_of(pod), uid=uid_of(pod))

    async def _persist(self, act: Callable[[], Awaitable[_T]]) -> _T:
        """Do something, however long the API server is away: the start as a whole has a deadline.

        Raises: WorkspaceStartFailed, for what the cluster does not want.
        """
        while True:
            try:
                return await act()
            except ClusterUnavailable as exc:
                _log.warning("cluster does not answer", workspace=self._name, why=str(exc))
                self._start.tell(Phase.PREPARING, "the cluster does not answer at the moment; trying again")
                await asyncio.sleep(_UNREACHED_PAUSE_S)
            except ClusterError as exc:
                raise refused(self._name, self._namespace, exc) from exc

    # ------------------------------------------------------------------------------------- waiting

    async def _watch(self, woken: asyncio.Event) -> Endpoint:
        patience = Patience(self._settings.patience_s)
        last = Diagnosis(StartStage.CREATING, "")
        while True:
            woken.clear()
            diagnosis = self._judge()
            if patience.exhausted([diagnosis]):
                if self._applied:
                    raise self._failure(diagnosis)
                # We trusted another proxy's objects before all was known of them.
                await self._bring_about()
                continue
            pod = self._view.pods.get(pod_name(self._name))
            if diagnosis.stage is not last.stage or diagnosis.sentence != last.sentence:
                _log.debug(
                    "workspace", workspace=self._name, stage=diagnosis.stage.value, why=diagnosis.detail
                )
            last = diagnosis
            if pod is not None and await self._is_there(diagnosis, pod):
                return endpoint_of(self._name, self._request.user.name, self._namespace, pod)
            self._start.tell(_REPORTED_PHASES.get(diagnosis.stage, Phase.STARTING), diagnosis.sentence)
            await self._pause(diagnosis, woken)

    def _judge(self) -> Diagnosis:
        situation = self._view.situation(self._name)
        if (
            situation.pod is not None
            and uid_of(situation.pod) in self._replaced
            and not is_going(situation.pod)
        ):
            situation = replace(situation, pod=None, events=())
        diagnosis = judge(situation)
        if diagnosis.stage in {StartStage.ABSENT, StartStage.DELETING, StartStage.STOPPED}:
            raise WorkspaceStartFailed(
                f"workspace {self._name} was {diagnosis.stage.value} while it was starting",
                user_message="the workspace was stopped or deleted while it was starting",
            )
        return diagnosis

    async def _is_there(self, diagnosis: Diagnosis, pod: Object) -> bool:
        """Believe the cluster, which asks once a second, or a container that has started and answers."""
        if diagnosis.stage is StartStage.READY:
            return True
        return diagnosis.stage is StartStage.STARTED and await answers(pod)

    async def _pause(self, diagnosis: Diagnosis, woken: asyncio.Event) -> None:
        started = diagnosis.stage is StartStage.STARTED
        quiet_s = self._settings.probe_interval_s if started else self._settings.recheck_s
        if diagnosis.prognosis is Prognosis.NEEDS_CAPACITY:
            quiet_s = min(quiet_s, self._settings.patience_s, 1.0)
        try:
            async with asyncio.timeout(quiet_s):
                await woken.wait()
        except TimeoutError:
            if not started:
                await self._recheck(diagnosis)

    async def _recheck(self, diagnosis: Diagnosis) -> None:
        """Read the pod, in case that a watch is slow, and delete a pod that cannot end."""
        pod = self._view.pods.get(pod_name(self._name))
        with suppress(ClusterError):
            if (
                pod is not None
                and diagnosis.prognosis is Prognosis.MAY_RECOVER
                and is_lost(pod, self._settings)
            ):
                _log.warning("pod of a lost node taken off the books", pod=name_of(pod))
                await self._api.delete(POD, self._namespace, name_of(pod), uid=uid_of(pod), now=True)
            found = await self._api.find(POD, self._namespace, pod_name(self._name))
            if found is not None:
                self._view.pods.learn(found)
            elif pod is not None:
                self._view.pods.forget(pod)

    def _failure(self, diagnosis: Diagnosis) -> WorkspaceUnstartable:
        return WorkspaceUnstartable(
            f"workspace {self._name}: {diagnosis.stage.value}: {diagnosis.detail or diagnosis.sentence}",
            user_message=diagnosis.sentence,
        )


_REPORTED_PHASES = {
    StartStage.CREATING: Phase.PREPARING,
    StartStage.SCHEDULING: Phase.PREPARING,
    StartStage.READY: Phase.READY,
}


def check_owner(stateful_set: Object | None, request: WorkspaceRequest) -> Title:
    """Let through a workspace of this user, and none where one may be made.

    Raises: WorkspaceNotFound, in the same words whether there is none or it is another user's; OwnerUnknown.
    """
    if stateful_set is None and request.may_create:
        return Title.RECORDED
    is_ours = stateful_set is not None and labels.user_of(stateful_set)
    record = labels.record_of(stateful_set) if stateful_set is not None and is_ours else None
    return check_title(record, request.name, request.user)


async def record_owner(api: Api, kind: Kind, body: Object, user: User) -> Object:
    """Record the owner of an object that an older release made, and return it.

    A failure keeps no user out: the object is that user's already, and the next start tries again.
    """
    metadata = {
        "annotations": labels.owner_annotations(user),
        "resourceVersion": body["metadata"]["resourceVersion"],  # it must not have been handed over meanwhile
    }
    try:
        return await api.merge(kind, namespace_of(body), name_of(body), {"metadata": metadata})
    except ClusterError as exc:
        _log.warning("owner not recorded", kind=kind.name, name=name_of(body), why=str(exc))
        return body


def is_lost(pod: Object, settings: KubernetesSettings) -> bool:
    """Return whether a pod should be gone for so long that the settings allow to forget it."""
    if not settings.force_delete_lost_after_s or not is_going(pod):
        return False
    due = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
    return datetime.now(UTC) - due > timedelta(seconds=settings.force_delete_lost_after_s)


def decoded(secret: Object | None) -> dict[str, bytes]:
    """Read the files of a Secret."""
    data = (secret or {}).get("data") or {}
    return {name: base64.b64decode(content) for name, content in data.items()}


def refused(name: WorkspaceName, namespace: str, exc: ClusterError) -> WorkspaceStartFailed:
    """Say to the person why the cluster did not take an object."""
    message = str(exc)
    match exc:
        case ClusterRefused():
            sentence = explanations.creation_problem(message.partition(": ")[2])
        case ClusterUnavailable() if explanations.FAILED_WEBHOOK in message:
            sentence = explanations.creation_problem(message.partition(": ")[2])
        case ClusterForbidden():
            sentence = "Fairlead lacks a right in the cluster: its operator can see which in the log"
        case ClusterNotFound() if API_VERSION in message and f'"{namespace}"' not in message:
            sentence = "cert-manager is not installed in the cluster: ask an operator to install it"
        case ClusterNotFound():
            sentence = f"namespace {namespace} of the cluster does not exist: ask an operator to create it"
        case _:
            return WorkspaceStartFailed(f"workspace {name}: {message}", user_message=exc.user_message)
    return WorkspaceUnstartable(f"workspace {name}: {message}", user_message=sentence)


def _is_started(stateful_set: Object, manifest: Manifest) -> bool:
    """Return whether it was started from this very manifest, and not stopped since."""
    return (
        stateful_set["spec"].get("replicas") == 1
        and annotations_of(stateful_set).get(labels.MANIFEST_HASH) == manifest.hash
    )


def _with_origin_of(stateful_set: Object, manifest: Manifest, request: WorkspaceRequest) -> Manifest:
    """Keep the origin of the workspace's first request, when it is requested by its name."""
    noted = annotations_of(stateful_set)
    if request.origin.pod and labels.USER_STRING in noted:
        return _annotated(manifest, {labels.USER_STRING: noted[labels.USER_STRING]})
    return manifest


def _annotated(manifest: Manifest, annotations: Mapping[str, str]) -> Manifest:
    """Return a manifest whose StatefulSet has these annotations besides."""
    metadata = manifest.stateful_set["metadata"]
    metadata = metadata | {"annotations": {**metadata["annotations"], **annotations}}
    return replace(manifest, stateful_set=manifest.stateful_set | {"metadata": metadata})
