"""Certificates by cert-manager: its kind is real, the test plays it, and a proxy has no right too many.

A proxy here has the rights of `deploy/kubernetes/base` and of `components/cert-manager`, and no other.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from proxy.errors.workspaces import ClusterNotFound, WorkspaceUnstartable
from proxy.model import Progress
from proxy.settings.trust import TrustSettings
from proxy.trust.authority import CLIENT_NAME, Authority, server_name
from proxy.trust.certmanager import MountedIdentity
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore
from proxy.workspaces.kubernetes.api import Query
from proxy.workspaces.kubernetes.manifest import encoded
from proxy.workspaces.kubernetes.objects import CERTIFICATE, SECRET, STATEFUL_SET, Kind, Object
from proxy.workspaces.kubernetes.startup import decoded
from tests.cluster.cluster import STOP, Cluster, request, silent, texts

NAME = request().name
DEFINITION = Kind("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1")
DEFINITION_NAME = "certificates.cert-manager.io"
DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes"
RIGHTS = (DEPLOY / "base/access.yaml", DEPLOY / "components/cert-manager/access.yaml")
DAY = timedelta(days=1)


@dataclass
class Issuer:
    """Plays cert-manager."""

    kube: Cluster
    authority: Authority

    async def run(self) -> None:
        """Put a certificate into the Secret that each Certificate names."""
        query = Query(CERTIFICATE, self.kube.namespace)
        listing = await self.kube.api.list(query)
        for certificate in listing.items:
            await self.issue(certificate)
        async for said in self.kube.api.watch(query, listing.version):
            if said["type"] in {"ADDED", "MODIFIED"}:
                await self.issue(said["object"])

    async def issue(self, certificate: Object) -> None:
        spec = certificate["spec"]
        assert spec["issuerRef"] == {"name": "workspaces", "kind": "Issuer", "group": "cert-manager.io"}
        (name,) = spec["dnsNames"]
        pair = self.authority.issue_server(name, datetime.now(UTC), DAY)
        files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": self.authority.pem}
        metadata = {"name": spec["secretName"], "namespace": self.kube.namespace, **spec["secretTemplate"]}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded(files)}
        await self.kube.api.apply(secret | {"type": "kubernetes.io/tls"}, manager="issuer")

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.run())
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.wait([task])


def new_authority(label: str) -> Authority:
    return Authority.create(label, datetime.now(UTC), DAY, timedelta(hours=1))


@pytest.fixture
async def definition(kube: Cluster) -> AsyncIterator[None]:
    """Make the kind known as cert-manager does, unless it is there."""
    if await kube.api.find(DEFINITION, "", DEFINITION_NAME) is not None:
        yield
        return
    group, plural = CERTIFICATE.api.partition("/")[0], CERTIFICATE.plural
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    body = {
        "apiVersion": DEFINITION.api,
        "kind": DEFINITION.name,
        "metadata": {"name": DEFINITION_NAME},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": CERTIFICATE.name, "plural": plural},
            "versions": [version],
        },
    }
    await kube.api.create(body)
    try:
        async with asyncio.timeout(30):
            while not await is_served(kube):
                await asyncio.sleep(0.1)
        yield
    finally:
        await kube.api.delete(DEFINITION, "", DEFINITION_NAME)
        async with asyncio.timeout(30):
            while await kube.api.find(DEFINITION, "", DEFINITION_NAME) or await is_served(kube):
                await asyncio.sleep(0.1)


async def is_served(kube: Cluster) -> bool:
    try:
        await kube.api.list(Query(CERTIFICATE, kube.namespace))
    except ClusterNotFound:
        return False
    return True


@pytest.fixture
async def issuer(kube: Cluster, tmp_path: Path) -> Issuer:
    """Let the cluster's proxies have certificates of somebody else; nobody works there yet."""
    made = Issuer(kube, new_authority("somebody else's"))
    pair = made.authority.issue_client(datetime.now(UTC), DAY)
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": made.authority.pem}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    settings = TrustSettings(
        mode="cert-manager",
        issuer_name="workspaces",
        client_cert_file=tmp_path / "tls.crt",
        client_key_file=tmp_path / "tls.key",
        client_ca_file=tmp_path / "ca.crt",
    )
    await kube.keeper.close()
    store = FileTrustStore(tmp_path / "tokens.json")
    kube.keeper = TrustManager(store, settings, identity=MountedIdentity.of(settings))
    await kube.keeper.open()
    return made


def kubeconfig_of_a_proxy(kube: Cluster, file: Path) -> Path:
    """Make an account with the rights that are deployed, and a kubeconfig with its token."""
    config.load_kube_config()
    core, rights = client.CoreV1Api(), client.RbacAuthorizationV1Api()
    core.create_namespaced_service_account(kube.namespace, {"metadata": {"name": "fairlead"}})
    for one in (one for path in RIGHTS for one in yaml.safe_load_all(path.read_text())):
        if one["metadata"].pop("namespace") == "fairlead-workspaces":
            for subject in one.get("subjects", []):
                subject["namespace"] = kube.namespace
            make = {
                "Role": rights.create_namespaced_role,
                "RoleBinding": rights.create_namespaced_role_binding,
            }
            make[one["kind"]](kube.namespace, one)
    asked = {"spec": {"expirationSeconds": 3_600}}
    token = core.create_namespaced_service_account_token("fairlead", kube.namespace, asked).status.token
    found = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for user in found["users"]:
        user["user"] = {"token": token}
    file.write_text(yaml.safe_dump(found))
    return file


async def test_a_workspace_has_its_certificate_from_somebody_else(
    kube: Cluster, definition: None, issuer: Issuer, tmp_path: Path
) -> None:
    told: list[Progress] = []
    waits = asyncio.Event()

    def hear(progress: Progress) -> None:
        told.append(progress)
        if "cert-manager" in progress.text:
            waits.set()

    kubeconfig = await asyncio.to_thread(kubeconfig_of_a_proxy, kube, tmp_path / "kubeconfig")
    async with kube.proxy(kubeconfig=kubeconfig) as backend:
        starting = asyncio.ensure_future(backend.ensure(request(), hear))
        async with asyncio.timeout(60):
            await waits.wait()
        assert f"waiting until cert-manager has issued certificate {NAME}.tls" in texts(told)
        assert await kube.names(STATEFUL_SET) == [], "no pod that could only wait"
        async with issuer.working():
            endpoint = await starting
        listed = await kube.run(endpoint, "ls /etc/fairlead/trust")
        assert listed.split() == ["client-ca.crt", "tls.crt", "tls.key", "token.key"]
        ours = decoded(await kube.api.get(SECRET, kube.namespace, NAME))
        assert set(ours) == {"client-ca.crt", "token.key"}
        (certificate,) = (await kube.api.list(Query(CERTIFICATE, kube.namespace))).items
        assert certificate["spec"]["dnsNames"] == [server_name(NAME, kube.namespace)]
        assert CLIENT_NAME not in str(certificate)

        await backend.stop(NAME, STOP)
        again = await backend.ensure(request(), silent)
        assert await kube.run(again, "echo again") == "again\n"

        both = issuer.authority.pem + new_authority("its successor's").pem
        (tmp_path / "ca.crt").write_bytes(both)
        await backend.upkeep()
        ours = decoded(await kube.api.get(SECRET, kube.namespace, NAME))
        assert ours["client-ca.crt"] == both
        theirs = decoded(await kube.api.get(SECRET, kube.namespace, f"{NAME}.tls"))
        assert set(theirs) == {"ca.crt", "tls.crt", "tls.key"}, "nothing of ours is written there"

        await backend.delete(NAME, purge=False)
        assert await kube.names(CERTIFICATE) == []
        assert not [name for name in await kube.names(SECRET) if NAME in name]


async def test_a_cluster_without_cert_manager_is_told_of(kube: Cluster, issuer: Issuer) -> None:
    if await is_served(kube):
        pytest.skip("this cluster has cert-manager")
    async with kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request(), silent)
    assert caught.value.user_message.startswith("cert-manager is not installed in the cluster")
