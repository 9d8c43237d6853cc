"""Dry run of an injection: refusals of the cluster are known before a workload is changed.

The server applies the injection to the workload without keeping it, and then judges a pod of the resulting
template the same way (`dryRun=All`). Quotas are judged by what all replicas would need besides, because most
workloads end an old pod before its successor is made.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
"""

import re
from collections.abc import Sequence

import structlog

from proxy.errors.workspaces import ClusterForbidden, ClusterRefused
from proxy.workspaces.kubernetes import inject
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import Object, labels_of, listed, name_of, namespace_of

_MOST_COPIES = 32
"""Replicas that are counted against a quota."""

_NO_DRY_RUN = "does not support dry run"
_EXCEEDED = re.compile(r"exceeded quota: .*?requested: (?P<requested>.*?), used: ")
_FREED = {"pods", "count/pods"}
_log = structlog.get_logger("kubernetes")


async def try_injection(
    api: Api, workload: Object, body: Object, *, manager: str, pods: Sequence[Object]
) -> None:
    """Have the server judge the changed workload and the pods that would come of it; nothing is kept.

    `pods` are those that the workload has now. A server that cannot judge (no right to create pods, an
    admission webhook without dry runs) lets the injection pass; what it refuses later is seen in events.

    Raises: ClusterError, above all ClusterRefused with the reason.
    """
    try:
        changed = await api.apply(body, manager=manager, force=False, dry_run=True)
    except ClusterRefused as exc:
        _let_pass(workload, exc)
        return
    try:
        await _try_pods(api, {"kind": workload["kind"], **changed}, pods)
    except (ClusterForbidden, ClusterRefused) as exc:
        _let_pass(workload, exc)


def _let_pass(workload: Object, exc: ClusterForbidden | ClusterRefused) -> None:
    """Log that the server could not judge. Raises: `exc` where it judged."""
    if isinstance(exc, ClusterRefused) and _NO_DRY_RUN not in str(exc):
        raise exc
    _log.warning("injection not tried first", workload=name_of(workload), why=str(exc))


async def _try_pods(api: Api, workload: Object, pods: Sequence[Object]) -> None:
    """Create the pods in a dry run. Raises: ClusterError."""
    replicas = _replicas(workload)
    try:
        await api.create(pod_of(workload, pods), dry_run=True)
    except ClusterRefused as exc:
        if not exceeded(str(exc)) or not deletes_first(workload):
            raise
    else:
        if replicas <= 1:
            return
    try:
        await api.create(additions_of(workload, min(max(replicas, 1), _MOST_COPIES)), dry_run=True)
    except ClusterRefused as exc:
        # Only the quota is asked here: the pod as such was judged above.
        if exceeded(str(exc)) - _FREED:
            raise


def pod_of(workload: Object, pods: Sequence[Object] = ()) -> Object:
    """Return a pod as the controller of a workload would make it, owned as its `pods` are. Pure."""
    template = workload["spec"]["template"]
    metadata = template.get("metadata") or {}
    owners = next((listed(pod, "metadata", "ownerReferences") for pod in pods), [])
    spec = dict(template["spec"])
    claims = [name_of(one) for one in listed(workload, "spec", "volumeClaimTemplates")]
    spec["volumes"] = [
        *(one for one in spec.get("volumes") or [] if one["name"] not in claims),
        *(
            {"name": one, "persistentVolumeClaim": {"claimName": f"{one}-{name_of(workload)}-0"}}
            for one in claims
        ),
    ]
    return _pod(
        workload,
        spec,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        # Some rules refuse a pod without a controller.
        ownerReferences=[{**one, "blockOwnerDeletion": False} for one in owners],
    )


def additions_of(workload: Object, copies: int) -> Object:
    """Return a pod that requests from a quota as much as the injection adds to `copies` pods. Pure."""
    template = workload["spec"]["template"]
    ours = next(one for one in listed(template, "spec", "containers") if one["name"] == inject.CONTAINER)
    kept = {key: ours[key] for key in ("image", "resources", "securityContext") if key in ours}
    containers = [{"name": f"{inject.CONTAINER}-{number}", **kept} for number in range(copies)]
    return _pod(workload, {"containers": containers}, labels=labels_of({"metadata": {}, **template}))


def _pod(workload: Object, spec: Object, **metadata: object) -> Object:
    where = {"namespace": namespace_of(workload), "generateName": f"{name_of(workload)}-"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**where, **metadata}, "spec": spec}


def exceeded(message: str) -> set[str]:
    """Return the resources of an exhausted quota that a refusal names; empty for another refusal. Pure."""
    found = _EXCEEDED.search(message)
    return {part.partition("=")[0].strip() for part in found["requested"].split(",")} if found else set()


def deletes_first(workload: Object) -> bool:
    """Return whether a rollout may end a pod before it makes the successor. Pure."""
    spec = workload["spec"]
    match workload["kind"]:
        case "StatefulSet":
            return True
        case "DaemonSet":
            rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
            return not _share(rolling.get("maxSurge", 0), 100)
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    return strategy.get("type") == "Recreate" or bool(
        _share(rolling.get("maxUnavailable", "25%"), _replicas(workload))
    )


def _replicas(workload: Object) -> int:
    if workload["kind"] == "DaemonSet":
        return int((workload.get("status") or {}).get("desiredNumberScheduled") or 0)
    return int(workload["spec"].get("replicas", 1))


def _share(value: int | str, of: int) -> int:
    """Resolve a number or a percentage of a rolling update, rounded down as for `maxUnavailable`."""
    return int(value) if isinstance(value, int) else of * int(value.rstrip("%")) // 100
