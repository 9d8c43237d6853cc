"""The kustomization of `deploy/kubernetes`, really applied: two proxies in the cluster, and `ssh` to them."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import cluster as real
from tests.e2e.cluster import Cluster, until
from tests.images import docker
from tests.wire.harness import needs

pytestmark = [pytest.mark.cluster, needs("kubectl"), pytest.mark.timeout(900)]

OWN, WORKSPACES = "fairlead", "fairlead-workspaces"
IMAGES = {
    "fairlead-proxy": "deploy/proxy.Dockerfile",
    "fairlead-nats": "deploy/nats.Dockerfile",
    "fairlead-postgres": "deploy/postgres.Dockerfile",
    "fairlead-shelld": "deploy/shelld.Dockerfile",
}


def kubectl(*words: str, data: str = "", check: bool = True) -> str:
    done = subprocess.run(["kubectl", *words], input=data, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, f"kubectl {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass
class Installation:
    """What was applied, and how a client reaches it."""

    directory: Path
    cluster: Cluster

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [one for one in yaml.safe_load_all(kubectl("kustomize", str(self.directory))) if one]

    def fairlead(self, *words: str, data: str = "") -> str:
        """Run a command in one of the proxies."""
        return kubectl("-n", OWN, "exec", "-i", "deploy/fairlead", "--", "fairlead", *words, data=data)

    def ssh(self, command: str, user_string: str = "alice") -> "subprocess.CompletedProcess[bytes]":
        address = self.cluster.core.read_namespaced_service("fairlead", OWN).spec.cluster_ip
        options = (
            "-i",
            str(self.directory / "id"),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=no",
        )
        known = ("-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
        words = ["ssh", "-F", "none", *options, *known, "-l", user_string, address, command]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=180)

    def proxies(self) -> list[Any]:
        selector = "app.kubernetes.io/component=proxy"
        found = self.cluster.core.list_namespaced_pod(OWN, label_selector=selector).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]


@pytest.fixture(scope="module")
def installation(needs_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    del needs_cluster
    # What the last run left takes its time to go.
    kubectl(
        "wait", "--for=delete", f"namespace/{OWN}", f"namespace/{WORKSPACES}", "--timeout=240s", check=False
    )
    directory = tmp_path_factory.mktemp("deploy")
    made = Installation(directory, Cluster(WORKSPACES))
    shutil.copytree(docker.ROOT / "deploy" / "kubernetes", directory / "kubernetes")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "id"], check=True)
    keys = directory / "host-keys"
    keys.mkdir()
    for kind in ("ed25519", "ecdsa", "rsa"):
        target = keys / f"ssh_host_{kind}_key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", target], check=True)
    tags = {name: _tagged(name, dockerfile) for name, dockerfile in IMAGES.items()}
    _write(directory, made.cluster, tags, keys, addresses={})
    try:
        others = [
            one for one in made.objects if (one["kind"], one["metadata"]["name"]) != ("Deployment", OWN)
        ]
        kubectl("apply", "-f", "-", data=yaml.safe_dump_all(others))
        for name in ("fairlead-nats", "fairlead-postgres"):
            kubectl("-n", OWN, "rollout", "status", f"deployment/{name}", "--timeout=240s")
        _write(directory, made.cluster, tags, keys, addresses=_addresses(made.cluster))
        kubectl("apply", "-k", str(directory))
        kubectl("-n", OWN, "rollout", "status", "deployment/fairlead", "--timeout=240s")
        yield made
    except BaseException:
        print(kubectl("-n", OWN, "get", "pods,events", check=False))
        print(kubectl("-n", OWN, "logs", "deploy/fairlead", check=False))
        raise
    finally:
        kubectl("delete", "namespace", OWN, WORKSPACES, "--timeout=120s", check=False)


def _tagged(name: str, dockerfile: str) -> str:
    return docker.tagged(docker.built(dockerfile), f"fairlead-e2e-{name.removeprefix('fairlead-')}")


def _addresses(cluster: Cluster) -> dict[str, str]:
    """Look up Services: a cluster of one's own for tests may have no DNS."""
    core = cluster.core
    names = ("fairlead-nats", "fairlead-postgres")
    return {core.read_namespaced_service(name, OWN).spec.cluster_ip: name for name in names}


def _write(
    directory: Path, cluster: Cluster, tags: dict[str, str], keys: Path, *, addresses: dict[str, str]
) -> None:
    """Write the kustomization that an operator would: the evaluation, this cluster's age and images."""
    base = directory / "kubernetes" / "base" / "settings.yaml"
    settings = yaml.safe_load(base.read_text())
    settings["kubernetes"] |= {"shelld_image": tags["fairlead-shelld"], "default_image": real.image("glibc")}
    settings["shutdown"] = {"grace_s": 20}
    (directory / "settings.yaml").write_text(yaml.safe_dump(settings))
    (directory / "dev.yaml").write_text("description: scratch\nimage_pull_policy: Never\n")
    version = json.loads(kubectl("version", "-o", "json"))["serverVersion"]
    old = int(version["gitVersion"].split(".")[1]) < 21
    aliases = [{"ip": address, "hostnames": [name]} for address, name in addresses.items()]
    patch = [
        {"op": "add", "path": "/spec/template/spec/hostAliases", "value": aliases},
        {"op": "add", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "Never"},
    ]
    names = {name: tag.split(":") for name, tag in tags.items()}
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["kubernetes/evaluation"],
        "components": ["kubernetes/components/kubernetes-1.20"] if old else [],
        "images": [{"name": name, "newName": new, "newTag": tag} for name, (new, tag) in names.items()],
        "configMapGenerator": [
            {
                "name": "fairlead-settings",
                "namespace": OWN,
                "behavior": "replace",
                "files": ["settings.yaml"],
            },
            {"name": "fairlead-blueprints", "namespace": OWN, "behavior": "replace", "files": ["dev.yaml"]},
        ],
        "secretGenerator": [
            {
                "name": "fairlead-host-keys",
                "namespace": OWN,
                "files": [f"host-keys/{key.name}" for key in sorted(keys.glob("*_key"))],
                "options": {"disableNameSuffixHash": True},
            }
        ],
        "patches": [{"target": {"kind": "Deployment", "name": "fairlead"}, "patch": json.dumps(patch)}],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(content))


def test_the_server_finds_nothing_wrong(installation: Installation) -> None:
    kubectl("apply", "--dry-run=server", "-k", str(installation.directory))


def test_two_proxies_serve(installation: Installation) -> None:
    proxies = installation.proxies()
    assert len(proxies) == 2
    for pod in proxies:
        (status,) = pod.status.container_statuses
        assert (status.ready, status.restart_count) == (True, 0)


def test_somebody_is_let_in_and_into_a_workspace(installation: Installation) -> None:
    public = (installation.directory / "id.pub").read_text()
    installation.fairlead("user", "add", "alice", "--key", "-", data=public)
    done = installation.ssh("hostname")
    name = done.stdout.decode().strip()
    assert name.startswith("alice-"), done.stderr
    listed = json.loads(installation.fairlead("workspace", "list", "--json"))
    assert [(one["name"], one["phase"]) for one in listed] == [(name.removesuffix("-0"), "running")]


def test_the_proxies_roll_over_without_a_gap(installation: Installation) -> None:
    """A new one serves before an old one goes, and whoever is connected to that one stays connected."""
    before = {pod.metadata.name for pod in installation.proxies()}
    kubectl("-n", OWN, "rollout", "restart", "deployment/fairlead")
    failures = []

    def rolled() -> bool:
        done = installation.ssh("true")
        if done.returncode != 0:
            failures.append(done.stderr)
        return not before & {pod.metadata.name for pod in installation.proxies()}

    until("every proxy is a new one", rolled, 300)
    assert failures == []


def test_nothing_can_be_done_that_is_not_needed(installation: Installation) -> None:
    """The account of the proxies may do nothing outside of its two roles."""
    account = f"system:serviceaccount:{OWN}:fairlead"

    def may(*words: str) -> bool:
        return kubectl("auth", "can-i", *words, "--as", account, check=False).strip() == "yes"

    assert may("patch", "statefulsets.apps", "-n", WORKSPACES)
    assert not may("get", "secrets", "-n", "kube-system")
    assert not may("list", "secrets", "-n", WORKSPACES)
    assert not may("get", "secrets/fairlead-database", "-n", OWN)
    assert not may("create", "pods", "-n", WORKSPACES)
    assert not may("create", "pods/exec", "-n", WORKSPACES)
    assert not may("list", "nodes")
    assert not may("list", "namespaces")
