"""A workspace of a cluster that does nothing is stopped; one that does something is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from proxy.errors.workspaces import WorkspaceUnstartable
from proxy.events import schema
from proxy.model import Endpoint, Exec, ProgramSpec
from proxy.settings.upstream import UpstreamSettings
from proxy.settings.workspace import WorkspaceSettings
from proxy.upstream.client import Links
from proxy.workspaces.backend import WorkspacePhase, WorkspaceRecord
from proxy.workspaces.idle_reaper import IdleReaper
from proxy.workspaces.kubernetes.backend import KubernetesBackend
from proxy.workspaces.kubernetes.objects import STATEFUL_SET, Kind
from proxy.workspaces.lifetimes import Bounds
from proxy.workspaces.start_events import publish_stopped
from tests.cluster.cluster import Cluster, request, run, silent, visit

NAME = request().name
IDLE_STOP_S = 3.0
UNTIL_STOPPED_S = 60
"""Above all the pod's own end."""

BUSY = "while :; do n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; sleep 0.1; done"
"""Says nothing and takes some of a processor."""


@dataclass
class House:
    """A proxy whose keeper looks often, and what was published by it."""

    kube: Cluster
    backend: KubernetesBackend
    links: Links
    events: list[schema.Event]

    async def replicas(self) -> int:
        found = await self.kube.api.get(STATEFUL_SET, self.kube.namespace, NAME)
        return int(found["spec"]["replicas"])

    async def until_stopped(self) -> WorkspaceRecord:
        """Wait for the event, which comes last."""
        async with asyncio.timeout(UNTIL_STOPPED_S):
            while not self.events:
                await asyncio.sleep(0.05)
        record = await self.backend.find(NAME)
        assert record is not None
        return record

    async def uptime_s(self, endpoint: Endpoint) -> float:
        async with self.links.use(endpoint) as link:
            return (await link.status()).uptime_s


async def bounds(_: WorkspaceRecord) -> Bounds:
    return Bounds(IDLE_STOP_S)


@asynccontextmanager
async def kept(kube: Cluster) -> AsyncIterator[House]:
    settings = WorkspaceSettings(keeper_interval_s=0.5, failed_stop_s=1)
    events: list[schema.Event] = []
    links = Links(UpstreamSettings(), "p1", kube.keeper)
    async with kube.proxy() as backend:
        keeper = IdleReaper(backend, links, bounds, settings, partial(publish_stopped, events.append))
        keeper.start()
        try:
            yield House(kube, backend, links, events)
        finally:
            await keeper.close()
            await links.close()


async def test_an_idle_workspace_is_stopped_told_of_and_woken(kube: Cluster) -> None:
    async with kept(kube) as house:
        first = await house.backend.ensure(request(), silent)
        record = await house.until_stopped()
        assert await house.replicas() == 0
        assert record.phase is WorkspacePhase.STOPPED
        assert record.stop is not None
        assert record.stop.by == "idle"
        assert "did nothing for" in record.stop.reason
        (event,) = house.events
        assert isinstance(event, schema.WorkspaceStopped)
        assert (event.actor, event.user, event.workspace) == ("idle", "alice", NAME)

        again = await house.backend.ensure(request(), silent)
        assert again.generation != first.generation
        assert await run(house.links, again, "echo awake") == "awake\n"
        woken = await house.backend.find(NAME)
        assert woken is not None
        assert woken.stop is None


async def test_a_busy_workspace_goes_on_until_it_is_idle(kube: Cluster) -> None:
    async with kept(kube) as house:
        endpoint = await house.backend.ensure(request(), silent)
        async with house.links.use(endpoint) as link:
            program = await link.run(ProgramSpec(Exec(BUSY)), visit("alice"), "busy")
            began_s = await house.uptime_s(endpoint)
            async with asyncio.timeout(UNTIL_STOPPED_S):
                while await house.uptime_s(endpoint) < began_s + 4 * IDLE_STOP_S:
                    await asyncio.sleep(0.5)
            assert await house.replicas() == 1
            assert not house.events
            program.cancel()
        record = await house.until_stopped()
        assert record.stop is not None
        assert record.stop.by == "idle"


async def test_what_failed_to_start_is_told_by_the_list_and_gives_its_room_back(kube: Cluster) -> None:
    quota = Kind("ResourceQuota", "resourcequotas")
    await kube.create("v1", "ResourceQuota", "few", spec={"hard": {"pods": "0"}})
    async with asyncio.timeout(30):
        while not (await kube.api.get(quota, kube.namespace, "few")).get("status", {}).get("used"):
            await asyncio.sleep(0.05)
    async with kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable):
            await backend.ensure(request(), silent)
    async with kube.proxy() as fresh:  # as `fairlead workspace list` does, which has watched nothing
        (listed,) = await fresh.list()
        assert listed.phase is WorkspacePhase.FAILED
        assert "the quota is used up (few, requested: pods=1" in listed.detail
        assert await fresh.find(NAME) == listed
    async with kept(kube) as house:
        record = await house.until_stopped()
        assert await house.replicas() == 0
        assert record.phase is WorkspacePhase.STOPPED
        assert record.stop is not None
        assert (record.stop.by, NAME in record.stop.reason) == ("failed", True)
        assert "the quota is used up" in record.stop.reason
        await kube.api.delete(quota, kube.namespace, "few")
        again = await until_there_is_room(house.backend)
        assert await run(house.links, again, "echo in") == "in\n"


async def until_there_is_room(backend: KubernetesBackend) -> Endpoint:
    """Try until admission has noticed that a quota is gone, and refusals of a moment ago count no more."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await backend.ensure(request(), silent)
            except WorkspaceUnstartable:
                await asyncio.sleep(0.5)
