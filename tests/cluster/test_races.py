"""Many at once, and faults of the cluster and of the way to it: everything converges, nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.errors.upstream import UpstreamError
from proxy.errors.workspaces import WorkspaceStartFailed
from proxy.model import Endpoint, Progress
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import CLAIM, NETWORK_POLICY, POD, STATEFUL_SET, uid_of
from tests.cluster.cluster import STOP, Cluster, request, silent, texts
from tests.fakes.apiserver import Fault, Front, cut, hang, serving, status, stream

HOME = "storages: {home: {kind: home, size: 1Gi}}"
NAME = request().name


async def test_twenty_first_connections_through_two_proxies_are_one_workspace(kube: Cluster) -> None:
    await kube.add_volume()
    async with kube.proxy() as one, kube.proxy() as other:
        endpoints = await asyncio.gather(
            *(backend.ensure(request(HOME), silent) for backend in (one, other) for _ in range(10))
        )
        assert len(set(endpoints)) == 1
        said = await asyncio.gather(*(kube.run(endpoint, "echo in") for endpoint in endpoints))
        assert said == ["in\n"] * 20
        assert await kube.names(POD) == [f"{NAME}-0"]
        assert await kube.names(CLAIM) == [f"{NAME}-home"]
        restarts = (await kube.pod(NAME))["status"]["containerStatuses"][0]["restartCount"]
        assert restarts == 0


async def test_starts_stops_and_deletes_at_once_converge(kube: Cluster) -> None:
    """Whatever the order, whoever asks last gets in, and the home is there."""
    await kube.add_volume()
    async with kube.proxy() as one, kube.proxy() as other:
        await kube.run(await one.ensure(request(HOME), silent), "echo kept > kept")
        results = await asyncio.gather(
            one.stop(NAME, STOP),
            other.ensure(request(HOME), silent),
            other.stop(NAME, STOP),
            one.ensure(request(HOME), silent),
            return_exceptions=True,
        )
        for result in results:
            assert result is None or isinstance(result, Endpoint | WorkspaceStartFailed), result
        deleting = asyncio.ensure_future(one.delete(NAME, purge=False))
        await asyncio.sleep(0.1)
        endpoint = await other.ensure(request(HOME), silent)
        await deleting
        endpoint = await other.ensure(request(HOME), silent)
        assert await kube.run(endpoint, "cat kept") == "kept\n"


async def test_a_workspace_that_answers_has_its_network_policy_whatever_was_deleted_meanwhile(
    kube: Cluster,
) -> None:
    async with kube.proxy() as backend:
        starting = asyncio.ensure_future(backend.ensure(request(), silent))
        async with asyncio.timeout(60):
            while not await kube.names(POD):
                await asyncio.sleep(0.02)
        assert await kube.names(NETWORK_POLICY) == [NAME]
        await kube.api.delete(NETWORK_POLICY, kube.namespace, NAME)
        assert not starting.done(), "the deletion came too late to be a race"
        await starting
        assert await kube.names(NETWORK_POLICY) == [NAME]


async def test_a_pod_that_is_ending_is_waited_for(kube: Cluster) -> None:
    told: list[Progress] = []
    async with kube.proxy() as backend:
        old = await backend.ensure(request(), silent)
        await kube.api.delete(POD, kube.namespace, f"{NAME}-0")
        async with asyncio.timeout(60):
            while (new := await backend.ensure(request(), told.append)).generation == old.generation:
                await asyncio.sleep(0.02)
        assert await kube.run(new, "echo in") == "in\n"
    assert any("previous pod" in text or "waiting for the cluster" in text for text in texts(told))


async def test_a_container_that_ends_by_itself_is_another_generation_of_the_same_pod(kube: Cluster) -> None:
    async with kube.proxy() as backend:
        old = await backend.ensure(request("account: root"), silent)
        pod = uid_of(await kube.pod(NAME))
        with suppress(UpstreamError, AssertionError):
            await kube.run(old, "kill -TERM 1; sleep 60")
        async with asyncio.timeout(60):
            while (new := await backend.ensure(request(), silent)).generation == old.generation:
                await asyncio.sleep(0.05)
        assert uid_of(await kube.pod(NAME)) == pod
        assert await kube.run(new, "echo in") == "in\n"


# ---------------------------------------------------------------------------- faults on the way


@pytest.fixture
async def front(kube: Cluster, tmp_path: Path) -> AsyncIterator[Front]:
    """The way to the API server, which can be made to misbehave; `kube.kubeconfig` leads through it."""
    api = Api(kube.settings())
    client = await api._open()
    headers: dict[str, str] = {}
    await client.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
    door = Front(client.configuration.host, headers)
    async with serving(door, tmp_path) as kubeconfig:
        kube.kubeconfig = kubeconfig
        yield door
        kube.kubeconfig = None
    await door.close()
    await api.close()


def watching(request: web.Request) -> bool:
    return "watch" in request.query


def writing(request: web.Request) -> bool:
    return request.method in {"PATCH", "POST"}


def anything(request: web.Request) -> bool:
    return True


GONE = stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
FAULTS = {
    "writes are throttled": Fault(writing, status(429, headers={"Retry-After": "1"}), 4),
    "writes fail": Fault(writing, status(500, "etcdserver: leader changed"), 4),
    "writes are cut off": Fault(writing, cut, 4),
    "writes hang": Fault(writing, hang, 2),
    "somebody is faster": Fault(writing, status(409, "the object has been modified"), 3),
    "everything fails": Fault(anything, status(503), 12),
    "watches are refused": Fault(watching, status(500), 6),
    "watches are too old": Fault(watching, GONE, 8),
    "watches are forgotten": Fault(watching, status(410), 8),
    "watches are cut off": Fault(watching, stream(then="cut"), 8),
    "watches never say a word": Fault(watching, stream(then="hang"), 1_000),
    "watches are slow to begin": Fault(watching, hang, 2),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_start_survives(kube: Cluster, front: Front, fault: str) -> None:
    chosen = front.add(replace(FAULTS[fault], befell=0))
    settings: dict[str, Any] = {
        "request_timeout_s": 2,
        "retry_for_s": 6,
        "watch_timeout_s": 5,
        "recheck_s": 1,
    }
    async with kube.proxy(**settings) as backend:
        endpoint = await backend.ensure(request(), silent)
        assert await kube.run(endpoint, "echo in") == "in\n"
    assert chosen.befell


async def test_the_api_server_may_be_away_in_the_middle_of_a_start(kube: Cluster, front: Front) -> None:
    """And once a workspace runs, it is entered without the API server."""
    told: list[Progress] = []
    settings: dict[str, Any] = {"request_timeout_s": 1, "retry_for_s": 1}
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(kube.proxy(**settings))
        await backend.list()
        front.down = True
        start = asyncio.ensure_future(backend.ensure(request(), told.append))
        async with asyncio.timeout(60):
            while "does not answer" not in (texts(told) or [""])[-1]:
                await asyncio.sleep(0.05)
        front.down = False
        async with asyncio.timeout(60):
            while await kube.api.find(STATEFUL_SET, kube.namespace, NAME) is None:
                await asyncio.sleep(0.05)
        front.down = True
        front.break_watches()
        await asyncio.sleep(3)
        front.down = False
        endpoint = await start
        front.down = True
        front.break_watches()
        assert await backend.ensure(request(), silent) == endpoint
        assert await kube.run(endpoint, "echo in") == "in\n"
        front.down = False
