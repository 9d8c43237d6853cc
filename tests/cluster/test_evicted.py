"""A pod that is gone although the cluster still says that it is ready, and the login that comes then.

The kubelet of the node that these tests were written on evicts nothing by itself. A frozen container stands
for the evicted one: its pod stays `Ready=True`, since the kernel goes on taking connections, and nothing
answers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.model import Progress
from proxy.settings.upstream import UpstreamSettings
from proxy.upstream.client import Links
from proxy.workspaces.kubernetes.endpoints import is_ready
from proxy.workspaces.reaching import reach
from tests.cluster.cluster import Cluster, request, run, silent, texts
from tests.images.docker import docker, missing

NAME = request().name


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
