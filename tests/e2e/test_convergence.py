"""Many at once, and things that end at the wrong moment: one workspace, everybody in, nothing lost."""

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.cluster import PATIENCE_S, Cluster, ClusterFairlead, until, workspace
from tests.e2e.conftest import MakeProxy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]  # images may have to be built first

CLIENTS = 20
NOWHERE = "name: nowhere\nnode: {selector: {example.com/no-node-has: this}}\n"
"""Of a workspace that goes on starting until `kubernetes.patience_s` is over."""


@pytest.fixture(scope="module")
def storage_class(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("volumes")
    for parent in (directory, *directory.parents):
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    with cluster.storage_class(directory, volumes=12) as name:
        yield name


@pytest.fixture(scope="module")
def fairlead(proxies: MakeProxy, storage_class: str) -> ClusterFairlead:
    proxy = proxies(kubernetes={"patience_s": PATIENCE_S})
    home = f"storages: {{home: {{kind: home, size: 1Gi, storage_class: {storage_class}}}}}\n"
    for name in ("dev", "race", "kill", "purge"):
        (proxy.home / "blueprints" / f"{name}.yaml").write_text(home)
    (proxy.home / "blueprints" / "nowhere.yaml").write_text(NOWHERE)
    return proxy


@pytest.fixture(scope="module")
def other(proxies: MakeProxy, fairlead: ClusterFairlead) -> ClusterFairlead:
    return proxies(like=fairlead)


def test_twenty_first_connections_through_two_proxies_share_one_workspace(
    fairlead: ClusterFairlead, other: ClusterFairlead, cluster: Cluster
) -> None:
    def connect(number: int) -> "subprocess.CompletedProcess[bytes]":
        through = fairlead if number % 2 else other
        return through.ssh(f"hostname; echo {number}", "-l", "alice+race", timeout_s=180)

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = list(pool.map(connect, range(CLIENTS)))
    name = workspace("alice+race")
    assert [one.stdout for one in done] == [f"{name}-0\n{number}\n".encode() for number in range(CLIENTS)]
    assert [one.returncode for one in done] == [0] * CLIENTS
    pod = cluster.pod_of("alice+race")
    assert pod.status.container_statuses[0].restart_count == 0
    found = [
        one.metadata.name
        for one in cluster.stateful_sets()
        if one.metadata.labels["fairlead.dev/blueprint"] == "race"
    ]
    assert found == [name]


def test_the_home_survives_stop_start_and_delete_but_not_a_purge(fairlead: ClusterFairlead) -> None:
    name = workspace("alice+purge")
    assert fairlead.ssh("echo kept > file", "-l", "alice+purge", timeout_s=120).returncode == 0

    def content() -> bytes:
        return fairlead.ssh("cat file", "-l", "alice+purge", timeout_s=120).stdout

    fairlead.cli("workspace", "stop", name)
    assert json.loads(fairlead.cli("workspace", "show", name, "--json"))["phase"] == "stopped"
    fairlead.cli("workspace", "start", name)
    assert content() == b"kept\n"
    fairlead.cli("workspace", "delete", name)
    assert name not in {one["name"] for one in json.loads(fairlead.cli("workspace", "list", "--json"))}
    assert content() == b"kept\n"
    fairlead.cli("workspace", "delete", "--purge", name)
    assert content() == b""


def test_a_pod_that_is_killed_comes_back_with_its_home(fairlead: ClusterFairlead, cluster: Cluster) -> None:
    """`kubectl delete pod`, and what a node does to a container whose first process dies."""
    options = ("-l", "alice+kill")
    assert fairlead.ssh("echo kept > file", *options, timeout_s=120).returncode == 0
    before = cluster.pod_of("alice+kill").metadata.uid
    running = subprocess.Popen([*fairlead.command("ssh", *options), "fl", "sleep 600"])
    until("the program runs", lambda: b"sleep" in fairlead.ssh("cat /proc/[0-9]*/comm", *options).stdout)
    cluster.core.delete_namespaced_pod(
        f"{workspace('alice+kill')}-0", cluster.namespace, grace_period_seconds=0
    )
    assert running.wait(60) in {129, 255}  # hung up, or the link broke first
    assert fairlead.ssh("cat file", *options, timeout_s=120).stdout == b"kept\n"
    assert cluster.pod_of("alice+kill").metadata.uid != before


def test_a_proxy_that_is_killed_while_it_starts_a_workspace_leaves_it_to_the_other(
    fairlead: ClusterFairlead, proxies: MakeProxy, cluster: Cluster
) -> None:
    doomed = proxies(like=fairlead)
    options = ("-l", "alice+dev")
    client = subprocess.Popen([*doomed.command("ssh", *options), "fl", "true"])
    name = workspace("alice+dev")
    until("the workspace is begun", lambda: name in {one.metadata.name for one in cluster.stateful_sets()})
    doomed.stop(signal.SIGKILL)
    assert client.wait(60) == 255
    assert fairlead.ssh("echo in", *options, timeout_s=120).stdout == b"in\n"


def test_stopping_while_it_starts_says_so(fairlead: ClusterFairlead, cluster: Cluster) -> None:
    options = ("-l", "alice+nowhere")
    client = subprocess.Popen([*fairlead.command("ssh", *options), "fl", "true"], stderr=subprocess.PIPE)
    name = workspace("alice+nowhere")
    until("the workspace is begun", lambda: name in {one.metadata.name for one in cluster.stateful_sets()})
    fairlead.cli("workspace", "stop", name)
    _, said = client.communicate(timeout=60)
    assert client.returncode == 255
    assert b"stopped or deleted while it was starting" in said
