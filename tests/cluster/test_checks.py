"""`fairlead check` against a real cluster: what the settings name is there, or the setting is named."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from proxy.process.checks import Finding, Status
from proxy.process.checks.everything import check_all
from proxy.settings import load
from proxy.trust.authority import Authority
from proxy.workspaces.kubernetes.api import Query
from proxy.workspaces.kubernetes.objects import CONFIG_MAP, SECRET
from tests.cluster.cluster import Cluster

MISSING = "fairlead-test-missing"


async def found(tmp_path: Path, **settings: Any) -> dict[str, Finding]:
    file = tmp_path / "settings.yaml"
    settings = {"home": str(tmp_path / "home"), "workspace": {"backend": "kubernetes"}, **settings}
    file.write_text(yaml.safe_dump(settings))
    return {finding.name: finding for finding in await check_all(load({}, file))}


async def test_a_namespace_that_is_there_is_tried_and_nothing_is_made(kube: Cluster, tmp_path: Path) -> None:
    findings = await found(tmp_path, kubernetes={"namespace": kube.namespace})
    assert findings[f"namespace {kube.namespace}"].status is Status.OK
    says = f"Secret {kube.namespace}/fairlead-trust does not exist yet; a proxy that starts makes it"
    assert findings["trust"] == Finding("trust", Status.OK, says)
    for kind in (CONFIG_MAP, SECRET):
        listing = await kube.api.list(Query(kind, kube.namespace))
        assert not [one for one in listing.items if one["metadata"]["name"].startswith("fairlead")]


async def test_a_namespace_that_is_missing_is_named_with_its_setting(kube: Cluster, tmp_path: Path) -> None:
    findings = await found(tmp_path, kubernetes={"namespace": MISSING})
    says = f"kubernetes.namespace: there is no namespace {MISSING} in the cluster"
    assert findings[f"namespace {MISSING}"] == Finding(f"namespace {MISSING}", Status.ERROR, says)
    assert findings["trust"] == Finding("trust", Status.ERROR, says)
    findings = await found(
        tmp_path, kubernetes={"namespace": kube.namespace}, trust={"secret_namespace": MISSING}
    )
    says = f"trust.secret_namespace: there is no namespace {MISSING} in the cluster"
    assert findings["trust"] == Finding("trust", Status.ERROR, says)


async def test_a_config_map_that_is_missing_is_named(kube: Cluster, tmp_path: Path) -> None:
    blueprint = {"source": "config_map", "config_map": {"name": "blueprints"}}
    findings = await found(tmp_path, kubernetes={"namespace": kube.namespace}, blueprint=blueprint)
    assert findings["blueprints"].status is Status.ERROR
    assert findings["blueprints"].says.startswith(
        f"blueprint.config_map: ConfigMap {kube.namespace}/blueprints: "
    )


async def test_an_api_server_that_is_away_is_told_within_the_deadline(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    content = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    kubeconfig.write_text(yaml.safe_dump({"kind": "Config", "current-context": "c", **content}))
    findings = await found(tmp_path, kubernetes={"kubeconfig": str(kubeconfig), "namespace": "x"})
    assert findings["namespace x"].status is Status.ERROR
    assert "no answer within" not in findings["namespace x"].says


async def test_an_issuer_and_a_certificate_that_are_missing_are_named(kube: Cluster, tmp_path: Path) -> None:
    day = timedelta(days=1)
    authority = Authority.create("test", datetime.now(UTC), day, timedelta(hours=1))
    pair = authority.issue_client(datetime.now(UTC), day)
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.pem}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    trust = {
        "mode": "cert-manager",
        "issuer_name": "workspaces",
        "client_cert_file": str(tmp_path / "tls.crt"),
        "client_key_file": str(tmp_path / "tls.key"),
        "client_ca_file": str(tmp_path / "ca.crt"),
    }
    findings = await found(tmp_path, kubernetes={"namespace": kube.namespace}, trust=trust)
    says = (
        f"trust.issuer_name: there is no Issuer {kube.namespace}/workspaces in the cluster, "
        "or it has no cert-manager"
    )
    assert findings["issuer workspaces"] == Finding("issuer workspaces", Status.ERROR, says)
    assert findings["proxy certificate"].status is Status.OK
    (tmp_path / "tls.crt").write_text("no certificate")
    findings = await found(tmp_path, kubernetes={"namespace": kube.namespace}, trust=trust)
    says = f"{tmp_path}/tls.crt: not a certificate in PEM"
    assert findings["proxy certificate"] == Finding("proxy certificate", Status.ERROR, says)
    (tmp_path / "tls.crt").unlink()
    findings = await found(tmp_path, kubernetes={"namespace": kube.namespace}, trust=trust)
    says = f"{tmp_path}/tls.crt: No such file or directory"
    assert findings["proxy certificate"] == Finding("proxy certificate", Status.ERROR, says)
