"""What commit 6516e8d left in a cluster is kept by the code of today, on both databases.

The fixture's objects are made again, with what was in their volumes; the cluster says that they were made
now, and the users of the fixture are older.
"""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.errors.programs import OwnerUnknown
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.identity.directory import Directory
from proxy.identity.store import SqlDirectory
from proxy.model import User, WorkspaceName
from proxy.settings.trust import TrustSettings
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore
from proxy.userstring import parse
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.kubernetes import labels
from proxy.workspaces.kubernetes.backend import KubernetesBackend
from proxy.workspaces.kubernetes.objects import (
    CLAIM,
    POD,
    STATEFUL_SET,
    Object,
    annotations_of,
    made_at,
)
from proxy.workspaces.provisioner import address
from tests.cluster.cluster import IMAGE, MISSING, STOP, Cluster, request, silent
from tests.contract.directories import DEADLINE_S, cluster
from tests.contract.state_6516e8d import cluster_state, restore_database

__all__ = ["cluster"]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

START_S = 300.0
HOME = "storages: {home: {kind: home, size: 1Gi}%s}\n"
SHARED = ", %s: {kind: shared, path: /%s, size: 1Gi}"
TOOLS = ", tools: {kind: shared, scope: blueprint, path: /tools, size: 1Gi}"
BLUEPRINTS = {
    "alice": HOME % (SHARED % ("data", "data") + TOOLS),
    "bob": HOME % "",
    "dave": HOME % "",
    "a": HOME % (SHARED % ("b-c", "b-c")),
    "a-b": HOME % (SHARED % ("c", "c")),
}
LISTING = (
    "find . -mindepth 1 ! -name lost+found -printf '%p %y %m %U:%G %l\\n' | sort; "
    "find . -type f -print0 | sort -z | xargs -0 sha256sum"
)
"""Says all that makes a home what it is."""

_OF_THE_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "selfLink", "managedFields")


@dataclass
class Restored:
    """A cluster and a directory with the state of then."""

    kube: Cluster
    users: Directory
    volumes: dict[str, str]

    async def user(self, name: str) -> User:
        found = await self.users.find(name)
        assert found is not None
        return found

    async def asked(self, backend: KubernetesBackend, name: str) -> WorkspaceRequest:
        """Ask for the user's workspace as a login does."""
        user, value = await self.user(name), parse(f"{name}+dev")
        found = await address(backend, user, value, "dev")
        return request(BLUEPRINTS[name], f"{name}+dev", as_user=user, name=found)

    async def again(self, name: str) -> User:
        """Remove a user and add another one of that name, later than anything that was made."""
        await self.users.remove_user(name)
        await self.kube.until_next_second()
        return await self.users.add_user(name)


class FormerCluster(Cluster):
    """A namespace into which the state of then is put."""

    async def until_next_second(self) -> None:
        """Wait until what the cluster makes is of a later second, by its own clock."""
        first = made_at(await self.create("v1", "ConfigMap", f"clock-{secrets.token_hex(4)}"))
        while made_at(await self.create("v1", "ConfigMap", f"clock-{secrets.token_hex(4)}")) == first:
            pass

    async def restore(self, state: dict[str, Any]) -> None:
        for claim in (one for one in state["objects"] if one["kind"] == "PersistentVolumeClaim"):
            await self._make_volume(claim)
            await self._restore(claim)
        for name, content in state["volumes"].items():
            await self._fill(name, content)
        for body in state["objects"]:
            if body["kind"] != "PersistentVolumeClaim":
                await self._restore(body)

    async def _restore(self, body: Object) -> None:
        metadata = {key: value for key, value in body["metadata"].items() if key not in _OF_THE_SERVER}
        noted = {key: value for key, value in annotations_of(body).items() if key.startswith("fairlead")}
        made = {**body, "metadata": {**metadata, "annotations": noted, "finalizers": []}}
        made.pop("status", None)
        await self.api.create(made)

    async def _make_volume(self, claim: Object) -> None:
        claim["spec"]["volumeName"] = await self.add_volume()

    async def add_volume(self) -> str:
        """Make a volume that a claim of either kind can have."""
        name = f"{self.namespace}-{len(self.volumes)}"
        self.volumes.append(name)
        spec = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "storageClassName": self.namespace,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"/tmp/{name}", "type": "DirectoryOrCreate"},
        }
        await self.create("v1", "PersistentVolume", name, spec=spec)
        return name

    async def _fill(self, claim: str, content: str) -> None:
        """Put back what was in a volume, owners and modes included, by a pod that does nothing else."""
        name = f"fill-{secrets.token_hex(4)}"
        container = {
            "name": "fill",
            "image": IMAGE,
            "command": ["sh", "-c", "echo $CONTENT | base64 -d | tar -x --numeric-owner -C /volume"],
            "env": [{"name": "CONTENT", "value": content}],
            "securityContext": {"runAsUser": 0},
            "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
        }
        spec = {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
        }
        await self.create("v1", "Pod", name, spec=spec)
        async with asyncio.timeout(DEADLINE_S):
            while (await self.api.get(POD, self.namespace, name))["status"].get("phase") != "Succeeded":
                await asyncio.sleep(0.1)
        await self.api.delete(POD, self.namespace, name, now=True)


@pytest.fixture(params=["sqlite", "postgresql"])
async def restored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Restored]:
    database = request.getfixturevalue("cluster") if request.param == "postgresql" else None
    url = restore_database(request.param, tmp_path / "fairlead.db", database)
    users = await SqlDirectory.open(url, query_timeout_s=DEADLINE_S, upgrade=True)
    kube = FormerCluster(tmp_path)
    # The namespace stands in the objects, and two runs may be under way.
    former = cluster_state()["namespace"]
    state = json.loads(json.dumps(cluster_state()).replace(former, kube.namespace))
    await kube.open()
    try:
        await kube.keeper.close()
        (tmp_path / "trust.json").write_text(json.dumps(state["trust"]))
        kube.keeper = TrustManager(FileTrustStore(tmp_path / "trust.json"), TrustSettings())
        await kube.keeper.open()
        await kube.restore(state)
        yield Restored(kube, users, state["volumes"])
    finally:
        await users.close()
        await kube.close()


async def test_every_home_has_the_same_bytes_and_is_recorded_as_its_user_s(restored: Restored) -> None:
    kube = restored.kube
    before = set(await kube.names(CLAIM))
    async with kube.proxy(START_S, patience_s=120) as backend:
        for name in ("alice", "bob", "dave", "a"):
            user = await restored.user(name)
            wanted = await restored.asked(backend, name)
            endpoint = await backend.ensure(wanted, silent)
            assert await kube.run(endpoint, "cat secret") == f"only {name} reads this\n"
            then = restored.volumes[f"{wanted.name}-home"]
            unpacked = f"mkdir /tmp/then && cd /tmp/then && echo {then} | base64 -d | tar -x && {LISTING}"
            assert await kube.run(endpoint, unpacked) == await kube.run(endpoint, LISTING)
            noted = annotations_of(await kube.api.get(STATEFUL_SET, kube.namespace, wanted.name))
            assert noted[labels.OWNER] == user.id
            claim = await kube.api.get(CLAIM, kube.namespace, f"{wanted.name}-home")
            assert annotations_of(claim)[labels.OWNER] == user.id
            if name == "alice":
                assert await kube.run(endpoint, "cat /data/shared /tools/shared") == "alice+dev\n" * 2
        assert set(await kube.names(CLAIM)) == before, "no home, and no shared storage, was made anew"


async def test_a_recycled_name_finds_none(restored: Restored) -> None:
    kube = restored.kube
    async with kube.proxy(START_S, patience_s=120) as backend:
        first = await restored.asked(backend, "alice")
        await backend.ensure(first, silent)
        # bob was not back: an operator has to say whose it is; dave's home was kept without a workspace.
        for name in ("bob", "dave"):
            await restored.again(name)
            with pytest.raises(OwnerUnknown, match=rf"workspace {name}-\w+ is older than the user {name}"):
                await restored.asked(backend, name)
        second = await restored.again("alice")
        for _ in range(2):
            await kube.add_volume()  # for a home, and for data
        asked = await restored.asked(backend, "alice")
        assert asked.name != first.name
        endpoint = await backend.ensure(asked, silent)
        assert await kube.run(endpoint, "ls secret notes 2> /dev/null; ls /data") == ""
        with pytest.raises(WorkspaceNotFound):
            await backend.ensure(
                request(BLUEPRINTS["alice"], as_user=second, name=first.name, may_create=False), silent
            )
        bob = await restored.user("bob")
        (given,) = [one.name for one in await backend.list() if one.user == "bob"]
        await backend.give(WorkspaceName(given), bob, STOP)
        # Its files are of another number than the new bob's: shelld gives them over.
        endpoint = await backend.ensure(await restored.asked(backend, "bob"), silent)
        assert await kube.run(endpoint, "cat secret") == "only bob reads this\n"


async def test_shared_storages_that_collided_by_name_keep_theirs_and_new_ones_have_a_hash(
    restored: Restored,
) -> None:
    kube = restored.kube
    former = "shared-user-a-b-c"
    async with kube.proxy(START_S, patience_s=120) as backend:
        endpoint = await backend.ensure(await restored.asked(backend, "a"), silent)
        assert await kube.run(endpoint, "cat /b-c/shared") == "a+dev\n"
        for _ in range(2):
            await kube.add_volume()
        endpoint = await backend.ensure(await restored.asked(backend, "a-b"), silent)
        assert await kube.run(endpoint, "ls /c") == ""
    names = {name for name in await kube.names(CLAIM) if name.startswith("shared-user-a-b")}
    (name,) = names - {former}
    assert re.fullmatch(r"shared-user-a-b-[0-9a-f]{10}-c", name)
    claim = await kube.api.get(CLAIM, kube.namespace, name)
    assert annotations_of(claim)[labels.OWNER] == (await restored.user("a-b")).id
    claim = await kube.api.get(CLAIM, kube.namespace, former)
    assert annotations_of(claim)[labels.OWNER] == (await restored.user("a")).id
