"""The stage of a workspace's start, and its obstacle: a pure function of objects of Kubernetes.

The obstacle of a pod is given by its own status, by events about it, and, when there is no pod at all, by
events about its StatefulSet. The rules stand in the order in which a pod passes them; the first that
applies is reported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

from proxy.workspaces.backend import WorkspacePhase
from proxy.workspaces.kubernetes import explanations
from proxy.workspaces.kubernetes.labels import EVENTS_BEFORE, LAST_START
from proxy.workspaces.kubernetes.objects import (
    Object,
    annotations_of,
    condition,
    container_statuses,
    is_going,
    moment,
    name_of,
    uid_of,
)

LOST_AFTER_S = 30
"""A pod that should be gone for this long is held by a node that does not answer."""

_CLOCKS_DIFFER_S = 2
_SCRIPT_FAILED = 69
"""Exit status of a shelld whose required init script failed; its message is a sentence for the person."""
_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}

_NO_SANDBOX = "FailedCreatePodSandBox"
_AFTER_SANDBOX = ("Pulling", "Pulled", "Created", "Started")
_IMAGE_EVENTS = {
    "Failed": "ErrImagePull",
    "InspectFailed": "InvalidImageName",
    "ErrImageNeverPull": "ErrImageNeverPull",
}


class StartStage(Enum):
    """The steps of a start, and the states without one."""

    ABSENT = "absent"
    DELETING = "deleting"
    STOPPED = "stopped"
    CREATING = "creating"
    ENDING = "ending"
    SCHEDULING = "scheduling"
    PULLING = "pulling"
    PREPARING = "preparing"
    STARTED = "started"
    """The container runs; whether shelld answers, Kubernetes does not know yet."""
    READY = "ready"


class Prognosis(Enum):
    """The prospect of a start that waits."""

    OK = "ok"
    """Nothing is wrong."""
    MAY_RECOVER = "may recover"
    """It may pass by itself, as a node that restarts does."""
    NEEDS_CAPACITY = "needs capacity"
    """Another workspace or an operator would have to make room; that happens, but rarely."""
    NEEDS_CHANGE = "needs change"
    """It stays as it is until a user or an operator changes something."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is known of one workspace."""

    stateful_set: Object | None
    pod: Object | None = None
    claims: Mapping[str, Object | None] = field(default_factory=dict)
    """Every claim that the pod mounts, by name; None for one that does not exist."""
    events: Sequence[Object] = ()
    """About any of these, in any order."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The stage of a workspace, and the sentence that the user reads."""

    stage: StartStage
    sentence: str
    prognosis: Prognosis = Prognosis.OK
    detail: str = ""
    """What Kubernetes said, for the operator."""

    @property
    def is_final(self) -> bool:
        """Return whether waiting is of no use."""
        return self.prognosis is Prognosis.NEEDS_CHANGE

    @property
    def phase(self) -> WorkspacePhase:
        """Say the same in the words of every backend."""
        if self.prognosis in {Prognosis.NEEDS_CHANGE, Prognosis.NEEDS_CAPACITY}:
            return WorkspacePhase.FAILED
        return _PHASES.get(self.stage, WorkspacePhase.STARTING)


_PHASES = {
    StartStage.ABSENT: WorkspacePhase.STOPPED,
    StartStage.STOPPED: WorkspacePhase.STOPPED,
    StartStage.DELETING: WorkspacePhase.STOPPING,
    StartStage.ENDING: WorkspacePhase.STOPPING,
    StartStage.READY: WorkspacePhase.RUNNING,
}


def judge(situation: Situation) -> Diagnosis:
    """Return the stage and the prognosis of a workspace."""
    stateful_set, pod = situation.stateful_set, situation.pod
    if stateful_set is None:
        return Diagnosis(StartStage.ABSENT, "there is no workspace")
    if is_going(stateful_set):
        return Diagnosis(StartStage.DELETING, "the workspace is being deleted")
    if pod is not None:
        return _pod(situation, pod)
    if stateful_set["spec"].get("replicas") == 0:
        return Diagnosis(StartStage.STOPPED, "the workspace is stopped")
    return _refused(situation, stateful_set) or Diagnosis(StartStage.CREATING, "waiting for the cluster")


def _refused(situation: Situation, stateful_set: Object) -> Diagnosis | None:
    """Return the reason for which the StatefulSet's controller, which tries ever later, may make no pod."""
    event = _latest(situation.events, "FailedCreate", about=uid_of(stateful_set))
    if event is None or _is_of_earlier_start(event, stateful_set):
        return None
    message = event.get("message") or ""
    return Diagnosis(
        StartStage.CREATING, explanations.creation_problem(message), Prognosis.NEEDS_CHANGE, message
    )


def _is_of_earlier_start(event: Object, stateful_set: Object) -> bool:
    """Return whether an event is older than the last start, by its version: clocks and whole seconds differ.

    Versions of one kind can be compared; a repetition of an event has a new one. The start of an older
    release noted its time alone.
    """
    noted = annotations_of(stateful_set)
    if (before := noted.get(EVENTS_BEFORE, "")).isdecimal():
        return _version(event) <= int(before)
    since = moment(noted.get(LAST_START))
    return since is not None and _at(event) < since - timedelta(seconds=_CLOCKS_DIFFER_S)


def _pod(situation: Situation, pod: Object) -> Diagnosis:
    rules: tuple[Callable[[Situation, Object], Diagnosis | None], ...] = (
        _ending,
        _failed,
        _unscheduled,
        _troubled_container,
        _node_silent,
        _unboxed,
        _unmounted,
        _running,
        _pulling,
        _starting,
    )
    return next(diagnosis for rule in rules if (diagnosis := rule(situation, pod)))


def _ending(situation: Situation, pod: Object) -> Diagnosis | None:
    if not is_going(pod):
        return None
    due = moment(pod["metadata"]["deletionTimestamp"])  # it includes the grace period
    if due and situation.now - due > timedelta(seconds=LOST_AFTER_S):
        return Diagnosis(
            StartStage.ENDING,
            f"its pod cannot end because node {_node(pod)} does not answer: an operator must repair or "
            "remove the node; the home is safe",
            Prognosis.MAY_RECOVER,
            f"pod {name_of(pod)} should be gone since {due.isoformat()}",
        )
    why = ""
    if _latest(situation.events, "Preempted", about=uid_of(pod)):
        why = ": it made way for something more important"
    elif _latest(situation.events, "TaintManagerEviction", about=uid_of(pod)):
        why = f": node {_node(pod)} does not answer, or is being emptied"
    return Diagnosis(StartStage.ENDING, f"waiting for the previous pod to end{why}")


def _failed(_situation: Situation, pod: Object) -> Diagnosis | None:
    """Diagnose a pod that failed as a whole: its StatefulSet replaces it."""
    status = pod.get("status") or {}
    if status.get("reason") == "NodeLost":
        return _silent_node(pod, status.get("message", ""))
    if status.get("phase") != "Failed":
        return None
    reason, message = status.get("reason") or "Failed", status.get("message") or ""
    what = "was evicted" if reason == "Evicted" else f"failed ({reason})"
    sentence = f"its pod {what} and is made anew: {explanations.brief(message) or 'the node gave no reason'}"
    return Diagnosis(StartStage.ENDING, sentence, Prognosis.MAY_RECOVER, f"{reason}: {message}")


def _unscheduled(situation: Situation, pod: Object) -> Diagnosis | None:
    if pod["spec"].get("nodeName"):
        return None
    if troubled := _unclaimed(situation):
        return troubled
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("reason") != "Unschedulable":
        return Diagnosis(StartStage.SCHEDULING, "looking for a node")
    message = scheduled.get("message") or ""
    if _latest(situation.events, "TriggeredScaleUp", about=uid_of(pod)):
        return Diagnosis(
            StartStage.SCHEDULING, "a node is being added for it", Prognosis.MAY_RECOVER, message
        )
    if "unbound" in message and any(_is_on_its_way(situation, claim) for claim in situation.claims.values()):
        return Diagnosis(StartStage.SCHEDULING, "its volume is being made", Prognosis.MAY_RECOVER, message)
    return Diagnosis(
        StartStage.SCHEDULING, explanations.scheduling_problem(message), Prognosis.NEEDS_CAPACITY, message
    )


def _unclaimed(situation: Situation) -> Diagnosis | None:
    """Find a claim that keeps the pod from being placed."""
    for name, claim in situation.claims.items():
        if claim is None:
            sentence = f"the volume claim {name} does not exist: ask an operator to create it"
            return Diagnosis(
                StartStage.SCHEDULING, sentence, Prognosis.NEEDS_CHANGE, f"claim {name} not found"
            )
        phase = (claim.get("status") or {}).get("phase")
        if phase == "Lost":
            sentence = f"the volume behind {name} is gone: an operator must restore it"
            return Diagnosis(StartStage.SCHEDULING, sentence, Prognosis.NEEDS_CHANGE, f"claim {name} is lost")
        event = _latest(situation.events, "ProvisioningFailed", "FailedBinding", about=uid_of(claim))
        if phase == "Pending" and event is not None:
            message = event.get("message") or ""
            return Diagnosis(
                StartStage.SCHEDULING,
                explanations.claim_problem(name, message),
                Prognosis.NEEDS_CAPACITY,
                message,
            )
    return None


def _is_on_its_way(situation: Situation, claim: Object | None) -> bool:
    """Return whether a provisioner reported that it is making the volume."""
    return claim is not None and bool(
        _latest(situation.events, "ExternalProvisioning", "Provisioning", about=uid_of(claim))
    )


def _troubled_container(situation: Situation, pod: Object) -> Diagnosis | None:
    for role, status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason") or "", waiting.get("message") or ""
        detail = f"{status['name']}: {reason}: {message}"
        if reason in _IMAGE_REASONS:
            return _image(status["image"], reason, message or _last_words(situation, pod), detail)
        if reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
            passing = "deadline exceeded" in message or "already in use" in message
            prognosis = Prognosis.MAY_RECOVER if passing else Prognosis.NEEDS_CHANGE
            return Diagnosis(StartStage.PREPARING, explanations.config_problem(message), prognosis, detail)
        if ended := _ended(role, status):
            return ended
    return None


def _image(image: str, reason: str, message: str, detail: str) -> Diagnosis:
    sentence, is_final = explanations.image_problem(image, reason, message)
    # The node says first that a pull failed, and then that it waits before another: the second is enough.
    prognosis = Prognosis.NEEDS_CHANGE if is_final or reason == "ImagePullBackOff" else Prognosis.MAY_RECOVER
    return Diagnosis(StartStage.PULLING, sentence, prognosis, detail)


def _last_words(situation: Situation, pod: Object) -> str:
    """Return the fault of the last pull: while the node waits before another, its status has it no more."""
    useful = [event for event in situation.events if not (event.get("message") or "").startswith("Error: ")]
    event = _latest(useful, "Failed", about=uid_of(pod))
    return (event or {}).get("message") or ""


def _ended(role: str, status: Object) -> Diagnosis | None:
    """Diagnose a container that ended; the first time may be a passing fault, the second is a failure."""
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    now = state.get("terminated")
    if state.get("running") or (now and now.get("exitCode") == 0 and role == "init"):
        return None
    ended = now or last
    if not ended:
        return None
    code, reason = ended.get("exitCode", 0), ended.get("reason") or ""
    who = "the workspace" if role == "main" else f"its init container {status['name']}"
    how = explanations.ending(code, ended.get("signal") or 0, reason)
    said = explanations.last_line(ended.get("message") or "")
    again = (status.get("restartCount") or 0) > 0 and (now is not None or bool(state.get("waiting")))
    prognosis = Prognosis.NEEDS_CHANGE if again else Prognosis.MAY_RECOVER
    sentence = f"{who} {how} while it was starting" + (f" and said: {said}" if said else "")
    if advice := explanations.advice(reason):
        sentence += f": {advice}" if not said else f"; {advice}"
    if role == "main" and code == _SCRIPT_FAILED and said:
        sentence = said
    return Diagnosis(
        StartStage.PREPARING,
        sentence,
        prognosis,
        f"{status['name']}: {reason} {code}: {ended.get('message')}",
    )


def _node_silent(situation: Situation, pod: Object) -> Diagnosis | None:
    event = _latest(situation.events, "NodeNotReady", about=uid_of(pod))
    if event is None or condition(pod, "Ready").get("status") == "True":
        return None
    return _silent_node(pod, event.get("message") or "")


def _silent_node(pod: Object, message: str) -> Diagnosis:
    sentence = f"node {_node(pod)} does not answer: an operator must repair or remove it; the home is safe"
    return Diagnosis(StartStage.ENDING, sentence, Prognosis.MAY_RECOVER, message)


def _unboxed(situation: Situation, pod: Object) -> Diagnosis | None:
    """Diagnose a pod whose sandbox the node cannot make: no container has a status yet."""
    if any("waiting" not in (status.get("state") or {}) for _, status in container_statuses(pod)):
        return None
    event = _latest(situation.events, _NO_SANDBOX, *_AFTER_SANDBOX, about=uid_of(pod))
    if event is None or event["reason"] != _NO_SANDBOX:
        return None
    message = event.get("message") or ""
    sentence, is_final = explanations.sandbox_problem(_node(pod), message)
    return Diagnosis(
        StartStage.PREPARING,
        sentence,
        Prognosis.NEEDS_CAPACITY if is_final else Prognosis.MAY_RECOVER,
        message,
    )


def _unmounted(situation: Situation, pod: Object) -> Diagnosis | None:
    if any("waiting" not in (status.get("state") or {}) for _, status in container_statuses(pod)):
        return None
    reasons = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
    event = _latest(situation.events, *reasons, about=uid_of(pod))
    if event is None:
        return None
    message = event.get("message") or ""
    prognosis = Prognosis.NEEDS_CAPACITY if "not found" in message else Prognosis.MAY_RECOVER
    return Diagnosis(StartStage.PREPARING, explanations.mount_problem(message), prognosis, message)


def _running(_situation: Situation, pod: Object) -> Diagnosis | None:
    main = [status for role, status in container_statuses(pod) if role == "main"]
    if not main or not all((status.get("state") or {}).get("running") for status in main):
        return None
    if condition(pod, "Ready").get("status") == "True":
        return Diagnosis(StartStage.READY, "the workspace is ready")
    return Diagnosis(StartStage.STARTED, "waiting for the workspace to answer")


def _pulling(situation: Situation, pod: Object) -> Diagnosis | None:
    """Diagnose a pull from events, which come some seconds before the pod's own status."""
    useful = [event for event in situation.events if not (event.get("message") or "").startswith("Error: ")]
    event = _latest(useful, "Pulling", "Pulled", *_IMAGE_EVENTS, about=uid_of(pod))
    if event is None or event["reason"] == "Pulled":
        return None
    message = event.get("message") or ""
    image = message.partition('"')[2].partition('"')[0]
    if event["reason"] == "Pulling":
        return Diagnosis(StartStage.PULLING, f"pulling image {image}".rstrip(), Prognosis.OK, message)
    if event["reason"] == "Failed" and not message.startswith("Failed to pull image"):
        return None
    return _image(image, _IMAGE_EVENTS[event["reason"]], message.partition('": ')[2] or message, message)


def _starting(_situation: Situation, pod: Object) -> Diagnosis:
    init = [status.get("state") or {} for role, status in container_statuses(pod) if role == "init"]
    if init and all("terminated" in state for state in init):
        return Diagnosis(StartStage.PREPARING, "starting the workspace's container")
    if any("running" in state for state in init):
        return Diagnosis(StartStage.PREPARING, "preparing the workspace's container")
    return Diagnosis(StartStage.PREPARING, f"starting on node {_node(pod)}")


# ------------------------------------------------------------------------------------------ events


def _latest(events: Iterable[Object], *reasons: str, about: str) -> Object | None:
    """Find the newest event of these reasons about the object with that uid."""
    found = [
        event
        for event in events
        if event.get("reason") in reasons and event["involvedObject"].get("uid") == about
    ]
    return max(found, key=event_order, default=None)


def event_order(event: Object) -> tuple[datetime, int]:
    """Order events: their times are whole seconds, so that versions decide between those of one second."""
    return _at(event), _version(event)


def _version(event: Object) -> int:
    version = str(event["metadata"].get("resourceVersion") or "")
    return int(version) if version.isdecimal() else 0


def _at(event: Object) -> datetime:
    """Return the time of the last occurrence; newer reporters leave the older fields empty."""
    series = event.get("series") or {}
    for text in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")):
        if at := moment(text):
            return at
    return moment(event["metadata"].get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)


def _node(pod: Object) -> str:
    return str(pod["spec"].get("nodeName") or "unknown")
