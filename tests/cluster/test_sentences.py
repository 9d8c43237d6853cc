"""Sentences on what this cluster tells, whichever version it has; `FAIRLEAD_RECORD=1` writes that down.

What Fairlead itself does not ask of a cluster (affinity, spreading) comes from webhooks and defaults of
clusters; plain pods stand for these.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from proxy.errors.workspaces import ClusterRefused, WorkspaceUnstartable
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.kubernetes.api import Query
from proxy.workspaces.kubernetes.diagnosis import Situation, judge
from proxy.workspaces.kubernetes.labels import is_object_name
from proxy.workspaces.kubernetes.manifest import claims_of
from proxy.workspaces.kubernetes.objects import (
    CLAIM,
    EVENT,
    POD,
    STATEFUL_SET,
    Kind,
    Object,
    condition,
    name_of,
)
from proxy.workspaces.kubernetes.view import pod_name
from tests.cluster.admission import is_here
from tests.cluster.cluster import IMAGE, Cluster, request, silent
from tests.recorded import EXPECTED, save

NAME = request().name
PRESENT: Object = {"metadata": {"name": ""}, "spec": {}}
RUNTIME_CLASS = Kind("RuntimeClass", "runtimeclasses", "node.k8s.io/v1")


async def situation(kube: Cluster, pod: str, stateful_set: str = "") -> Situation:
    """Ask for all that the cluster knows of a pod, and of its StatefulSet where it has one."""
    owner = await kube.api.find(STATEFUL_SET, kube.namespace, stateful_set) if stateful_set else PRESENT
    found = await kube.api.find(POD, kube.namespace, pod)
    names = claims_of(found["spec"]) if found else []
    claims = {one: await kube.api.find(CLAIM, kube.namespace, one) for one in names}
    events = (await kube.api.list(Query(EVENT, kube.namespace))).items
    return Situation(owner, found, claims, events)


async def refused(kube: Cluster) -> WorkspaceRequest:
    """Ask for workspaces until one is refused: the API server does not enforce a new quota at once."""
    async with kube.proxy() as backend:
        for number in range(20):
            asked = request(who=f"alice+other{number}")
            try:
                await backend.ensure(asked, silent)
            except WorkspaceUnstartable:
                return asked
    pytest.fail("no workspace was refused")


async def until_said(kube: Cluster, case: str, pod: str, stateful_set: str = "") -> None:
    """Wait for the sentence of a case, and for its prognosis; record it where that is wanted."""
    prognosis, sentence = EXPECTED[case]
    last = None
    try:
        async with asyncio.timeout(100):
            while True:
                now = await situation(kube, pod, stateful_set)
                last = judge(now)
                if re.search(sentence, last.sentence) and last.prognosis is prognosis:
                    break
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"the last that was said: {last}")
    if os.environ.get("FAIRLEAD_RECORD"):
        save(await version(kube), case, now)


async def version(kube: Cluster) -> str:
    """Ask for the version of the server, as it names it."""
    client = await kube.api._open()
    answer = await client.rest_client.request("GET", f"{client.configuration.host}/version", headers={})
    return str(json.loads(await answer.response.read())["gitVersion"])


async def plain_pod(kube: Cluster, name: str = "plain", **spec: Any) -> str:
    container = {
        "name": "workspace",
        "image": IMAGE,
        "command": ["sleep", "600"],
        **spec.pop("container", {}),
    }
    labels = {"app": "plain"}
    body = {"containers": [container], "terminationGracePeriodSeconds": 0, **spec}
    metadata = {"name": name, "namespace": kube.namespace, "labels": labels}
    await kube.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})
    return name


async def start(kube: Cluster, blueprint: str) -> asyncio.Task[Any]:
    """Begin to start a workspace; that it fails is known."""

    async def attempt() -> None:
        async with kube.proxy() as backend:
            with pytest.raises(WorkspaceUnstartable):
                await backend.ensure(request(blueprint), silent)

    return asyncio.ensure_future(attempt())


async def test_a_node_selector_that_no_node_has(kube: Cluster) -> None:
    await until_said(kube, "selector", await plain_pod(kube, nodeSelector={"no.such": "node"}))


async def test_no_room(kube: Cluster) -> None:
    wanted = {"resources": {"requests": {"cpu": "1000"}}}
    await until_said(kube, "cpu", await plain_pod(kube, container=wanted))


async def test_a_volume_that_is_bound_to_another_node_is_not_blamed_on_the_blueprint(kube: Cluster) -> None:
    elsewhere = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["elsewhere"]}
    name = f"{kube.namespace}-elsewhere"
    kube.volumes.append(name)
    await kube.create(
        "v1",
        "PersistentVolume",
        name,
        spec={
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": kube.namespace,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"/tmp/{name}", "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [elsewhere]}]}},
        },
    )
    await kube.create(
        "v1",
        "PersistentVolumeClaim",
        "home",
        spec={
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": kube.namespace,
            "volumeName": name,
        },
    )
    volume = {"name": "home", "persistentVolumeClaim": {"claimName": "home"}}
    await until_said(kube, "volume-of-another-node", await plain_pod(kube, volumes=[volume]))


async def test_anti_affinity_is_not_blamed_on_the_blueprint(kube: Cluster) -> None:
    first = await plain_pod(kube, "first")
    async with asyncio.timeout(60):
        while condition(await kube.api.get(POD, kube.namespace, first), "Ready").get("status") != "True":
            await asyncio.sleep(0.1)
    term = {"labelSelector": {"matchLabels": {"app": "plain"}}, "topologyKey": "kubernetes.io/hostname"}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    await until_said(kube, "anti-affinity", await plain_pod(kube, affinity={"podAntiAffinity": rule}))


async def test_topology_is_not_blamed_on_the_blueprint(kube: Cluster) -> None:
    rule = {
        "maxSkew": 1,
        "topologyKey": "no.such/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "plain"}},
    }
    await until_said(kube, "topology", await plain_pod(kube, topologySpreadConstraints=[rule]))


@asynccontextmanager
async def empty_registry() -> AsyncIterator[str]:
    """Serve a registry that has no image, as the distribution specification has it; give its address."""

    async def answer(asked: web.BaseRequest) -> web.Response:
        if asked.path.rstrip("/") == "/v2":
            return web.json_response({})
        error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
        return web.json_response({"errors": [error]}, status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_missing_image_with_timeout_in_its_name_is_missing(kube: Cluster) -> None:
    if not await is_here(kube):
        pytest.skip("needs a node of this machine, which reaches a registry of this test")
    async with empty_registry() as registry:
        pod = await plain_pod(kube, container={"image": f"{registry}/timeout/timeout:1"})
        await until_said(kube, "image-named-timeout", pod)


async def test_a_registry_that_is_not_there_is_told_whatever_it_is_called(kube: Cluster) -> None:
    pod = await plain_pod(kube, container={"image": "denied.invalid/not-found/x:1"})
    await until_said(kube, "registry-named-denied", pod)


async def test_an_image_name_that_is_none(kube: Cluster) -> None:
    await until_said(kube, "image-name", await plain_pod(kube, container={"image": "case/UPPER:1"}))


async def runtime_pod(kube: Cluster) -> str:
    return await plain_pod(kube, runtimeClassName=kube.namespace)


async def soon(act: Callable[[], Awaitable[str]]) -> str:
    """Do something as soon as admission knows what was made a moment ago."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await act()
            except ClusterRefused:
                await asyncio.sleep(0.1)


async def test_a_sandbox_that_cannot_be_made_is_told(kube: Cluster) -> None:
    body = {"metadata": {"name": kube.namespace}, "handler": "nohandler"}
    await kube.api.create({"apiVersion": RUNTIME_CLASS.api, "kind": RUNTIME_CLASS.name, **body})
    try:
        await until_said(kube, "runtime-class", await soon(lambda: runtime_pod(kube)))
    finally:
        await kube.api.delete(RUNTIME_CLASS, "", kube.namespace)


async def test_memory_that_runs_out_is_told_with_its_advice_at_the_end(kube: Cluster) -> None:
    """Its last words would be a line of shelld's log, which is not for the person."""
    greedy = """echo '{"ts": "now", "level": "info", "message": "serving"}'; exec tail /dev/zero"""
    container = {
        "command": ["sh", "-c", greedy],
        "resources": {"limits": {"memory": "32Mi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    await until_said(kube, "out-of-memory", await plain_pod(kube, container=container))


async def test_a_quota_and_a_limit_range_refuse_in_their_words(kube: Cluster) -> None:
    limits = [{"type": "Container", "max": {"memory": "32Mi"}, "default": {"memory": "16Mi"}}]
    await kube.create("v1", "LimitRange", "small", spec={"limits": limits})
    starting = await start(kube, "resources: {limits: {memory: 64Mi}, requests: {memory: 64Mi}}")
    await until_said(kube, "limit-range", pod_name(NAME), NAME)
    await starting
    await kube.api.delete(Kind("LimitRange", "limitranges"), kube.namespace, "small")
    await kube.create("v1", "ResourceQuota", "few", spec={"hard": {"pods": "0"}})
    other = await refused(kube)
    assert is_object_name(other.name)
    await until_said(kube, "quota", pod_name(other.name), other.name)
    assert name_of(await kube.api.get(STATEFUL_SET, kube.namespace, other.name)) == other.name
