"""The kustomizations of `deploy/kubernetes`, as kubectl builds them, without a cluster."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.settings import Settings, load
from tests import documents
from tests.wire.harness import needs

pytestmark = needs("kubectl")

KUBERNETES = Path(__file__).parents[3] / "deploy" / "kubernetes"
PROXIES = {"app.kubernetes.io/name": "fairlead", "app.kubernetes.io/component": "proxy"}

Objects = list[dict[str, Any]]


def build(directory: Path) -> Objects:
    done = subprocess.run(
        ["kubectl", "kustomize", directory], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.fixture(scope="module")
def base() -> Objects:
    return build(KUBERNETES / "base")


@pytest.fixture(scope="module")
def evaluation() -> Objects:
    return build(KUBERNETES / "evaluation")


@pytest.fixture
def production(tmp_path: Path) -> Objects:
    """Build the kustomization that docs/deploy.md shows, with the files beside it."""
    shutil.copytree(KUBERNETES, tmp_path / "fairlead" / "deploy" / "kubernetes")
    (own := tmp_path / "site").mkdir()
    for name, text in documents.files("deploy.md", "Production").items():
        (own / name).write_text(text)
    return build(own)


def of(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    """Give the object of that name; the hash after a generated name is not part of it."""
    pattern = re.compile(rf"{name}(-[a-z0-9]{{10}})?")
    (found,) = (one for one in objects if one["kind"] == kind and pattern.fullmatch(one["metadata"]["name"]))
    return found


def pod_of(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = of(objects, "Deployment", "fairlead")["spec"]["template"]["spec"]
    return spec


def settings_of(objects: Objects, directory: Path) -> Settings:
    """Load what the proxies of these objects load, references to fields of the pod resolved."""
    pod = pod_of(objects)
    namespace = of(objects, "ServiceAccount", "fairlead")["metadata"]["namespace"]
    fields = {"metadata.namespace": namespace, "metadata.name": "fairlead-0", "status.podIP": "192.0.2.1"}
    (file := directory / "settings-in-pod.yaml").write_text(
        of(objects, "ConfigMap", "fairlead-settings")["data"]["settings.yaml"]
    )
    environ = {"FAIRLEAD_CONFIG": str(file)}
    for variable in pod["containers"][0]["env"]:
        source = variable.get("valueFrom", {})
        value = variable.get("value") or fields.get(source.get("fieldRef", {}).get("fieldPath", ""))
        if variable["name"].startswith("FAIRLEAD_") and variable["name"] != "FAIRLEAD_CONFIG" and value:
            environ[variable["name"]] = value.replace("$(POD_IP)", "192.0.2.1")
    return load(environ)


def values(node: Any) -> Iterator[str]:
    """Give every text of an object, keys aside."""
    if isinstance(node, dict):
        for value in node.values():
            yield from values(value)
    elif isinstance(node, list):
        for value in node:
            yield from values(value)
    elif isinstance(node, str):
        yield node


# ------------------------------------------------------------------------------------- who reaches what


def admits(peer: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tell whether a peer of a NetworkPolicy selects pods of a namespace with these labels."""
    selector = peer["namespaceSelector"]
    expressions = selector.get("matchExpressions", [])
    assert set(selector) <= {"matchExpressions"}
    assert {one["operator"] for one in expressions} <= {"NotIn"}
    return all(labels.get(one["key"]) not in one["values"] for one in expressions)


def test_the_page_and_health_ports_are_closed_to_workspaces(base: Objects) -> None:
    labels = of(base, "Namespace", "fairlead-workspaces")["metadata"]["labels"]
    rules = {
        port["port"]: rule.get("from")
        for rule in of(base, "NetworkPolicy", "fairlead")["spec"]["ingress"]
        for port in rule["ports"]
    }
    assert rules.pop(2222) is None, "SSH is for every client"
    assert set(rules) == {9464, 8022}
    for peers in rules.values():
        assert not any(admits(peer, labels) for peer in peers)
        assert any(admits(peer, {"kubernetes.io/metadata.name": "ingress"}) for peer in peers)


@pytest.mark.parametrize(("name", "port"), [("fairlead-postgres", 5432), ("fairlead-nats", 4222)])
def test_only_proxies_reach_the_stores_of_the_evaluation(evaluation: Objects, name: str, port: int) -> None:
    policy = of(evaluation, "NetworkPolicy", name)["spec"]
    assert policy == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": PROXIES}}],
                "ports": [{"port": port, "protocol": "TCP"}],
            }
        ],
    }
    labels = of(evaluation, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_no_credential_is_committed(evaluation: Objects) -> None:
    assert [one["metadata"]["name"] for one in evaluation if one["kind"] == "Secret"] == []
    urls = [text for one in evaluation for text in values(one) if "://" in text]
    assert [url for url in urls if "@" in url] == []


# --------------------------------------------------------------------------------------- what is yours


def test_other_namespace_names_are_given_in_one_place(production: Objects, tmp_path: Path) -> None:
    names = {one["metadata"]["name"] for one in production if one["kind"] == "Namespace"}
    assert names == {"ssh-proxies", "ssh-workspaces"}
    where = {one["metadata"]["namespace"] for one in production if "namespace" in one["metadata"]}
    assert where == names
    accounts = [
        subject["namespace"]
        for one in production
        if one["kind"] == "RoleBinding"
        for subject in one["subjects"]
    ]
    assert set(accounts) == {"ssh-proxies"}
    settings = settings_of(production, tmp_path)
    assert settings.kubernetes.namespace == "ssh-workspaces"
    assert settings.trust.secret_namespace == "ssh-proxies"
    assert settings.blueprint.config_map.namespace == "ssh-proxies"
    labels = of(production, "Namespace", "ssh-proxies")["metadata"]["labels"]
    assert dict(settings.kubernetes.proxies.namespace_labels).items() <= labels.items()
    assert not any(
        one["kind"] == "ConfigMap" and one["metadata"]["name"] == "fairlead-site" for one in production
    )


def test_the_settings_that_the_page_shows_keep_those_of_the_base() -> None:
    theirs = yaml.safe_load(documents.files("deploy.md", "Production")["settings.yaml"])
    ours = yaml.safe_load((KUBERNETES / "base" / "settings.yaml").read_text())
    assert [line for line in flat(ours) if line not in list(flat(theirs))] == []


def flat(node: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give every value of a tree of dictionaries with its path."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from flat(value, *path, name)
    else:
        yield path, node


def test_the_time_of_a_shutdown_is_given_in_one_place(
    base: Objects, production: Objects, tmp_path: Path
) -> None:
    site = yaml.safe_load(documents.files("deploy.md", "Production")["site.yaml"])
    assert pod_of(production)["terminationGracePeriodSeconds"] == int(site["data"]["shutdown_s"])
    for objects in (base, production):
        settings = settings_of(objects, tmp_path)
        until_kill_s = pod_of(objects)["terminationGracePeriodSeconds"]
        assert settings.shutdown.deadline_s == until_kill_s
        assert 0 < settings.shutdown_grace_s + settings.health.drain_s < until_kill_s


def test_every_file_that_a_setting_names_has_a_place(base: Objects) -> None:
    """The Secret is optional, so that an installation without such settings starts as well."""
    pod = pod_of(base)
    (volume,) = (one for one in pod["volumes"] if one["name"] == "secrets")
    assert volume["secret"] == {"secretName": "fairlead-secrets", "defaultMode": 0o440, "optional": True}
    (mount,) = (one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "secrets")
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/fairlead/secrets", True)


def test_the_evaluation_needs_no_storage_class_and_no_load_balancer(evaluation: Objects) -> None:
    assert [one["kind"] for one in evaluation if one["kind"] == "PersistentVolumeClaim"] == []
    blueprints = of(evaluation, "ConfigMap", "fairlead-blueprints")["data"]
    assert [text for text in blueprints.values() if "storages" in yaml.safe_load(text)] == []
    types = {one["spec"].get("type", "ClusterIP") for one in evaluation if one["kind"] == "Service"}
    assert types == {"ClusterIP"}


def test_every_image_of_the_evaluation_is_one_that_make_builds(evaluation: Objects) -> None:
    pods = [one["spec"]["template"]["spec"] for one in evaluation if one["kind"] == "Deployment"]
    containers = [one for pod in pods for one in pod["containers"] + pod.get("initContainers", [])]
    names = ("fairlead-proxy:1", "fairlead-postgres:1", "fairlead-nats:1")
    assert {one["image"] for one in containers} == set(names)
    recipes = (KUBERNETES.parents[1] / "Makefile").read_text()
    assert [name for name in names if f"-t {name.removesuffix('1')}$(TAG) " not in recipes] == []
