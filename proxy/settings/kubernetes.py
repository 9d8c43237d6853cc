"""Settings of workspaces on Kubernetes: the cluster, the contents of pods, and the deadlines.

Nothing here is a secret: credentials stand in the kubeconfig, or in the service account of our own pod.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from proxy.settings.base import Section

_Seconds = Annotated[float, Field(gt=0, le=86_400)]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([EPTGMk]i?|m)?$")]
Labels = Mapping[str, str]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class InjectRule(Section):
    """Workloads of one namespace that people may enter with `workload=kind/name+ns=…`."""

    namespace: DnsLabel
    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    """Users in one of these may; `*` stands for all users."""
    share_processes: bool = False
    """Whether the processes of the pod's containers see each other; then shelld is not process 1."""


class ProxySelector(Section):
    """The pods that are proxies: only they may reach port 2822 of a workspace."""

    namespace_labels: Labels = Field({})
    """Labels of the namespaces that proxies run in; empty means the namespace of the workspaces."""
    pod_labels: Labels = Field({"app.kubernetes.io/name": "fairlead", "app.kubernetes.io/component": "proxy"})
    cidrs: tuple[str, ...] = ()
    """Addresses of proxies that run outside of the cluster."""


class KubernetesSettings(Section):
    """The cluster that runs workspaces when `workspace.backend` is `kubernetes`."""

    kubeconfig: Path | None = None
    """Default: the service account of our own pod, else what KUBECONFIG names, else ~/.kube/config."""
    context: str = ""
    """Of the kubeconfig; default its current one."""
    namespace: DnsLabel = "fairlead-workspaces"
    """Holds every workspace that we make; it must exist."""

    shelld_image: str = "fairlead-shelld:1"
    """Brings shelld into workspaces of any image."""
    default_image: str = "debian:bookworm"
    """For blueprints that name none."""
    image_pull_policy: PullPolicy | None = None
    """For the image of shelld; default what Kubernetes does: always for `:latest`, else when absent."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets of the namespace for the image of shelld, and for blueprints that name none."""

    storage_class: str = ""
    """For homes whose blueprint names none; default the cluster's own default."""
    home_size: Quantity = "10Gi"
    """Of homes whose blueprint names no size."""
    service_account: str = "default"
    """Pods run as this account; its token is never mounted."""
    proxies: ProxySelector = ProxySelector()

    request_timeout_s: _Seconds = 10
    """One request to the API server."""
    retry_for_s: _Seconds = 15
    """A request that finds no server, or a busy one, is sent again for this long."""
    retry_wait_max_s: _Seconds = 3
    """Between two attempts; doubles from a tenth of a second, with jitter."""
    max_connections: Annotated[int, Field(ge=4, le=10_000)] = 64
    """To the API server, watches included."""
    watch_timeout_s: Annotated[float, Field(ge=1, le=3_600)] = 60
    """A watch is opened anew this often, so that one that died silently is noticed."""
    page_size: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Objects a list asks for at once."""
    patience_s: Annotated[float, Field(ge=0, le=86_400)] = 30
    """A workspace that no node has room for, or that waits for a volume without a maker, is given up after
    this long, unless a node or the volume is on its way. What cannot pass by itself is given up at once."""
    recheck_s: _Seconds = 10
    """A start that receives no change of its workspace for this long reads its state from the cluster."""
    probe_interval_s: Annotated[float, Field(ge=0.01, le=10)] = 0.05
    """A started container is asked this often whether shelld answers; Kubernetes asks once a second."""
    stop_timeout_s: _Seconds = 60
    """From the order to stop until the pod is gone."""
    termination_grace_s: Annotated[int, Field(ge=1, le=3_600)] = 15
    """From TERM to KILL of a workspace's processes."""
    force_delete_lost_after_s: Annotated[float, Field(ge=0, le=86_400 * 30)] = 0
    """A pod that ends on a node that is gone is taken off the books after this long, so that another may
    start. 0 never does: the node may be alive and still write to the home."""

    inject: tuple[InjectRule, ...] = ()
    """Rules of entering workloads; none by default, and then no user may."""
    inject_timeout_s: _Seconds = 300
    """From the change of a workload to the pod that it brings."""

    @model_validator(mode="after")
    def _grace_within_stop(self) -> "KubernetesSettings":
        if self.termination_grace_s >= self.stop_timeout_s:
            raise ValueError("termination_grace_s must be below stop_timeout_s")
        return self
