"""A pod that is gone although the cluster still says that it is ready, and the login that comes then.

kubelet ends a pod for its deadline as it does for an eviction: it kills the containers, then says that the
pod failed. It is given a deadline here because no limit of storage is enforced by a node whose
`/stats/summary` lists no pods, as one with cgroups of both versions. The eviction API, which `kubectl drain`
uses, is real.

The moment before kubelet says so is too short to hit. A frozen container stretches it: its pod stays
`Ready=True`, since the kernel goes on taking connections, and nothing answers.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from proxy.errors.workspaces import ClusterRefused
from proxy.model import Endpoint, Progress
from proxy.settings.upstream import UpstreamSettings
from proxy.upstream.client import Links
from proxy.workspaces.kubernetes.api import _Request
from proxy.workspaces.kubernetes.backend import KubernetesBackend
from proxy.workspaces.kubernetes.endpoints import is_ready
from proxy.workspaces.kubernetes.objects import POD, is_going
from proxy.workspaces.kubernetes.view import pod_name
from proxy.workspaces.reaching import reach
from tests.cluster.cluster import Cluster, request, run, silent, texts
from tests.images.docker import docker, missing

NAME = request().name
MARK = "/var/tmp/old"


@asynccontextmanager
async def frozen(kube: Cluster) -> AsyncIterator[None]:
    """Freeze a workspace's container while inside."""
    if reason := missing():
        pytest.skip(reason)
    status = next(one for one in (await kube.pod(NAME))["status"]["containerStatuses"])
    container = status["containerID"].rpartition("/")[2]
    if not docker("ps", "-q", "--filter", f"id={container}", check=False):
        pytest.skip("needs a node that runs containers in this dockerd")
    docker("pause", container)
    try:
        yield
    finally:
        docker("unpause", container, check=False)


async def test_a_login_to_a_pod_that_kubelet_has_ended_gets_the_next_one_and_reads_so(kube: Cluster) -> None:
    async with logins(kube) as (backend, links, told):
        old = await backend.ensure(request(), silent)
        await mark(kube, old)
        await kube.api.merge(POD, kube.namespace, pod_name(NAME), {"spec": {"activeDeadlineSeconds": 1}})
        await until_dead(old)
        assert await log_in(backend, links, told) == "anew\n"
    assert "is ready" in texts(told)[-1]
    assert any(text.startswith("starting on node ") for text in texts(told)), "not the dead pod"


async def test_a_login_after_an_eviction_by_the_api_waits_for_the_next_pod_and_says_so(kube: Cluster) -> None:
    async with logins(kube) as (backend, links, told):
        old = await backend.ensure(request(), silent)
        await mark(kube, old)
        await evict(kube)
        async with asyncio.timeout(60):
            while (pod := backend._view.pods.get(pod_name(NAME))) is not None and not is_going(pod):
                await asyncio.sleep(0.02)
        assert await log_in(backend, links, told) == "anew\n"
    assert "waiting for the previous pod to end" in texts(told)


@asynccontextmanager
async def logins(kube: Cluster) -> AsyncIterator[tuple[KubernetesBackend, Links, list[Progress]]]:
    """Give a backend, links whose deadline is longer than any test, and what people are told."""
    links = Links(UpstreamSettings(connect_timeout_s=3600), "p1", kube.keeper)
    async with kube.proxy() as backend:
        yield backend, links, []
    await links.close()


async def mark(kube: Cluster, old: Endpoint) -> None:
    """Leave a file in a pod that no other pod has.

    Its address tells nothing: a node may give it to the next pod at once, so that a connection to the old
    pod is answered by the new one, which has the same name and certificate.
    """
    links = Links(UpstreamSettings(), "marking", kube.keeper)
    await run(links, old, f"touch {MARK}")
    await links.close()


async def log_in(backend: KubernetesBackend, links: Links, told: list[Progress]) -> str:
    """Log in and run a command, which says whether the pod is a new one."""
    began = time.monotonic()
    async with asyncio.timeout(120):
        link = await reach(backend, links, request(), told.append)  # type: ignore[arg-type]
    print(f"in after {time.monotonic() - began:.1f} s: {texts(told)}")
    return await run(links, link.endpoint, f"test -e {MARK} && echo the old pod || echo anew")


async def evict(kube: Cluster) -> None:
    """Evict the pod as `kubectl drain` does; servers before 1.22 know the older name of the API alone."""
    path = POD.path(kube.namespace, pod_name(NAME), "eviction")
    for version in ("policy/v1", "policy/v1beta1"):
        body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod_name(NAME)}}
        with suppress(ClusterRefused if version == "policy/v1" else ()):
            await kube.api._ask(_Request("POST", path, [], body))
            return


async def until_dead(endpoint: Endpoint) -> None:
    """Wait until nothing listens at an address any more."""
    async with asyncio.timeout(60):
        while True:
            try:
                host, port = endpoint.address.removeprefix("ipv4:").split(":")
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def test_a_login_turns_from_a_dead_address_to_the_new_pod_and_says_so(kube: Cluster) -> None:
    """The deadline of the connection is longer than the test: only another look finds the new pod."""
    told: list[Progress] = []
    links = Links(UpstreamSettings(connect_timeout_s=3600), "p1", kube.keeper)
    async with kube.proxy() as backend:
        old = await backend.ensure(request(), silent)
        async with asyncio.timeout(60):
            while not is_ready(await kube.pod(NAME)):
                await asyncio.sleep(0.1)
        async with frozen(kube):
            reaching = asyncio.ensure_future(
                reach(backend, links, request(), told.append)  # type: ignore[arg-type]
            )
            async with asyncio.timeout(60):
                while not any("does not answer yet" in text for text in texts(told)):
                    await asyncio.sleep(0.05)
            assert is_ready(await kube.pod(NAME)), "the cluster has not noticed"
            await kube.kill(NAME)
            async with asyncio.timeout(120):
                link = await reaching
        assert link.endpoint.generation != old.generation
        assert await run(links, link.endpoint, "echo anew") == "anew\n"
    await links.close()
