"""A namespace of a real cluster, and proxies that share it."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.model import (
    ConnId,
    Endpoint,
    Exec,
    ExitSignal,
    ExitStatus,
    Peer,
    ProgramSpec,
    Progress,
    User,
    Visit,
    WorkspaceName,
)
from proxy.settings.kubernetes import KubernetesSettings
from proxy.settings.trust import TrustSettings
from proxy.settings.upstream import UpstreamSettings
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore
from proxy.upstream.client import Links
from proxy.upstream.frames import Output
from proxy.userstring import parse, workspace_name
from proxy.workspaces.backend import Stop, WorkspaceRequest
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.backend import KubernetesBackend
from proxy.workspaces.kubernetes.objects import POD, Kind, Object, name_of
from proxy.workspaces.kubernetes.view import pod_name
from tests.fakes.visits import visit_of
from tests.images.docker import shelld_image
from tests.unit.proxy.blueprints.reading import parse as parse_blueprint

MISSING = "" if os.environ.get("KUBECONFIG") else "needs a cluster: set KUBECONFIG"
IMAGE = os.environ.get("FAIRLEAD_TEST_IMAGE", "base:1")
"""Any image with a shell that the nodes have."""

START_TIMEOUT_S = 90.0
NAMESPACE = Kind("Namespace", "namespaces")
VOLUME = Kind("PersistentVolume", "persistentvolumes")
USER_MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
STOP = Stop("cli:tester", datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "for a test")


def silent(_: Progress) -> None:
    pass


@dataclass
class Cluster:
    """One namespace, its volumes, and what proxies of it agree on."""

    directory: Path
    namespace: str = field(default_factory=lambda: f"fairlead-test-{secrets.token_hex(4)}")
    kubeconfig: Path | None = None
    volumes: list[str] = field(default_factory=list)

    def settings(self, **changed: Any) -> KubernetesSettings:
        given = {
            "namespace": self.namespace,
            "kubeconfig": self.kubeconfig,
            "shelld_image": shelld_image(),
            "default_image": IMAGE,
            "storage_class": self.namespace,
            "termination_grace_s": 3,
            "patience_s": 1,
        }
        return KubernetesSettings(**{**given, **changed})

    async def open(self) -> None:
        self.api = Api(self.settings())
        self.keeper = TrustManager(FileTrustStore(self.directory / "trust.json"), TrustSettings())
        await self.keeper.open()
        await self.create("v1", "Namespace", self.namespace)
        await self.until_there(Kind("ServiceAccount", "serviceaccounts"), "default")

    async def close(self) -> None:
        await self.keeper.close()
        for name in self.volumes:
            await self.api.delete(VOLUME, "", name)
        await self.api.delete(NAMESPACE, "", self.namespace)
        await self.api.close()

    @asynccontextmanager
    async def proxy(
        self, timeout_s: float = START_TIMEOUT_S, **settings: Any
    ) -> AsyncIterator[KubernetesBackend]:
        backend = KubernetesBackend(self.settings(**settings), self.keeper, start_timeout_s=timeout_s)
        try:
            yield backend
        finally:
            await backend.close()

    async def run(self, endpoint: Endpoint, command: str) -> str:
        """Run a command in a workspace; give what it said."""
        links = Links(UpstreamSettings(), "p1", self.keeper)
        try:
            return await run(links, endpoint, command)
        finally:
            await links.close()

    # ---------------------------------------------------------------------------------- objects

    async def create(self, api: str, kind: str, name: str, **content: Any) -> Object:
        metadata = {"name": name, "namespace": self.namespace}
        if kind in {"Namespace", "PersistentVolume"}:
            del metadata["namespace"]
        return await self.api.create({"apiVersion": api, "kind": kind, "metadata": metadata, **content})

    async def add_volume(self) -> None:
        """Make a volume that a claim of our storage class can have."""
        name = f"{self.namespace}-{len(self.volumes)}"
        self.volumes.append(name)
        await self.create(
            "v1",
            "PersistentVolume",
            name,
            spec={
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": self.namespace,
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": f"/tmp/{name}", "type": "DirectoryOrCreate"},
            },
        )

    async def until_there(self, kind: Kind, name: str) -> Object:
        async with asyncio.timeout(30):
            while (found := await self.api.find(kind, self.namespace, name)) is None:
                await asyncio.sleep(0.05)
        return found

    async def names(self, kind: Kind) -> list[str]:
        return [name_of(one) for one in (await self.api.list(Query(kind, self.namespace))).items]

    async def pod(self, workspace: str) -> Object:
        return await self.api.get(POD, self.namespace, pod_name(workspace))

    async def kill(self, workspace: str) -> None:
        """End a workspace's pod as a node that fails would: nobody asked."""
        await self.api.delete(POD, self.namespace, pod_name(workspace), now=True)


async def run(links: Links, endpoint: Endpoint, command: str) -> str:
    """Run a command in a workspace; give its stdout, or fail with its stderr."""
    out, errors = b"", b""
    async with links.use(endpoint) as link:
        program = await link.run(ProgramSpec(Exec(command)), visit(endpoint.user or "alice"), "program")
        async with program:
            while not isinstance(frame := await program.read(), ExitStatus | ExitSignal):
                if isinstance(frame, Output):
                    out, errors = (
                        (out, errors + frame.data) if frame.is_stderr else (out + frame.data, errors)
                    )
    assert frame == ExitStatus(0), (frame, errors)
    return out.decode()


def visit(user: str) -> Visit:
    peer = Peer(ConnId("conn-1"), "192.0.2.1", 40_000, "192.0.2.2", 22)
    return visit_of(user, user_called(user), peer)


def request(
    blueprint: str = "", who: str = "alice+dev", *, user: str = "", **fields: Any
) -> WorkspaceRequest:
    """Ask for a workspace of a blueprint that is given as YAML."""
    value = parse(who)
    resolved = parse_blueprint(blueprint)
    name = WorkspaceName(fields.pop("name", workspace_name(value, "dev")))
    who_asks = fields.pop("as_user", None) or user_called(user or value.user)
    return WorkspaceRequest(name, who_asks, resolved, value, **fields)


def user_called(name: str, **fields: Any) -> User:
    """Describe a user as the directory does."""
    return User(name, **{"uid": 10_001, "id": f"id-of-{name}", "created_at": USER_MADE_AT, **fields})


def texts(told: Sequence[Progress]) -> list[str]:
    return [one.text for one in told]
