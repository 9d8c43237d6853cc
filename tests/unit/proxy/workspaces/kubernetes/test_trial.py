"""What is asked of the server before an injection, and what its answers mean."""

from typing import Any

import pytest

from proxy.workspaces.kubernetes.trial import additions_of, deletes_first, exceeded, pod_of


def workload(kind: str = "StatefulSet", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "web", "image": "web:1"}, {"name": "fairlead-workspace", "image": "web:1"}]
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": containers, "volumes": [{"name": "data", "emptyDir": {}}]},
    }
    metadata = {"name": "web", "namespace": "shop", "uid": "u"}
    return {"kind": kind, "metadata": metadata, "spec": {"replicas": 4, "template": template, **spec}}


def rolling(**given: Any) -> dict[str, Any]:
    return {"rollingUpdate": given}


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("StatefulSet", {}, True),
        ("DaemonSet", {}, True),
        ("DaemonSet", {"updateStrategy": rolling(maxSurge="10%", maxUnavailable=0)}, False),
        ("Deployment", {}, True),
        ("Deployment", {"replicas": 1, "strategy": rolling(maxUnavailable="25%")}, False),
        ("Deployment", {"strategy": rolling(maxUnavailable=0)}, False),
        ("Deployment", {"replicas": 1, "strategy": {"type": "Recreate"}}, True),
    ],
)
def test_whether_a_rollout_ends_a_pod_before_it_makes_another(
    kind: str, spec: dict[str, Any], expected: bool
) -> None:
    assert deletes_first(workload(kind, **spec)) is expected


def test_the_pod_that_is_asked_about_has_the_volumes_and_the_owner_of_its_controller() -> None:
    owner = {"kind": "StatefulSet", "name": "web", "controller": True, "blockOwnerDeletion": True}
    old = {"metadata": {"name": "web-0", "ownerReferences": [owner]}}
    pod = pod_of(workload(volumeClaimTemplates=[{"metadata": {"name": "data"}}]), [old])
    assert pod["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}
    ], "a claim template replaces the volume of its name, as the controller does"
    assert pod["metadata"]["ownerReferences"] == [{**owner, "blockOwnerDeletion": False}]
    assert (pod["metadata"]["namespace"], pod["metadata"]["labels"]) == ("shop", {"app": "web"})


def test_a_quota_is_asked_for_what_is_added_once_for_each_pod() -> None:
    names = [one["name"] for one in additions_of(workload(), 2)["spec"]["containers"]]
    assert names == ["fairlead-workspace-0", "fairlead-workspace-1"]


def test_only_a_quota_that_is_used_up_names_resources() -> None:
    said = (
        'pods "web-x" is forbidden: exceeded quota: few, requested: pods=1,requests.memory=64Mi, '
        "used: pods=1,requests.memory=0, limited: pods=1,requests.memory=10Mi"
    )
    assert exceeded(said) == {"pods", "requests.memory"}
    assert exceeded('pods "web-x" is forbidden: failed quota: few: must specify requests.memory') == set()
