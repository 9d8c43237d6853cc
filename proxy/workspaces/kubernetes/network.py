"""The permitted connections to and from a workspace, as a NetworkPolicy. Pure.

In every class, only proxies reach shelld by right of this policy alone: peers of the
classes `user`, `blueprint` and `organization` may connect to every port, and shelld's own refuses them
without certificate and token.
"""

from collections.abc import Mapping

from proxy.blueprints.pod import EgressCidr, EgressPods, Network, Port
from proxy.settings.kubernetes import ProxySelector
from proxy.workspaces.kubernetes import labels
from proxy.workspaces.kubernetes.bundle import PORT
from proxy.workspaces.kubernetes.objects import Object

_NODE_LOCAL_DNS = "169.254.20.10/32"
_DNS_PORTS = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]


def network_policy_spec(
    network: Network, workspace_labels: Mapping[str, str], proxies: ProxySelector
) -> Object:
    """Give the `spec` for a workspace with these labels."""
    spec: Object = {
        "podSelector": {"matchLabels": {labels.WORKSPACE: workspace_labels[labels.WORKSPACE]}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": _proxies(proxies), "ports": [{"protocol": "TCP", "port": PORT}]}],
    }
    if peers := _peers(network, workspace_labels):
        spec["ingress"].append({"from": peers})
    if network.policy == "open":
        spec["egress"] = [{}]
        return spec
    spec["egress"] = [
        {
            "to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": _NODE_LOCAL_DNS}}],
            "ports": _DNS_PORTS,
        },
        *([{"to": _peers(network, workspace_labels)}] if peers else []),
        *map(_to_cidr, network.egress_cidrs),
        *map(_to_pods, network.egress_pods),
    ]
    return spec


def _peers(network: Network, workspace_labels: Mapping[str, str]) -> list[Object]:
    shared: dict[str, list[str]] = {
        "user": [labels.OWNER],  # not the name, which an earlier user may have had
        "blueprint": [labels.BLUEPRINT],
        "organization": [],
    }
    if (wanted := shared.get(network.policy)) is None:
        return []
    alike = {key: workspace_labels[key] for key in (labels.MANAGED_BY, "app.kubernetes.io/name", *wanted)}
    return [{"podSelector": {"matchLabels": alike}}]


def _proxies(proxies: ProxySelector) -> list[Object]:
    pods: Object = {"podSelector": {"matchLabels": dict(proxies.pod_labels)}}
    if proxies.namespace_labels:
        pods["namespaceSelector"] = {"matchLabels": dict(proxies.namespace_labels)}
    return [pods, *({"ipBlock": {"cidr": cidr}} for cidr in proxies.cidrs)]


def _to_cidr(rule: EgressCidr) -> Object:
    block: Object = {"cidr": rule.cidr}
    if rule.excluded:
        block["except"] = list(rule.excluded)
    return {"to": [{"ipBlock": block}], **_ports(rule.ports)}


def _to_pods(rule: EgressPods) -> Object:
    peer: Object = {"podSelector": {"matchLabels": dict(rule.pods)} if rule.pods else {}}
    if rule.namespaces is not None:
        peer["namespaceSelector"] = {"matchLabels": dict(rule.namespaces)} if rule.namespaces else {}
    return {"to": [peer], **_ports(rule.ports)}


def _ports(ports: tuple[Port, ...]) -> Object:
    return {"ports": [{"protocol": one.protocol, "port": one.port} for one in ports]} if ports else {}
