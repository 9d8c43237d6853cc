"""Events of one workload and its pods while a workspace is injected, from before the workload is changed.

A pod that the cluster refuses to make is reported by an event about the controller of the pods: the workload
itself, or for a Deployment its ReplicaSet.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from proxy.settings.kubernetes import KubernetesSettings
from proxy.workspaces.kubernetes import explanations
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.diagnosis import Diagnosis, Prognosis, StartStage, event_order
from proxy.workspaces.kubernetes.mirror import Mirror, Wakeups
from proxy.workspaces.kubernetes.objects import EVENT, Object, name_of, namespace_of, uid_of
from proxy.workspaces.kubernetes.trial import exceeded
from proxy.workspaces.kubernetes.view import MAX_EVENTS, involved, kept_event


class Rollout:
    """The state of one workload and its pods, according to the cluster."""

    def __init__(self, workload: Object, events: Mirror) -> None:
        self._workload = workload
        self._events = events
        self._older = {_identity(one) for one in events.all()}

    def refusals(self) -> list[Diagnosis]:
        """Return the reasons for which the cluster refuses pods since the workload was changed.

        A quota that is used up counts while it is the last word: the pod that was ended for its successor is
        counted for a moment longer.
        """
        new = [
            one
            for one in self._events.all()
            if one.get("reason") in {"FailedCreate", "SuccessfulCreate"}
            and self._is_about(one)
            and _identity(one) not in self._older
        ]
        new.sort(key=event_order, reverse=True)
        failed = [(_message(one), one is new[0]) for one in new if one["reason"] == "FailedCreate"]
        final = [message for message, _ in failed if not exceeded(message)]
        passing = [message for message, is_last in failed if exceeded(message) and is_last]
        return [
            Diagnosis(StartStage.CREATING, explanations.creation_problem(message), prognosis, message)
            for prognosis, messages in ((Prognosis.NEEDS_CHANGE, final), (Prognosis.NEEDS_CAPACITY, passing))
            for message in messages[:1]
        ]

    def about(self, pod: Object, containers: Sequence[str]) -> list[Object]:
        """Return the events about a pod, but for those about other containers than these."""
        return [
            one for one in self._events.about(name_of(pod)) if not (of := _container(one)) or of in containers
        ]

    def _is_about(self, event: Object) -> bool:
        about = event.get("involvedObject") or {}
        if about.get("uid") == uid_of(self._workload):
            return True
        is_deployment = self._workload["kind"] == "Deployment"
        owner, _, _ = str(about.get("name") or "").rpartition("-")
        return is_deployment and about.get("kind") == "ReplicaSet" and owner == name_of(self._workload)


@asynccontextmanager
async def watching(api: Api, settings: KubernetesSettings, workload: Object) -> AsyncIterator[Rollout]:
    """Watch the events of a workload's namespace while inside.

    A cluster that does not let us see events within `request_timeout_s` is not waited for.
    """
    events = Mirror(
        api,
        Query(EVENT, namespace_of(workload)),
        Wakeups(),
        wait_max_s=settings.retry_wait_max_s,
        keep=kept_event,
        about=involved,
        most=MAX_EVENTS,
    )
    events.start()
    try:
        await events.listed(settings.request_timeout_s)
        yield Rollout(workload, events)
    finally:
        events.close()


def _message(event: Object) -> str:
    return str(event.get("message") or "")


def _identity(event: Object) -> tuple[str, str]:
    """Tell an event from a repetition of it, which is the same object in a newer version."""
    return uid_of(event), str(event["metadata"].get("resourceVersion", ""))


def _container(event: Object) -> str:
    """Name the container that an event is about; empty for the pod as a whole."""
    path = str((event.get("involvedObject") or {}).get("fieldPath") or "")
    return path.partition("{")[2].removesuffix("}")
