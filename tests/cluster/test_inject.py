"""A workspace beside a program that runs already, and the workload as it was afterwards."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.errors.programs import Refused
from proxy.errors.workspaces import WorkspaceNotFound, WorkspaceUnstartable
from proxy.model import Progress
from proxy.settings.kubernetes import InjectRule
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.kubernetes.api import Query
from proxy.workspaces.kubernetes.inject import KINDS
from proxy.workspaces.kubernetes.objects import CONFIG_MAP, POD, SECRET, Object, name_of
from proxy.workspaces.provisioner import address
from tests.cluster.cluster import IMAGE, STOP, Cluster, request, silent, texts, user_called


async def program(kube: Cluster, kind: str, **more: Any) -> Object:
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": IMAGE,
        "command": ["sh", "-c", "trap exit TERM; echo data > /data/file; while :; do sleep 1; done"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    spec: Object = {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "containers": [container],
                "volumes": [{"name": "data", "emptyDir": {}}],
                "terminationGracePeriodSeconds": 1,
            },
        },
        **({"serviceName": "web"} if kind == "statefulset" else {}),
        **more,
    }
    return await kube.create("apps/v1", KINDS[kind].name, "web", spec=spec)


def asked(
    kube: Cluster, kind: str, who: str = "alice", blueprint: str = "", name: str = "web"
) -> WorkspaceRequest:
    return request(blueprint, f"{who}+dev+workload={kind}/{name}+ns={kube.namespace}")


def rules(kube: Cluster, *groups: str) -> dict[str, Any]:
    return {"inject": (InjectRule(namespace=kube.namespace, groups=groups or ("*",)),)}


async def template(kube: Cluster, kind: str) -> Object:
    found: Object = (await kube.api.get(KINDS[kind], kube.namespace, "web"))["spec"]["template"]
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_a_workload_is_entered_and_left_as_it_was(kube: Cluster, kind: str) -> None:
    await program(kube, kind)
    before = await kube.api.get(KINDS[kind], kube.namespace, "web")
    told: list[Progress] = []
    async with kube.proxy(**rules(kube)) as backend:
        assert backend.features.workloads
        endpoint = await backend.ensure(asked(kube, kind), told.append)
        assert await kube.run(endpoint, "cat /data/file") == "data\n"
        assert await backend.ensure(asked(kube, kind), silent) == endpoint
        record = await backend.find(endpoint.workspace)
        assert record is not None
        assert (record.user, record.location) == ("alice", f"{kube.namespace}/{kind}/web")
        assert record in await backend.list()
        assert [line async for line in backend.logs(endpoint.workspace, follow=False, tail=1)]
        assert any(event.reason == "Started" for event in await backend.events(endpoint.workspace))
        with pytest.raises(WorkspaceUnstartable, match="holds another workspace already"):
            await backend.ensure(asked(kube, kind, who="bob"), silent)
        await backend.stop(endpoint.workspace, STOP)
        assert await backend.find(endpoint.workspace) is None
    after = await kube.api.get(KINDS[kind], kube.namespace, "web")
    assert after["spec"] == before["spec"]
    for part in ("labels", "annotations"):
        kept = {key: value for key, value in (after["metadata"].get(part) or {}).items() if "fairlead" in key}
        assert kept == {}
    assert endpoint.workspace not in await kube.names(SECRET) + await kube.names(CONFIG_MAP)
    assert any(f"in {kind} web" in text for text in texts(told))


async def test_a_later_user_of_a_name_does_not_enter_what_the_first_one_injected(kube: Cluster) -> None:
    await program(kube, "deployment")
    later = user_called("alice", id="id-of-a-later-alice", created_at=datetime.now(UTC) + timedelta(days=1))
    async with kube.proxy(**rules(kube)) as backend:
        first = asked(kube, "deployment")
        endpoint = await backend.ensure(first, silent)
        record = await backend.holder(first.name)
        assert record is not None
        assert record.owner == first.user.id
        assert await address(backend, later, first.origin, "dev") != first.name
        with pytest.raises(WorkspaceNotFound, match="no workspace"):
            await backend.ensure(replace(first, user=later), silent)
        with pytest.raises(Refused, match="has no home of its own to hand over"):
            await backend.give(first.name, later, STOP)
        assert await backend.ensure(first, silent) == endpoint


async def test_what_cannot_be_brought_up_is_taken_away_again(kube: Cluster) -> None:
    await program(kube, "deployment")
    before = await template(kube, "deployment")
    async with kube.proxy(**rules(kube)) as backend:
        broken = asked(kube, "deployment", blueprint="image: nowhere:1\nimage_pull_policy: Never")
        with pytest.raises(WorkspaceUnstartable, match="nowhere"):
            await backend.ensure(broken, silent)
        assert await backend.list() == []
    assert await template(kube, "deployment") == before
    async with asyncio.timeout(60):
        while len(pods := (await kube.api.list(Query(POD, kube.namespace))).items) != 1:
            await asyncio.sleep(0.1)
    assert "fairlead-workspace" not in str(pods[0]["spec"]), name_of(pods[0])


async def test_nobody_may_but_those_whom_the_settings_name(kube: Cluster) -> None:
    await program(kube, "deployment")
    before = await template(kube, "deployment")
    wanted = asked(kube, "deployment")
    outsider = WorkspaceRequest(
        wanted.name, user_called("alice", groups=("staff",)), wanted.blueprint, wanted.origin
    )
    async with kube.proxy(**rules(kube, "devs")) as backend:
        with pytest.raises(Refused, match=f"may not enter workloads of namespace {kube.namespace}"):
            await backend.ensure(outsider, silent)
        insider = WorkspaceRequest(
            wanted.name, user_called("alice", groups=("Devs",)), wanted.blueprint, wanted.origin
        )
        missing = asked(kube, "deployment", name="none").origin
        with pytest.raises(WorkspaceNotFound, match="no deployment 'none' in namespace"):
            await backend.ensure(
                WorkspaceRequest(wanted.name, insider.user, wanted.blueprint, missing), silent
            )
    async with kube.proxy() as backend:
        assert not backend.features.workloads
        with pytest.raises(Refused):
            await backend.ensure(insider, silent)
    assert await template(kube, "deployment") == before
