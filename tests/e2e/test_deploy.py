"""The evaluation of `deploy/kubernetes`, installed by the commands of docs/deploy.md, and `ssh` to it.

The commands run as they are written. Programs of the same names stand before the real ones on PATH and add
what a cluster of tests lacks: DNS, a recent release, and a client that accepts an unknown host key.
"""

import base64
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import documents
from tests.e2e import cluster as real
from tests.e2e.cluster import Cluster, until
from tests.e2e.kubectl import FOR_OLD, is_old, kubectl
from tests.images import docker
from tests.wire.harness import free_port, needs

pytestmark = [pytest.mark.cluster, needs("kubectl"), pytest.mark.timeout(1_800)]

OWN, WORKSPACES = "fairlead", "fairlead-workspaces"
EVALUATION = "deploy/kubernetes/evaluation"
STORES = ("fairlead-nats", "fairlead-postgres")


@dataclass
class Installation:
    """What was applied, and how a client reaches it."""

    directory: Path
    cluster: Cluster
    last_words: str = ""
    """What the commands of the page printed, the shell at their end included."""

    @property
    def overlay(self) -> Path:
        return self.directory / "overlay"

    def fairlead(self, *words: str, data: str = "") -> str:
        """Run a command in one of the proxies."""
        return kubectl("-n", OWN, "exec", "-i", "deploy/fairlead", "--", "fairlead", *words, data=data)

    def ssh(self, command: str, user_string: str = "alice") -> "subprocess.CompletedProcess[bytes]":
        address = self.cluster.core.read_namespaced_service("fairlead", OWN).spec.cluster_ip
        words = [self.directory / "bin" / "ssh", "-l", user_string, address, command]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=180)

    def proxies(self) -> list[Any]:
        selector = "app.kubernetes.io/component=proxy"
        found = self.cluster.core.list_namespaced_pod(OWN, label_selector=selector).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def run_the_page(self, port: int) -> str:
        """Run the commands of the page in one shell; its forwarded port is 2222, which may be taken here."""
        (commands,) = documents.blocks("deploy.md", "A first look", "sh")
        assert commands.count("2222") == 2
        script = commands.replace("2222", str(port)) + "kill %1\n"
        environment = {
            **os.environ,
            "HOME": str(self.directory),
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "BASE": docker.base(),
        }
        done = subprocess.run(
            ["/bin/bash", "-e", "-c", script],
            cwd=docker.ROOT,
            env=environment,
            input="echo in=$((6 * 7)); hostname\n",
            capture_output=True,
            text=True,
            timeout=1_500,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installation(needs_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    del needs_cluster
    # What the last run left takes its time to go.
    kubectl(
        "wait", "--for=delete", f"namespace/{OWN}", f"namespace/{WORKSPACES}", "--timeout=240s", check=False
    )
    directory = tmp_path_factory.mktemp("deploy")
    made = Installation(directory, Cluster(WORKSPACES))
    (directory / ".ssh").mkdir()
    key = directory / ".ssh" / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    _write_overlay(made)
    _write_programs(made, key)
    docker.docker("tag", real.image("glibc"), "debian:bookworm")  # a node without a registry has it already
    try:
        made.last_words = made.run_the_page(free_port())
        yield made
    except BaseException:
        print(kubectl("-n", OWN, "get", "pods,events", check=False))
        print(kubectl("-n", OWN, "logs", "deploy/fairlead", check=False))
        raise
    finally:
        kubectl("delete", "namespace", OWN, WORKSPACES, "--timeout=120s", check=False)
        docker.docker("rmi", "debian:bookworm", check=False)


def _write_overlay(made: Installation) -> None:
    """Write what this cluster needs besides the evaluation: its age, and addresses where it has no DNS."""
    made.overlay.mkdir()
    place = os.path.relpath(docker.ROOT / "deploy" / "kubernetes", made.overlay)
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{place}/evaluation"],
        "components": [f"{place}/{FOR_OLD}"] if is_old() else [],
        "patches": [{"patch": json.dumps(_quick_to_end())}, *([] if _has_dns() else _names())],
    }
    (made.overlay / "kustomization.yaml").write_text(yaml.safe_dump(content))


def _has_dns() -> bool:
    return bool(kubectl("-n", "kube-system", "get", "service", "kube-dns", check=False))


def _quick_to_end() -> dict[str, Any]:
    """Give proxies a minute for their shutdown, so that the namespace is gone in time for the next run."""
    deadline = {"name": "FAIRLEAD_SHUTDOWN__DEADLINE_S", "value": "60"}
    pod = {"terminationGracePeriodSeconds": 60, "containers": [{"name": "proxy", "env": [deadline]}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fairlead", "namespace": OWN},
        "spec": {"template": {"spec": pod}},
    }


def _names() -> list[dict[str, Any]]:
    """Give the stores addresses of our choice, and the proxies a hosts file with them."""
    first = kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    hosts = random.sample(range(100, 250), len(STORES))
    addresses = {name: f"{first.rpartition('.')[0]}.{host}" for name, host in zip(STORES, hosts, strict=True)}
    aliases = [{"ip": address, "hostnames": [name]} for name, address in addresses.items()]
    patch = [{"op": "add", "path": "/spec/template/spec/hostAliases", "value": aliases}]
    return [
        {"target": {"kind": "Deployment", "name": "fairlead"}, "patch": json.dumps(patch)},
        *(
            {
                "target": {"kind": "Service", "name": name},
                "patch": json.dumps([{"op": "add", "path": "/spec/clusterIP", "value": address}]),
            }
            for name, address in addresses.items()
        ),
    ]


def _write_programs(made: Installation, key: Path) -> None:
    """Write the programs that stand before the real ones."""
    (places := made.directory / "bin").mkdir()
    programs = {
        "kubectl": f"""
            [ "$*" = "apply -k {EVALUATION}" ] && set -- apply -k {made.overlay}
            exec {shutil.which("kubectl")} "$@"
        """,
        # The forwarded port opens a moment after the command that forwards it.
        "ssh": f"""
            exec {shutil.which("ssh")} -F none -o ConnectionAttempts=60 -o StrictHostKeyChecking=no \\
              -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes -i {key} "$@"
        """,
    }
    for name, text in programs.items():
        (places / name).write_text("#!/bin/sh\n" + text)
        (places / name).chmod(0o755)


def test_the_commands_of_the_page_end_in_a_shell(installation: Installation) -> None:
    assert re.search(r"^in=42\nalice-\S+-0$", installation.last_words, re.MULTILINE)


def test_credentials_that_exist_are_kept(installation: Installation) -> None:
    def kept() -> str:
        return kubectl("-n", OWN, "get", "secret", "-o", "jsonpath={range .items[*]}{.metadata.name}{.data}")

    before = kept()
    subprocess.run([docker.ROOT / EVALUATION / "credentials"], check=True, capture_output=True, timeout=120)
    assert kept() == before


def test_a_workspace_has_no_login_to_the_stores(installation: Installation) -> None:
    """Whatever the network plugin does: this cluster may enforce no NetworkPolicy at all."""
    addresses = {
        name: installation.cluster.core.read_namespaced_service(name, OWN).spec.cluster_ip for name in STORES
    }
    talk = r"printf 'CONNECT {}\r\nPING\r\n' >&3; timeout 5 cat <&3"
    refused = installation.ssh(f"exec 3<>/dev/tcp/{addresses['fairlead-nats']}/4222; {talk}").stdout.decode()
    assert "Authorization Violation" in refused or refused == "", "a login is asked for, or nothing answers"
    password = kubectl("-n", OWN, "get", "secret", "fairlead-database", "-o", "jsonpath={.data.password}")
    real_one = base64.b64decode(password).decode()
    assert _logs_in(real_one), "the question is one that can be answered with yes"
    assert [guess for guess in ("", "evaluation", "fairlead", "postgres") if _logs_in(guess)] == []


def _logs_in(password: str) -> bool:
    """Try a login to PostgreSQL over TCP, from its own pod, where psql and a route are."""
    url = f"postgresql://fairlead:{password}@127.0.0.1/fairlead"
    words = ("-n", OWN, "exec", "deploy/fairlead-postgres", "--", "psql", "-Atw", url, "-c", "SELECT 42")
    return "42" in kubectl(*words, check=False)


def test_a_changed_blueprint_is_seen_without_a_restart(installation: Installation) -> None:
    """`blueprint.source: config_map` has its right in the shipped roles."""
    patch = {"data": {"tools.yaml": "description: more tools\n"}}
    kubectl("-n", OWN, "patch", "configmap", "fairlead-blueprints", "--type=merge", "-p", json.dumps(patch))

    def is_seen() -> bool:
        return installation.ssh("true", "alice+tools").returncode == 0

    until("the new blueprint can be used", is_seen, 120)
    assert "forbidden" not in kubectl("-n", OWN, "logs", "deploy/fairlead")


def test_the_server_finds_nothing_wrong(installation: Installation) -> None:
    kubectl("apply", "--dry-run=server", "-k", str(installation.overlay))


def test_two_proxies_serve(installation: Installation) -> None:
    proxies = installation.proxies()
    assert len(proxies) == 2
    for pod in proxies:
        (status,) = pod.status.container_statuses
        assert (status.ready, status.restart_count) == (True, 0)


def test_a_known_user_is_let_in_and_into_a_workspace(installation: Installation) -> None:
    done = installation.ssh("hostname")
    name = done.stdout.decode().strip()
    assert name.startswith("alice-"), done.stderr
    listed = json.loads(installation.fairlead("workspace", "list", "--json"))
    assert (name.removesuffix("-0"), "running") in [(one["name"], one["phase"]) for one in listed]


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
    """The account of the proxies may do nothing outside of its roles."""
    account = f"system:serviceaccount:{OWN}:fairlead"

    def may(*words: str) -> bool:
        return kubectl("auth", "can-i", *words, "--as", account, check=False).strip() == "yes"

    assert may("patch", "statefulsets.apps", "-n", WORKSPACES)
    assert not may("get", "secrets", "-n", "kube-system")
    assert not may("list", "secrets", "-n", WORKSPACES)
    assert not may("get", "secrets/fairlead-database", "-n", OWN)
    assert may("get", "configmaps/fairlead-blueprints", "-n", OWN)
    assert not may("get", "configmaps/kube-root-ca.crt", "-n", OWN)
    assert not may("create", "pods", "-n", WORKSPACES)
    assert not may("create", "pods/exec", "-n", WORKSPACES)
    assert not may("list", "nodes")
    assert not may("list", "namespaces")
