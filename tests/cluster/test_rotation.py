"""A rotation reaches workspaces that run, through Secret, kubelet and shelld, and past their programs."""

import asyncio
from datetime import timedelta

import pytest

from proxy.errors.upstream import Unreachable
from proxy.model import Exec, ProgramSpec
from proxy.settings.upstream import UpstreamSettings
from proxy.upstream.client import Links
from proxy.upstream.frames import Output
from proxy.workspaces.kubernetes.objects import SECRET, Object
from tests.cluster.cluster import Cluster, request, silent, visit

NAME = request().name
UNTIL_KUBELET_S = 240
"""kubelet looks at Secrets once a minute, more or less."""


async def secret(kube: Cluster) -> Object:
    return (await kube.api.get(SECRET, kube.namespace, NAME))["data"]


@pytest.mark.timeout(400)
async def test_a_running_workspace_takes_up_a_new_authority_and_drops_nobody(kube: Cluster) -> None:
    async with kube.proxy() as backend:
        endpoint = await backend.ensure(request(), silent)
        links = Links(UpstreamSettings(connect_timeout_s=3), "p1", kube.keeper)
        async with links.use(endpoint) as link:
            ticking = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.2; done"
            program = await link.run(ProgramSpec(Exec(ticking)), visit("alice"), "p1")
            await backend.upkeep()
            before = await secret(kube)
            await backend.upkeep()
            assert await secret(kube) == before, "nothing changes that need not"

            await kube.keeper.rotate(timedelta())  # as after a leak
            await backend.upkeep()
            after = await secret(kube)
            assert {name for name in after if after[name] != before[name]} == set(after)
            async with asyncio.timeout(UNTIL_KUBELET_S):
                while True:
                    try:
                        async with links.use(endpoint) as fresh:
                            assert fresh is not link
                            break
                    except Unreachable:
                        await asyncio.sleep(1)
            said = b""
            while not said.endswith(b"\n") or len(said) < 1000:
                frame = await program.read()
                assert isinstance(frame, Output)
                said += bytes(frame.data)
            numbers = [int(line) for line in said.split()]
            assert numbers == list(range(1, len(numbers) + 1))
            program.cancel()
        await links.close()
