"""Objects of Kubernetes as it writes them: plain dictionaries, and the kinds of them that we know.

Plain, because a model of every kind costs more than it tells: what the server defaults, adds and will
add in later releases passes through untouched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object, and where the API serves it."""

    name: str
    plural: str
    api: str = "v1"

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:
        """Give the path of a collection, an object, or a subresource."""
        root = f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"
        where = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{where}/{self.plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")


POD = Kind("Pod", "pods")
SERVICE = Kind("Service", "services")
CONFIG_MAP = Kind("ConfigMap", "configmaps")
SECRET = Kind("Secret", "secrets")
CLAIM = Kind("PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("Event", "events")
STATEFUL_SET = Kind("StatefulSet", "statefulsets", "apps/v1")
DEPLOYMENT = Kind("Deployment", "deployments", "apps/v1")
DAEMON_SET = Kind("DaemonSet", "daemonsets", "apps/v1")
NETWORK_POLICY = Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io/v1")
CERTIFICATE = Kind("Certificate", "certificates", "cert-manager.io/v1")


def kind_of(body: Object) -> Kind:
    """Find the kind that an object says it is."""
    plural = str(body["kind"]).lower()
    plural = plural[:-1] + "ie" if plural.endswith("y") else plural + "e" * plural.endswith("s")
    plural += "s"
    return Kind(body["kind"], plural, body["apiVersion"])


def namespace_of(body: Object) -> str:
    """Return the namespace of an object; empty for one without a namespace."""
    return str(body["metadata"].get("namespace", ""))


def name_of(body: Object) -> str:
    """Return the name of an object."""
    return str(body["metadata"]["name"])


def uid_of(body: Object) -> str:
    """Return the uid of an object; empty before the server has made it."""
    return str(body["metadata"].get("uid", ""))


def labels_of(body: Object) -> dict[str, str]:
    """Return the labels of an object."""
    return body["metadata"].get("labels") or {}


def annotations_of(body: Object) -> dict[str, str]:
    """Return the annotations of an object."""
    return body["metadata"].get("annotations") or {}


def is_going(body: Object) -> bool:
    """Return whether it is being deleted."""
    return bool(body["metadata"].get("deletionTimestamp"))


def made_at(body: Object) -> datetime:
    """Return the time of creation; the epoch when there is none."""
    return moment(body["metadata"].get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)


def moment(text: str | None) -> datetime | None:
    """Read a time as Kubernetes writes it; None for none, and for an invalid one."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def condition(body: Object, kind: str) -> Object:
    """Find a condition of an object's status; empty when it has none of that type."""
    return next((one for one in listed(body, "status", "conditions") if one.get("type") == kind), {})


def listed(body: Object, *path: str) -> list[Object]:
    """Follow keys to a list; an empty one when a key is missing."""
    found: Any = body
    for key in path:
        found = (found or {}).get(key)
    return found or []


def container_statuses(pod: Object) -> Iterator[tuple[str, Object]]:
    """Give every container's status in the order they start, and whether it is an `init` or a `main` one."""
    for status in listed(pod, "status", "initContainerStatuses"):
        yield "init", status
    for status in listed(pod, "status", "containerStatuses"):
        yield "main", status
