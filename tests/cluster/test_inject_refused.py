"""An injection that the cluster refuses: asked before anything is changed, else put back at once."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.errors.workspaces import WorkspaceUnstartable
from proxy.workspaces.kubernetes.api import Query
from proxy.workspaces.kubernetes.inject import CONTAINER, KINDS
from proxy.workspaces.kubernetes.objects import (
    CONFIG_MAP,
    POD,
    SECRET,
    Kind,
    Object,
    condition,
    name_of,
    uid_of,
)
from tests.cluster.admission import judged
from tests.cluster.cluster import STOP, Cluster, silent
from tests.cluster.test_inject import asked, program, rules, template

LIMITED = "resources: {limits: {memory: 64Mi}, requests: {memory: 64Mi}}"
RULE = "no workspaces here"


def refuses_workspaces(review: dict[str, Any]) -> str:
    names = [one["name"] for one in review["object"]["spec"]["containers"]]
    return RULE if CONTAINER in names else ""


async def pods(kube: Cluster) -> list[Object]:
    return [
        one
        for one in (await kube.api.list(Query(POD, kube.namespace))).items
        if not one["metadata"].get("deletionTimestamp")
    ]


async def until_up(kube: Cluster, count: int = 1) -> list[Object]:
    async with asyncio.timeout(90):
        while True:
            found = await pods(kube)
            if len(found) == count and all(condition(one, "Ready").get("status") == "True" for one in found):
                return found
            await asyncio.sleep(0.1)


async def until_counted(kube: Cluster, name: str, **used: str) -> None:
    quota = Kind("ResourceQuota", "resourcequotas")
    async with asyncio.timeout(30):
        while True:
            found = (await kube.api.get(quota, kube.namespace, name)).get("status", {}).get("used") or {}
            if found.items() >= used.items():
                return
            await asyncio.sleep(0.05)


async def refusal(kube: Cluster, kind: str, blueprint: str = "", **settings: Any) -> str:
    """Ask for an injection that is refused; nothing of it stays. Return the sentence."""
    before = await template(kube, kind)
    async with kube.proxy(**rules(kube), **settings) as backend:
        wanted = asked(kube, kind, blueprint=blueprint)
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(wanted, silent)
        assert await backend.list() == []
    assert await template(kube, kind) == before
    assert wanted.name not in await kube.names(SECRET) + await kube.names(CONFIG_MAP)
    return caught.value.user_message


@pytest.mark.parametrize("kind", KINDS)
async def test_an_injection_that_would_be_refused_does_not_touch_the_workload(
    kube: Cluster, tmp_path: Path, kind: str
) -> None:
    """A webhook stands for PodSecurity admission, which came with Kubernetes 1.23."""
    await program(kube, kind)
    (running,) = await until_up(kube)
    generation = (await kube.api.get(KINDS[kind], kube.namespace, "web"))["metadata"]["generation"]
    async with judged(kube, tmp_path, refuses_workspaces):
        said = await refusal(kube, kind)
    assert said == f"{kind} web was left as it is: a rule of the cluster refuses it: {RULE}"
    assert (await kube.api.get(KINDS[kind], kube.namespace, "web"))["metadata"]["generation"] == generation
    assert [uid_of(one) for one in await until_up(kube)] == [uid_of(running)]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_injection_that_is_refused_later_is_put_back_at_the_first_refusal(
    kube: Cluster, tmp_path: Path, kind: str
) -> None:
    """The webhook lets dry runs pass, as one does that knows the controllers only."""
    await program(kube, kind)
    await until_up(kube)

    def judge(review: dict[str, Any]) -> str:
        return "" if review.get("dryRun") else refuses_workspaces(review)

    async with judged(kube, tmp_path, judge):
        said = await refusal(kube, kind)
        assert said == f"{kind} web was put back as it was: a rule of the cluster refuses it: {RULE}"
        (found,) = await until_up(kube)
    assert CONTAINER not in [one["name"] for one in found["spec"]["containers"]]


async def test_a_rule_that_cannot_be_asked_first_is_noticed_when_it_refuses(
    kube: Cluster, tmp_path: Path
) -> None:
    await program(kube, "statefulset")
    await until_up(kube)
    async with judged(kube, tmp_path, refuses_workspaces, sideEffects="NoneOnDryRun"):
        assert RULE in await refusal(kube, "statefulset")
        await until_up(kube)


async def test_a_limit_range_refuses_before_the_workload_is_changed(kube: Cluster) -> None:
    limits = [{"type": "Container", "max": {"memory": "32Mi"}, "default": {"memory": "16Mi"}}]
    await program(kube, "statefulset")
    await until_up(kube)
    await kube.create("v1", "LimitRange", "small", spec={"limits": limits})
    said = await refusal(kube, "statefulset", LIMITED)
    assert re.search("left as it is: .*maximum memory usage per Container is 32Mi", said), said


async def test_a_quota_counts_what_every_replica_needs_besides(kube: Cluster) -> None:
    """Two pods need 128Mi more; 100Mi are left, which is enough for the first of them only."""
    limits = [{"type": "Container", "defaultRequest": {"memory": "16Mi"}}]
    await kube.create("v1", "LimitRange", "default", spec={"limits": limits})
    await program(kube, "statefulset", replicas=2)
    await until_up(kube, 2)
    await kube.create("v1", "ResourceQuota", "few", spec={"hard": {"requests.memory": "132Mi"}})
    await until_counted(kube, "few", **{"requests.memory": "32Mi"})
    said = await refusal(kube, "statefulset", LIMITED)
    assert re.search(r"left as it is: the quota is used up \(few, requested: requests.memory=128Mi", said), (
        said
    )


async def test_a_quota_of_pods_that_the_workload_itself_fills_refuses_no_injection(kube: Cluster) -> None:
    await program(kube, "statefulset")
    await until_up(kube)
    await kube.create("v1", "ResourceQuota", "few", spec={"hard": {"pods": "1"}})
    await until_counted(kube, "few", pods="1")
    async with kube.proxy(**rules(kube)) as backend:
        endpoint = await backend.ensure(asked(kube, "statefulset"), silent)
        assert await kube.run(endpoint, "echo in") == "in\n"


async def test_an_injection_that_no_node_has_room_for_is_put_back_after_the_patience(kube: Cluster) -> None:
    await program(kube, "statefulset")
    await until_up(kube)
    said = await refusal(kube, "statefulset", "resources: {requests: {cpu: 1000}}", patience_s=0)
    assert "statefulset web was put back as it was: no node has enough cpu left" in said
    (found,) = await until_up(kube)
    assert CONTAINER not in [one["name"] for one in found["spec"]["containers"]], name_of(found)


async def test_injected_containers_have_the_seccomp_profile_of_the_blueprint(
    kube: Cluster, tmp_path: Path
) -> None:
    """A webhook asks for what PodSecurity `restricted` asks, which came with Kubernetes 1.23."""

    def judge(review: dict[str, Any]) -> str:
        spec = review["object"]["spec"]
        lacking = [
            one["name"]
            for one in (*spec["containers"], *spec.get("initContainers", ()))
            if "fairlead" in one["name"]
            and (one["securityContext"].get("seccompProfile") or {}).get("type") != "RuntimeDefault"
        ]
        return f"no seccompProfile: {', '.join(lacking)}" if lacking else ""

    await program(kube, "deployment")
    await until_up(kube)
    async with judged(kube, tmp_path, judge), kube.proxy(**rules(kube)) as backend:
        endpoint = await backend.ensure(asked(kube, "deployment"), silent)
        assert await kube.run(endpoint, "grep Seccomp: /proc/1/status") == "Seccomp:\t2\n"
        await backend.delete(endpoint.workspace, purge=False)
        unconfined = asked(kube, "deployment", blueprint="security: {seccomp_profile: Unconfined}")
        with pytest.raises(WorkspaceUnstartable, match="no seccompProfile: fairlead-workspace"):
            await backend.ensure(unconfined, silent)


async def test_the_rights_that_the_documentation_names_are_enough_to_inject(
    kube: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text()
    block = page.partition("service account needs:\n\n")[2].partition("\n\n")[0]
    rbac = "rbac.authorization.k8s.io"
    await kube.create(f"{rbac}/v1", "Role", "fairlead", **yaml.safe_load(block))
    await kube.create(
        f"{rbac}/v1",
        "RoleBinding",
        "fairlead",
        roleRef={"apiGroup": rbac, "kind": "Role", "name": "fairlead"},
        subjects=[{"apiGroup": rbac, "kind": "User", "name": "alice"}],
    )
    await program(kube, "statefulset")
    await until_up(kube)
    async with kube.proxy(context="alice", **rules(kube)) as backend:
        endpoint = await backend.ensure(asked(kube, "statefulset"), silent)
        assert [one async for one in backend.logs(endpoint.workspace, follow=False, tail=1)]
        await backend.stop(endpoint.workspace, STOP)
    assert "injection not tried first" not in capsys.readouterr().out
    assert endpoint.workspace not in await kube.names(SECRET) + await kube.names(CONFIG_MAP)
