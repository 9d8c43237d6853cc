"""A namespace of a real cluster, and proxies whose workspaces run in it.

The cluster is the one that KUBECONFIG names. Its node must run images of the dockerd that DOCKER_HOST names,
and its pods must be reachable from here, as they are on a node of one's own.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from proxy import userstring
from tests.images import docker
from tests.wire.harness import Fairlead

PATIENCE_S = 120
_T = TypeVar("_T")

KINDS = ("glibc", "busybox", "musl", "nothing")
"""Images of tests/images/targets.Dockerfile."""

PLAIN = "security: {run_as_user: 1000, drop_capabilities: [ALL], allow_privilege_escalation: false}\n"
"""Of a blueprint: no privilege of any kind."""


def missing() -> str:
    """Say what keeps this machine from running these tests; empty when nothing does."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    return docker.missing()


def image(kind: str) -> str:
    """Build and tag one of the images that people bring."""
    return docker.tagged(
        docker.built("tests/images/targets.Dockerfile", kind, "tests/images"), f"fairlead-e2e-{kind}"
    )


@dataclass
class Cluster:
    """One namespace, with everything in it ours."""

    namespace: str = field(default_factory=lambda: f"fairlead-e2e-{secrets.token_hex(3)}")

    @cached_property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(config.new_client_from_config())

    @cached_property
    def apps(self) -> client.AppsV1Api:
        return client.AppsV1Api(self.core.api_client)

    @contextlib.contextmanager
    def opened(self) -> Iterator["Cluster"]:
        """Hold the namespace; gone with all that is in it afterwards."""
        self.core.create_namespace({"metadata": {"name": self.namespace}})
        try:
            until("the namespace has the account that pods run as", self._has_account)
            yield self
        finally:
            self.core.delete_namespace(self.namespace)

    def _has_account(self) -> bool:
        found = self.core.list_namespaced_service_account(self.namespace)
        return any(one.metadata.name == "default" for one in found.items)

    # --------------------------------------------------------------------------------------- looking

    def pods(self) -> list[Any]:
        """Give the workspaces' pods that are not on their way out."""
        found = self.core.list_namespaced_pod(
            self.namespace, label_selector="app.kubernetes.io/managed-by=fairlead"
        )
        return [pod for pod in found.items if pod.metadata.deletion_timestamp is None]

    def stateful_sets(self) -> list[Any]:
        return list(self.apps.list_namespaced_stateful_set(self.namespace).items)

    def pod_of(self, user_string: str) -> Any:
        return self.core.read_namespaced_pod(f"{workspace(user_string)}-0", self.namespace)

    # -------------------------------------------------------------------------------------- changing

    @contextlib.contextmanager
    def storage_class(self, directory: Path, *, volumes: int = 4) -> Iterator[str]:
        """Offer some volumes below a directory of the node, which is this machine."""
        name = f"{self.namespace}-volumes"
        try:
            for number in range(volumes):
                place = directory / str(number)
                place.mkdir(mode=0o777)
                place.chmod(0o777)
                self.core.create_persistent_volume(
                    {
                        "metadata": {"name": f"{name}-{number}"},
                        "spec": {
                            "capacity": {"storage": "10Gi"},
                            "accessModes": ["ReadWriteOnce"],
                            "storageClassName": name,
                            "persistentVolumeReclaimPolicy": "Retain",
                            "hostPath": {"path": str(place)},
                        },
                    }
                )
            yield name
        finally:
            for number in range(volumes):
                with contextlib.suppress(ApiException):
                    self.core.delete_persistent_volume(f"{name}-{number}")


def workspace(user_string: str) -> str:
    """Name the workspace that a user string means."""
    value = userstring.parse(user_string)
    return userstring.workspace_name(value, value.blueprint or "dev")


def until(what: str, look: Callable[[], _T | None], patience_s: float = PATIENCE_S) -> _T:
    """Look until there is something to see; give it."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.1)
    raise AssertionError(f"not within {patience_s:g} s: {what}")


@dataclass
class ClusterFairlead(Fairlead):
    """A proxy of this machine whose workspaces are pods."""

    cluster: Cluster = field(default_factory=Cluster)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Deeper than the environment goes well; merged over what the cluster needs, section by section."""

    @property
    def ssh_config(self) -> Path:
        return self.directory / f"ssh_config_{self.port}"

    def replica(self) -> "ClusterFairlead":
        """Start another proxy on the same state, at another port."""
        other = ClusterFairlead(self.directory, cluster=self.cluster, settings=self.settings)
        other.extra_env = {"FAIRLEAD_PROXY_ID": f"replica-{other.port}"}
        other.configure_client()
        other.start()
        return other

    def env(self) -> dict[str, str]:
        return {**super().env(), "FAIRLEAD_CONFIG": str(self.directory / "settings.yaml")}

    def prepare(self, extra: Mapping[str, str] | None = None) -> None:
        """Make what `Fairlead` does; blueprint `dev` is a glibc workspace unless `extra` says otherwise."""
        needed: dict[str, dict[str, Any]] = {
            "workspace": {"backend": "kubernetes"},
            "kubernetes": {
                "kubeconfig": os.environ["KUBECONFIG"],
                "namespace": self.cluster.namespace,
                "shelld_image": docker.shelld_image(),
                "default_image": image("glibc"),
            },
        }
        for section, values in self.settings.items():
            needed[section] = {**needed.get(section, {}), **values}
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "settings.yaml").write_text(yaml.safe_dump(needed))
        super().prepare(extra)

    def close(self) -> None:
        """End the proxy; the workspaces go with their namespace."""
        self.stop()
