"""One row per thing that may hold a workspace up: what the cluster says, and what the person reads."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.workspaces.backend import WorkspacePhase
from proxy.workspaces.kubernetes import diagnosis
from proxy.workspaces.kubernetes.diagnosis import Diagnosis, Prognosis, Situation, StartStage, judge
from proxy.workspaces.kubernetes.labels import EVENTS_BEFORE, LAST_START
from shelld.bootstrap.outcome import EX_REQUIRED

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PULL = "rpc error: code = Unknown desc = Error response from daemon: "
UNBOUND = "0/1 nodes are available: 1 pod has unbound immediate PersistentVolumeClaims."
FORBIDDEN = 'create Pod ws-0 in StatefulSet ws failed error: pods "ws-0" is forbidden: '


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def stateful_set(**changed: Any) -> dict[str, Any]:
    spec = {"replicas": changed.pop("replicas", 1)}
    metadata = {"name": "ws", "uid": "set", "annotations": {LAST_START: at(-10)}, **changed}
    return {"metadata": metadata, "spec": spec}


def pod(*, node: str | None = "node1", **changed: Any) -> dict[str, Any]:
    metadata = {"name": "ws-0", "uid": "pod", **changed.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Pending", **changed}}


def claim(phase: str = "Pending") -> dict[str, Any]:
    return {"metadata": {"name": "ws-home", "uid": "claim"}, "status": {"phase": phase}}


def event(reason: str, message: str = "", about: str = "pod", seconds: float = 0) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{reason}-{seconds}", "resourceVersion": "1"},
        "involvedObject": {"uid": about},
        "reason": reason,
        "message": message,
        "lastTimestamp": at(seconds),
    }


def container(name: str = "workspace", restarts: int = 0, last: Any = None, **state: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry/dev:1",
        "restartCount": restarts,
        "state": state,
        "lastState": {"terminated": last} if last else {},
    }


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"containerStatuses": [container(waiting={"reason": reason, "message": message}, **more)]}


def unschedulable(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(node=None, conditions=[condition])


RUNNING = {"running": {"startedAt": at(-5)}}
CRASH = {"exitCode": 1, "reason": "Error", "message": "one\n/etc/x cannot be read\n\n"}
OOM = {"exitCode": 137, "reason": "OOMKilled"}
DONE = container("fairlead-bundle", terminated={"exitCode": 0, "reason": "Completed"})
READY = [{"type": "Ready", "status": "True"}]
NO_NODE = "no node has enough"


@dataclass(frozen=True)
class Row:
    """A situation, and what is made of it."""

    stage: StartStage
    sentence: str
    """Stands in the sentence."""
    pod: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    prognosis: Prognosis = Prognosis.OK
    claims: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    stateful_set: dict[str, Any] | None = field(default_factory=stateful_set)


ROWS = {
    "no workspace": Row(StartStage.ABSENT, "no workspace", stateful_set=None),
    "deleted": Row(StartStage.DELETING, "being deleted", stateful_set=stateful_set(deletionTimestamp=at(0))),
    "stopped": Row(StartStage.STOPPED, "is stopped", stateful_set=stateful_set(replicas=0)),
    "stopping": Row(
        StartStage.ENDING,
        "previous pod to end",
        pod(metadata={"deletionTimestamp": at(10)}),
        stateful_set=stateful_set(replicas=0),
    ),
    "just made": Row(StartStage.CREATING, "waiting for the cluster"),
    # ------------------------------------------------------------------ no pod may be made
    "quota": Row(
        StartStage.CREATING,
        "the quota is used up (q, requested: pods=1, used: pods=1, limited: pods=1): stop another workspace",
        events=[
            event(
                "FailedCreate",
                FORBIDDEN + "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
                "set",
            )
        ],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "quota that wants limits": Row(
        StartStage.CREATING,
        "wants limits that the blueprint does not give (q: must specify limits.memory): add resources",
        events=[event("FailedCreate", FORBIDDEN + "failed quota: q: must specify limits.memory", "set")],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "admission": Row(
        StartStage.CREATING,
        "a rule of the cluster refuses it: only images of ours",
        events=[
            event(
                "FailedCreate",
                "create Pod ws-0 in StatefulSet ws failed error: "
                'admission webhook "images.example.com" denied the request: only images of ours',
                "set",
            )
        ],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "admission that does not answer": Row(
        StartStage.CREATING,
        "a service that must approve of it does not answer",
        events=[event("FailedCreate", "Internal error occurred: failed calling webhook x: no route", "set")],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "pod security": Row(
        StartStage.CREATING,
        'security rules refuse it (violates PodSecurity "restricted:latest": runAsNonRoot != true)',
        events=[
            event(
                "FailedCreate",
                FORBIDDEN + 'violates PodSecurity "restricted:latest": runAsNonRoot != true',
                "set",
            )
        ],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    # Of Kubernetes 1.33, as https://github.com/rancher/k3k/issues/578 has it; the tests' node is older.
    "pod security of every field": Row(
        StartStage.CREATING,
        "correct sudo and security.allow_privilege_escalation, security.drop_capabilities, "
        "security.run_as_user, security.seccomp_profile of the blueprint",
        events=[
            event(
                "FailedCreate",
                FORBIDDEN + 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false '
                '(container "x" must set securityContext.allowPrivilegeEscalation=false), unrestricted '
                'capabilities (container "x" must set securityContext.capabilities.drop=["ALL"]), '
                'runAsNonRoot != true (pod or container "x" must set securityContext.runAsNonRoot=true), '
                'seccompProfile (pod or container "x" must set securityContext.seccompProfile.type to '
                '"RuntimeDefault" or "Localhost")',
                "set",
            )
        ],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no service account": Row(
        StartStage.CREATING,
        'serviceaccount "builder" not found: ask an operator to create it',
        events=[
            event(
                "FailedCreate",
                FORBIDDEN + 'error looking up service account ns/builder: serviceaccount "builder" not found',
                "set",
            )
        ],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "a refusal of an earlier start of an older release": Row(
        StartStage.CREATING,
        "waiting for the cluster",
        events=[event("FailedCreate", FORBIDDEN + "exceeded quota: q", "set", seconds=-60)],
    ),
    "a refusal of an earlier start, by a clock that is ahead": Row(
        StartStage.CREATING,
        "waiting for the cluster",
        stateful_set=stateful_set(annotations={EVENTS_BEFORE: "1"}),
        events=[event("FailedCreate", FORBIDDEN + "exceeded quota: q", "set", seconds=60)],
    ),
    "a refusal of this start, by a clock that is behind": Row(
        StartStage.CREATING,
        "the quota is used up (q)",
        stateful_set=stateful_set(annotations={EVENTS_BEFORE: "0", LAST_START: at(-10)}),
        events=[event("FailedCreate", FORBIDDEN + "exceeded quota: q", "set", seconds=-60)],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "a refusal of another workspace": Row(
        StartStage.CREATING,
        "waiting for the cluster",
        events=[event("FailedCreate", FORBIDDEN + "exceeded quota: q", "another")],
    ),
    # ------------------------------------------------------------------ no node takes it
    "not placed yet": Row(StartStage.SCHEDULING, "looking for a node", pod(node=None)),
    "no cpu": Row(
        StartStage.SCHEDULING,
        "no node has enough cpu left: stop another workspace, or ask for less in the blueprint",
        unschedulable("0/1 nodes are available: 1 Insufficient cpu."),
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "no memory and no gpu": Row(
        StartStage.SCHEDULING,
        "no node has enough memory and nvidia.com/gpu left",
        unschedulable("0/2 nodes are available: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu."),
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "no room, and a node comes": Row(
        StartStage.SCHEDULING,
        "a node is being added for it",
        unschedulable("0/1 nodes are available: 1 Insufficient cpu."),
        [event("TriggeredScaleUp", "pod triggered scale-up")],
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "selector of 1.20": Row(
        StartStage.SCHEDULING,
        "no node matches what the blueprint selects",
        unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity."),
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "selector of 1.33": Row(
        StartStage.SCHEDULING,
        "no node matches what the blueprint selects",
        unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "taint": Row(
        StartStage.SCHEDULING,
        "every node keeps workspaces away by a taint",
        unschedulable("0/1 nodes are available: 1 node(s) had taint {a: b}, that the pod didn't tolerate."),
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "volume of another zone": Row(
        StartStage.SCHEDULING,
        "its volume is tied to another node or zone, which takes no pod: ask an operator",
        unschedulable("0/1 nodes are available: 1 node(s) had volume node conflict."),
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    # ------------------------------------------------------------------ no volume
    "claim that does not exist": Row(
        StartStage.SCHEDULING,
        "the volume claim models does not exist: ask an operator to create it",
        pod(node=None),
        claims={"models": None},
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "claim that the scheduler does not find": Row(
        StartStage.SCHEDULING,
        "the volume claim models does not exist",
        unschedulable('0/1 nodes are available: 1 persistentvolumeclaim "models" not found.'),
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "no volume for the claim": Row(
        StartStage.SCHEDULING,
        "no volume is left for ws-home, and the cluster makes none by itself",
        unschedulable(UNBOUND),
        [
            event(
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
                "claim",
            )
        ],
        claims={"ws-home": claim()},
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "no storage class": Row(
        StartStage.SCHEDULING,
        "storage class fast does not exist: correct the storage of the blueprint",
        unschedulable(UNBOUND),
        [event("ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found', "claim")],
        claims={"ws-home": claim()},
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "volume that cannot be made": Row(
        StartStage.SCHEDULING,
        "its volume ws-home cannot be made: out of space",
        unschedulable(UNBOUND),
        [event("ProvisioningFailed", "out of space", "claim")],
        claims={"ws-home": claim()},
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "volume on its way": Row(
        StartStage.SCHEDULING,
        "its volume is being made",
        unschedulable(UNBOUND),
        [event("ExternalProvisioning", "waiting for a volume to be created", "claim")],
        claims={"ws-home": claim()},
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "claim without a word": Row(
        StartStage.SCHEDULING,
        "its volume is not there yet",
        unschedulable(UNBOUND),
        claims={"ws-home": claim()},
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "claim that was troubled and is bound": Row(
        StartStage.SCHEDULING,
        "looking for a node",
        pod(node=None),
        [event("ProvisioningFailed", "out of space", "claim")],
        claims={"ws-home": claim("Bound")},
    ),
    "volume that is gone": Row(
        StartStage.SCHEDULING,
        "the volume behind ws-home is gone",
        pod(node=None),
        claims={"ws-home": claim("Lost")},
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    # ------------------------------------------------------------------ images
    "pulling": Row(
        StartStage.PULLING,
        "pulling image registry/dev:1",
        pod(**waiting("ContainerCreating")),
        [event("Pulling", 'Pulling image "registry/dev:1"')],
    ),
    "pulled": Row(
        StartStage.PREPARING,
        "starting on node node1",
        pod(**waiting("ContainerCreating")),
        [event("Pulling", 'Pulling image "x"', seconds=-2), event("Pulled", seconds=-1)],
    ),
    "bad name": Row(
        StartStage.PULLING,
        "'registry/dev:1' is no valid name of an image",
        pod(**waiting("InvalidImageName", "couldn't parse image reference")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no such image": Row(
        StartStage.PULLING,
        "image registry/dev:1 does not exist: correct the image of the blueprint",
        pod(**waiting("ErrImagePull", PULL + "manifest for registry/dev:1 not found: manifest unknown")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no such image, as Docker Hub says it": Row(
        StartStage.PULLING,
        "does not exist, or the cluster may not pull it",
        pod(**waiting("ErrImagePull", PULL + "pull access denied for x, repository does not exist")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no access": Row(
        StartStage.PULLING,
        "the cluster may not pull image registry/dev:1: ask an operator for a pull secret",
        pod(**waiting("ErrImagePull", PULL + "unauthorized: authentication required")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no registry, once": Row(
        StartStage.PULLING,
        "the registry of image registry/dev:1 does not answer",
        pod(**waiting("ErrImagePull", PULL + "Get https://registry/v2/: dial tcp: lookup: no such host")),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "no registry, again": Row(
        StartStage.PULLING,
        "the registry of image registry/dev:1 does not answer",
        pod(**waiting("ImagePullBackOff", "")),
        [event("Failed", PULL + "dial tcp: connection refused")],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no such image, told by an event before the status": Row(
        StartStage.PULLING,
        "image registry/dev:2 does not exist",
        pod(**waiting("PodInitializing")),
        [
            event("Pulling", 'Pulling image "registry/dev:2"', seconds=-3),
            event("Failed", f'Failed to pull image "registry/dev:2": {PULL}manifest unknown', seconds=-2),
            event("Failed", "Error: ErrImagePull", seconds=-1),
        ],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "bad name, told by an event before the status": Row(
        StartStage.PULLING,
        "'UPPER:1' is no valid name of an image",
        pod(**waiting("PodInitializing")),
        [event("InspectFailed", 'Failed to apply default image tag "UPPER:1": invalid reference format')],
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "an event of another failure": Row(
        StartStage.PREPARING,
        "starting on node node1",
        pod(**waiting("ContainerCreating")),
        [event("Failed", "Failed to create pod sandbox: timeout")],
    ),
    "not on the node": Row(
        StartStage.PULLING,
        "is not on the node, and may not be pulled",
        pod(**waiting("ErrImageNeverPull", "not present with pull policy of Never")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "another trouble with the image": Row(
        StartStage.PULLING,
        "image registry/dev:1 cannot be pulled: disk is full",
        pod(**waiting("ErrImagePull", PULL + "disk is full")),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    # ------------------------------------------------------------------ containers
    "no secret": Row(
        StartStage.PREPARING,
        "the secret db that it needs does not exist: ask an operator to create it",
        pod(**waiting("CreateContainerConfigError", 'secret "db" not found')),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no configmap": Row(
        StartStage.PREPARING,
        "the configmap tools that it needs does not exist",
        pod(**waiting("CreateContainerConfigError", 'configmap "tools" not found')),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no key": Row(
        StartStage.PREPARING,
        "the secret ns/db has no key password",
        pod(**waiting("CreateContainerConfigError", "couldn't find key password in Secret ns/db")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "root where there must be none": Row(
        StartStage.PREPARING,
        "its image runs as root, which this cluster forbids",
        pod(**waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "no such device": Row(
        StartStage.PREPARING,
        "its container cannot be made: no such device",
        pod(**waiting("CreateContainerError", PULL + "no such device.")),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "a slow runtime": Row(
        StartStage.PREPARING,
        "context deadline exceeded",
        pod(**waiting("CreateContainerError", "context deadline exceeded")),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "bundle is copied": Row(
        StartStage.PREPARING,
        "preparing the workspace's container",
        pod(initContainerStatuses=[container("fairlead-bundle", **RUNNING)], **waiting("PodInitializing")),
    ),
    "bundle was copied": Row(
        StartStage.PREPARING,
        "starting the workspace's container",
        pod(initContainerStatuses=[DONE], **waiting("PodInitializing")),
    ),
    "bundle was not copied, once": Row(
        StartStage.PREPARING,
        "init container fairlead-bundle ended with status 1 while it was starting and said: /etc/x cannot",
        pod(initContainerStatuses=[container("fairlead-bundle", terminated=CRASH)]),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "bundle ran out of memory, again": Row(
        StartStage.PREPARING,
        "init container fairlead-bundle ran out of memory while it was starting: raise resources.limits",
        pod(
            initContainerStatuses=[
                container("fairlead-bundle", 1, OOM, waiting={"reason": "CrashLoopBackOff"})
            ]
        ),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "crash, once": Row(
        StartStage.PREPARING,
        "the workspace ended with status 1",
        pod(containerStatuses=[container(terminated=CRASH)]),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "crash, and it is tried again": Row(
        StartStage.STARTED,
        "waiting for the workspace to answer",
        pod(containerStatuses=[container(restarts=1, last=CRASH, **RUNNING)]),
    ),
    "crash loop": Row(
        StartStage.PREPARING,
        "the workspace ended with status 1 while it was starting and said: /etc/x cannot be read",
        pod(**waiting("CrashLoopBackOff", "back-off 10s", restarts=1, last=CRASH)),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "crash loop by signal": Row(
        StartStage.PREPARING,
        "the workspace was ended by signal 11",
        pod(**waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 139, "reason": "Error"})),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "command that is not there": Row(
        StartStage.PREPARING,
        "the workspace cannot be run (status 127)",
        pod(
            **waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 127, "reason": "ContainerCannotRun"})
        ),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    "out of memory": Row(
        StartStage.PREPARING,
        "the workspace ran out of memory while it was starting: raise resources.limits.memory in the",
        pod(containerStatuses=[container(restarts=1, terminated=OOM)]),
        prognosis=Prognosis.NEEDS_CHANGE,
    ),
    # ------------------------------------------------------------------ mounts
    "mount without secret": Row(
        StartStage.PREPARING,
        "the secret ws that it needs does not exist",
        pod(**waiting("ContainerCreating")),
        [event("FailedMount", 'MountVolume.SetUp failed for volume "trust" : secret "ws" not found')],
        prognosis=Prognosis.NEEDS_CAPACITY,
    ),
    "mount that fails": Row(
        StartStage.PREPARING,
        "volume pvc-1 cannot be mounted: mount failed: exit status 32",
        pod(**waiting("PodInitializing")),
        [event("FailedMount", 'MountVolume.SetUp failed for volume "pvc-1" : mount failed: exit status 32')],
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "volume on another node": Row(
        StartStage.PREPARING,
        "its volume is still attached to another node",
        pod(**waiting("ContainerCreating")),
        [event("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used')],
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "mount that failed and went well": Row(
        StartStage.STARTED,
        "waiting for the workspace to answer",
        pod(containerStatuses=[container(**RUNNING)]),
        [event("FailedMount", "timed out")],
    ),
    # ------------------------------------------------------------------ nodes
    "node that is silent": Row(
        StartStage.ENDING,
        "node node1 does not answer: an operator must repair or remove it; the home is safe",
        pod(conditions=[{"type": "Ready", "status": "False"}], containerStatuses=[container(**RUNNING)]),
        [event("NodeNotReady", "Node is not ready")],
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "node that was silent": Row(
        StartStage.READY,
        "is ready",
        pod(conditions=READY, containerStatuses=[container(**RUNNING)]),
        [event("NodeNotReady", "Node is not ready")],
    ),
    "node that was given up": Row(
        StartStage.ENDING,
        "node node1 does not answer",
        pod(reason="NodeLost", message="Node which was running pod is unresponsive"),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "pod that cannot end": Row(
        StartStage.ENDING,
        "its pod cannot end because node node1 does not answer: an operator must repair or remove the node",
        pod(metadata={"deletionTimestamp": at(-31)}),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "evicted": Row(
        StartStage.ENDING,
        "its pod was evicted and is made anew: The node was low on resource: memory",
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory. "),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "refused by its node": Row(
        StartStage.ENDING,
        "its pod failed (OutOfcpu) and is made anew",
        pod(phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
        prognosis=Prognosis.MAY_RECOVER,
    ),
    "pre-empted": Row(
        StartStage.ENDING,
        "it made way for something more important",
        pod(metadata={"deletionTimestamp": at(5)}),
        [event("Preempted", "by ns/other on node node1")],
    ),
    "driven out": Row(
        StartStage.ENDING,
        "node node1 does not answer, or is being emptied",
        pod(metadata={"deletionTimestamp": at(5)}),
        [event("TaintManagerEviction", "Marking for deletion")],
    ),
    # ------------------------------------------------------------------ well
    "started": Row(
        StartStage.STARTED,
        "waiting for the workspace to answer",
        pod(containerStatuses=[container(**RUNNING)]),
    ),
    "ready": Row(
        StartStage.READY,
        "is ready",
        pod(conditions=READY, initContainerStatuses=[DONE], containerStatuses=[container(**RUNNING)]),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_the_cluster_says_becomes_a_sentence(name: str) -> None:
    row = ROWS[name]
    diagnosis = judge(Situation(row.stateful_set, row.pod, row.claims, row.events, NOW))
    assert (diagnosis.stage, diagnosis.prognosis) == (row.stage, row.prognosis), diagnosis
    assert row.sentence in diagnosis.sentence
    assert diagnosis.is_final == (row.prognosis is Prognosis.NEEDS_CHANGE)
    if row.prognosis is not Prognosis.OK:
        assert diagnosis.detail, "the operator wants Kubernetes' own words"


@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if row.prognosis is Prognosis.NEEDS_CHANGE]
)
def test_a_sentence_is_one_line_of_bounded_length(name: str) -> None:
    row = ROWS[name]
    noise = "x" * 5_000 + "\n" * 3
    events = [{**one, "message": one["message"] + noise} for one in row.events]
    sentence = judge(Situation(row.stateful_set, row.pod, row.claims, events, NOW)).sentence
    assert "\n" not in sentence
    assert len(sentence) < 600


@pytest.mark.parametrize(
    ("diagnosis", "phase"),
    [
        (Diagnosis(StartStage.STOPPED, ""), WorkspacePhase.STOPPED),
        (Diagnosis(StartStage.ENDING, ""), WorkspacePhase.STOPPING),
        (Diagnosis(StartStage.PULLING, ""), WorkspacePhase.STARTING),
        (Diagnosis(StartStage.PULLING, "", Prognosis.NEEDS_CHANGE), WorkspacePhase.FAILED),
        (Diagnosis(StartStage.SCHEDULING, "", Prognosis.NEEDS_CAPACITY), WorkspacePhase.FAILED),
        (Diagnosis(StartStage.READY, ""), WorkspacePhase.RUNNING),
    ],
)
def test_the_same_in_the_words_of_every_backend(diagnosis: Diagnosis, phase: WorkspacePhase) -> None:
    assert diagnosis.phase is phase


def test_the_newest_of_several_events_counts() -> None:
    events = [event("Pulled", seconds=-3), event("Pulling", 'Pulling image "b"', seconds=-1)]
    events.append(event("Pulled", seconds=-2))
    assert judge(Situation(stateful_set(), pod(), {}, events, NOW)).sentence == "pulling image b"


def test_the_status_of_a_required_script_is_the_one_that_shelld_exits_with() -> None:
    assert diagnosis._SCRIPT_FAILED == EX_REQUIRED
