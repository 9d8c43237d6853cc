"""A real API server that restarts. FAIRLEAD_TEST_RESTART_API is a command that does so and returns when it
answers again; without it these are skipped, since a cluster that others use is not ours to restart."""

import asyncio
import os

import pytest

from proxy.model import Exec, ExitStatus, ProgramSpec, Progress
from proxy.settings.upstream import UpstreamSettings
from proxy.upstream.client import Links
from proxy.upstream.frames import Output
from tests.cluster.cluster import Cluster, request, silent, texts, visit

COMMAND = os.environ.get("FAIRLEAD_TEST_RESTART_API", "")
HOME = "storages: {home: {kind: home, size: 1Gi}}"

pytestmark = pytest.mark.skipif(
    not COMMAND, reason="needs a cluster of its own: set FAIRLEAD_TEST_RESTART_API to a command"
)


async def restart() -> None:
    process = await asyncio.create_subprocess_shell(COMMAND)
    assert await process.wait() == 0


async def test_a_start_and_a_session_survive_a_restart_of_the_api_server(kube: Cluster) -> None:
    await kube.add_volume()
    told: list[Progress] = []
    async with kube.proxy() as backend, kube.proxy() as other:
        start = asyncio.ensure_future(backend.ensure(request(HOME), told.append))
        async with asyncio.timeout(60):
            while not any("node" in text for text in texts(told)):
                await asyncio.sleep(0.05)
        await restart()
        endpoint = await start
        assert await other.ensure(request(HOME), silent) == endpoint
        links = Links(UpstreamSettings(), "p1", kube.keeper)
        async with links.use(endpoint) as link:
            slow = ProgramSpec(Exec("echo kept > kept; sleep 8; cat kept"))
            program = await link.run(slow, visit("alice"), "slow")
            async with program:
                await restart()
                said = b""
                while not isinstance(frame := await program.read(), ExitStatus):
                    if isinstance(frame, Output):
                        said += bytes(frame.data)
        await links.close()
        assert (said, frame) == (b"kept\n", ExitStatus(0))
        assert await backend.ensure(request(HOME), silent) == endpoint
        await kube.kill(endpoint.workspace)
        async with asyncio.timeout(60):
            while (new := await backend.ensure(request(HOME), silent)).generation == endpoint.generation:
                await asyncio.sleep(0.05)
        assert await kube.run(new, "cat kept") == "kept\n"
