"""Backends that keep the same promises: processes of this machine, and pods where there is a cluster."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from proxy.model import Endpoint
from proxy.settings.upstream import UpstreamSettings
from proxy.settings.workspace import WorkspaceSettings
from proxy.upstream.client import Links
from proxy.workspaces.backend import Backend
from proxy.workspaces.local.backend import LocalBackend
from proxy.workspaces.local.process import listener_pid
from tests.cluster.cluster import MISSING, STOP, Cluster, run


class Site(Protocol):
    """Somewhere that several proxies share."""

    blueprint: str
    """YAML of a blueprint whose home survives a stop."""

    def proxy(self) -> AbstractAsyncContextManager[Backend]:
        """Hold a backend as one proxy has it."""

    async def run(self, endpoint: Endpoint, command: str) -> str:
        """Run a command in a workspace; give its stdout."""

    async def kill(self, endpoint: Endpoint) -> None:
        """End a workspace's shelld as a fault would; it is gone afterwards."""


@dataclass
class LocalSite:
    """This machine."""

    state: Path
    sockets: Path
    blueprint: str = ""

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[Backend]:
        settings = WorkspaceSettings(namespaces="none")
        backend = LocalBackend(self.state, settings, runtime_parent=self.sockets)
        try:
            yield backend
        finally:
            await backend.close()

    async def run(self, endpoint: Endpoint, command: str) -> str:
        links = Links(UpstreamSettings(), "p1")
        try:
            return await run(links, endpoint, command)
        finally:
            await links.close()

    async def kill(self, endpoint: Endpoint) -> None:
        pid = listener_pid(Path(endpoint.address.removeprefix("unix://")))
        assert pid
        os.kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        async with self.proxy() as backend:
            for record in await backend.list():
                await backend.stop(record.name, STOP)


@dataclass
class ClusterSite:
    """A namespace of a cluster."""

    cluster: Cluster
    blueprint: str = "storages: {home: {kind: home, size: 1Gi}}"

    def proxy(self) -> AbstractAsyncContextManager[Backend]:
        return self.cluster.proxy()

    async def run(self, endpoint: Endpoint, command: str) -> str:
        return await self.cluster.run(endpoint, command)

    async def kill(self, endpoint: Endpoint) -> None:
        await self.cluster.kill(endpoint.workspace)


@pytest.fixture(
    params=[
        "local",
        pytest.param(
            "kubernetes",
            marks=[
                pytest.mark.cluster,
                pytest.mark.timeout(300),
                pytest.mark.skipif(bool(MISSING), reason=MISSING),
            ],
        ),
    ]
)
async def site(request: pytest.FixtureRequest, tmp_path: Path, short_dir: Path) -> AsyncIterator[Site]:
    made: LocalSite | Cluster
    if request.param == "local":
        made = LocalSite(tmp_path, short_dir)
        yield made
    else:
        made = Cluster(tmp_path)
        await made.open()
        await made.add_volume()
        yield ClusterSite(made)
    await made.close()
