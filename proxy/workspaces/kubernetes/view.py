"""A view of the workspaces of one namespace: pods and StatefulSets always, the rest during starts.

Claims and events are watched only while a start waits for a workspace, and a little longer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from proxy.aio import TaskOwner
from proxy.settings.kubernetes import KubernetesSettings
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.diagnosis import Situation
from proxy.workspaces.kubernetes.labels import ALL_WORKSPACES
from proxy.workspaces.kubernetes.manifest import claims_of
from proxy.workspaces.kubernetes.mirror import Mirror, Wakeups
from proxy.workspaces.kubernetes.objects import CLAIM, EVENT, POD, STATEFUL_SET, Object, listed, name_of

LINGER_S = 60.0
"""Claims and events are watched this long after the last one who waited."""

MAX_EVENTS = 20_000
"""Of these the newest are kept; a cluster forgets its events after an hour."""

_METADATA = {
    *("name", "namespace", "uid", "resourceVersion", "labels", "annotations"),
    *("creationTimestamp", "deletionTimestamp"),
}
_EVENT_FIELDS = {
    *("metadata", "involvedObject", "reason", "message", "type", "count"),
    *("lastTimestamp", "eventTime", "series"),
}


class ClusterView:
    """One namespace as seen from this process."""

    def __init__(self, api: Api, settings: KubernetesSettings, *, linger_s: float = LINGER_S) -> None:
        self._wakeups = Wakeups()
        self._linger_s = linger_s
        self._list_s = settings.request_timeout_s
        self._waiting = 0
        self._owner = TaskOwner("view")
        namespace = settings.namespace

        def mirror(
            query: Query,
            keep: Callable[[Object], Object],
            about: Callable[[Object], str] = name_of,
            most: int = 1_000_000,
        ) -> Mirror:
            wait_max_s = settings.retry_wait_max_s
            return Mirror(api, query, self._wakeups, wait_max_s=wait_max_s, keep=keep, about=about, most=most)

        self.claims = mirror(Query(CLAIM, namespace), _claim)
        self.pods = mirror(Query(POD, namespace, ALL_WORKSPACES), _pod)
        self.stateful_sets = mirror(Query(STATEFUL_SET, namespace, ALL_WORKSPACES), _stateful_set)
        self._events = mirror(Query(EVENT, namespace), kept_event, involved, MAX_EVENTS)

    @property
    def is_current(self) -> bool:
        """Return whether pods and StatefulSets are known as they are now."""
        return self.pods.is_current and self.stateful_sets.is_current

    async def open(self) -> bool:
        """Begin to watch; false when the cluster's first lists did not come in time."""
        self.pods.start()
        self.stateful_sets.start()
        return await self.pods.listed(self._list_s) and await self.stateful_sets.listed(self._list_s)

    async def close(self) -> None:
        """Watch no more."""
        await self._owner.close()
        for mirror in (self.pods, self.stateful_sets, self.claims, self._events):
            mirror.close()

    @asynccontextmanager
    async def waiting(self, names: Iterable[str]) -> AsyncIterator[asyncio.Event]:
        """Watch everything while inside; the event is set when something happens to one of `names`."""
        self._waiting += 1
        self._owner.cancel()  # the task that was about to end the watches
        self.claims.start()
        self._events.start()
        try:
            with self._wakeups.heard(names) as event:
                yield event
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._owner.spawn(self._rest(), name="rest")

    def situation(self, name: str) -> Situation:
        """Give all that is known of a workspace."""
        pod = self.pods.get(pod_name(name))
        stateful_set = self.stateful_sets.get(name)
        template = (stateful_set or {}).get("spec", {}).get("template", {}).get("spec", {})
        wanted = claims_of(pod["spec"] if pod else template)
        # A claim that was not heard of yet is not known to be missing.
        claims = {one: self.claims.get(one) for one in wanted} if self.claims.is_current else {}
        names = (name, pod_name(name), *wanted)
        events = [event for one in names for event in self._events.about(one)]
        return Situation(stateful_set, pod, claims, events)

    async def _rest(self) -> None:
        await asyncio.sleep(self._linger_s)
        if not self._waiting:
            self.claims.close()
            self._events.close()


def pod_name(workspace: str) -> str:
    """Name the one pod of a workspace."""
    return f"{workspace}-0"


def _pod(item: Object) -> Object:
    return {
        "metadata": _metadata(item),
        "spec": {"nodeName": item["spec"].get("nodeName"), "volumes": _claim_volumes(item["spec"])},
        "status": item.get("status") or {},
    }


def _stateful_set(item: Object) -> Object:
    template = item["spec"]["template"]["spec"]
    return {
        "metadata": _metadata(item),
        "spec": {
            "replicas": item["spec"].get("replicas"),
            "template": {"spec": {"volumes": _claim_volumes(template)}},
        },
    }


def _claim(item: Object) -> Object:
    return {"metadata": _metadata(item), "status": item.get("status") or {}}


def kept_event(item: Object) -> Object:
    """Return the fields of an event that are read. Pure."""
    return {key: value for key, value in item.items() if key in _EVENT_FIELDS}


def _metadata(item: Object) -> Object:
    return {key: value for key, value in item["metadata"].items() if key in _METADATA}


def _claim_volumes(pod_spec: Object) -> list[Object]:
    return [volume for volume in listed(pod_spec, "volumes") if "persistentVolumeClaim" in volume]


def involved(event: Object) -> str:
    """Return the name of the object that an event is about. Pure."""
    return str((event.get("involvedObject") or {}).get("name", ""))
