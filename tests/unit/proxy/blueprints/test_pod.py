"""The fields of a cluster: what is read, what is worked out, what is refused."""

from decimal import Decimal

import pytest

from proxy.blueprints.pod import (
    EgressCidr,
    EgressPods,
    Network,
    Port,
    Resources,
    Security,
    Storage,
    Toleration,
)
from proxy.blueprints.values import amount
from proxy.errors.blueprints import BlueprintInvalid
from tests.unit.proxy.blueprints.reading import parse

FULL = """
image: registry.example.com:5000/team/dev:1.2@sha256:0123456789abcdef0123456789abcdef
image_pull_policy: Always
image_pull_secrets: [registry]
resources:
  requests: {cpu: 0.5, memory: 1Gi}
  limits: {cpu: 2, memory: 4Gi, nvidia.com/gpu: 1}
storages:
  home: {kind: home, size: 20Gi, storage_class: fast}
  team: {kind: shared, path: /team, scope: blueprint}
  data: {kind: existing, path: ~/data, claim: data, sub_path: a/b, read_only: true}
  scratch: {kind: empty, path: /scratch, size: 5Gi}
  shm: {kind: memory, path: /dev/shm, size: 1Gi}
network:
  policy: user
  egress_cidrs: [{cidr: 10.0.0.0/8, excluded: [10.1.0.0/16], ports: [443, "53/udp"]}]
  egress_pods: [{pods: {app: db}, namespaces: {}, ports: [5432]}]
security:
  run_as_user: 1000
  drop_capabilities: [ALL]
  seccomp_profile: localhost/dev.json
service_account: builder
node:
  selector: {pool: dev, node.example.com/disk: ssd}
  tolerations: [{key: gpu, operator: Exists, effect: NoExecute, seconds: 60}]
  priority_class: low
  runtime_class: gvisor
account: dev
home: /home/dev
access: {users: [a*], groups: [acme/dev]}
quota: {total: 10, running: 2}
lifetime_s: 86400
stop_hold_s: 60
"""


def test_every_field_of_a_cluster_is_read() -> None:
    blueprint = parse(FULL)
    assert blueprint.resources == Resources(
        requests={"cpu": "0.5", "memory": "1Gi"}, limits={"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    )
    assert blueprint.storages["home"] == Storage(kind="home", size="20Gi", storage_class="fast")
    assert blueprint.network == Network(
        policy="user",
        egress_cidrs=(
            EgressCidr(
                cidr="10.0.0.0/8",
                excluded=("10.1.0.0/16",),
                ports=(Port(port=443), Port(port=53, protocol="UDP")),
            ),
        ),
        egress_pods=(EgressPods(pods={"app": "db"}, namespaces={}, ports=(Port(port=5432),)),),
    )
    assert blueprint.security == Security(
        run_as_user=1000, drop_capabilities=("ALL",), seccomp_profile="localhost/dev.json"
    )
    assert blueprint.node.tolerations == (
        Toleration(key="gpu", operator="Exists", effect="NoExecute", seconds=60),
    )
    assert (blueprint.account, blueprint.home, blueprint.service_account) == ("dev", "/home/dev", "builder")
    assert (blueprint.quota.total, blueprint.quota.running) == (10, 2)
    assert (blueprint.lifetime_s, blueprint.stop_hold_s) == (86_400, 60)


def test_what_a_claim_asks_for_has_defaults_by_kind() -> None:
    home, shared = Storage(kind="home"), Storage(kind="shared", path="~")
    assert (home.mount_path, home.claim_access_modes) == ("~", ("ReadWriteOnce",))
    assert shared.claim_access_modes == ("ReadWriteMany",)
    assert parse("storages: {all: {kind: shared, path: '~'}}").home_storage == "all"
    assert parse("storages: {tmp: {kind: empty, path: /x}}").home_storage == ""


def test_sudo_is_what_needs_setuid_programs() -> None:
    assert not parse("").allow_privilege_escalation
    assert parse("sudo: true").allow_privilege_escalation
    assert parse("security: {allow_privilege_escalation: true}").allow_privilege_escalation


@pytest.mark.parametrize(
    ("quantity", "number"),
    [("2", "2"), ("500m", "0.5"), ("1Ki", "1024"), ("1.5Gi", "1610612736"), ("1e3", "1000"), ("3k", "3000"),
     ("1E", "1000000000000000000"), ("1n", "0.000000001"), (".5", "0.5")],
)  # fmt: skip
def test_quantities_are_numbers(quantity: str, number: str) -> None:
    assert amount(quantity) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("image: 'a b'", "image", "'a b' is not an image such as"),
        ("image: /x", "image", "is not an image"),
        ("image_pull_policy: never", "image_pull_policy", "'Always', 'IfNotPresent' or 'Never'"),
        ("resources: {limits: {cpu: lots}}", "resources.limits.cpu", "not an amount such as 2, 500m or 10Gi"),
        ("resources: {limits: {cpu: -1}}", "resources.limits.cpu", "not an amount"),
        ("resources: {limits: {cpu: true}}", "resources.limits.cpu", "text is expected"),
        ("resources: {limits: {gpu: 1}}", "resources.limits.gpu", "is not a resource"),
        (
            "resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}",
            "resources.requests.cpu",
            "more than the 1500m of limits.cpu",
        ),
        ("resources: {requests: {a.b/gpu: 1}}", "resources.requests.a.b/gpu", "is given in limits"),
        ("storages: {h: {kind: home, path: /x}}", "storages.h.path", "of kind home has no path"),
        ("storages: {h: {kind: empty}}", "storages.h", "of kind empty needs a path"),
        ("storages: {h: {kind: existing, path: /x}}", "storages.h", "needs the name of its claim"),
        ("storages: {h: {kind: memory, path: /x, storage_class: a}}", "storages.h.storage_class", "has no"),
        ("storages: {h: {kind: disk, path: /x}}", "storages.h.kind", "'home', 'shared'"),
        ("storages: {h: {kind: empty, path: x}}", "storages.h.path", "an absolute path"),
        ("storages: {h: {kind: empty, path: '/a:b'}}", "storages.h.path", "without a colon"),
        ("storages: {H_: {kind: home}}", "storages.H_", "lower-case letters"),
        ("storages: {a: {kind: home}, b: {kind: empty, path: '~'}}", "storages.b", "place of storage a"),
        ("storages: {a: {kind: home, access_modes: [rwo]}}", "storages.a.access_modes[0]", "ReadWriteOnce"),
        ("storages: {a: {kind: home, access_modes: []}}", "storages.a.access_modes", "at least 1"),
        (
            "storages: {a: {kind: shared, path: /x, sub_path: ../x}}",
            "storages.a.sub_path",
            "without leading / and ..",
        ),
        ("network: {policy: closed}", "network.policy", "'isolated', 'user'"),
        (
            "network: {egress_cidrs: [{cidr: 10.0.0.1/8}]}",
            "network.egress_cidrs[0].cidr",
            "has host bits set",
        ),
        (
            "network: {egress_cidrs: [{cidr: 10.0.0.0/8, ports: [x]}]}",
            "network.egress_cidrs[0].ports[0]",
            "not a port such as 443 or 53/udp",
        ),
        (
            "network: {egress_cidrs: [{cidr: 10.0.0.0/8, ports: [0]}]}",
            "network.egress_cidrs[0].ports[0].port",
            "greater than or equal to 1",
        ),
        ("network: {egress_pods: [{pods: {a: 'b c'}}]}", "network.egress_pods[0].pods.a", "label"),
        ("security: {run_as_group: 5}", "security.run_as_group", "needs run_as_user"),
        ("security: {add_capabilities: [CAP_CHOWN]}", "security.add_capabilities[0]", "not a capability"),
        (
            "sudo: true\nsecurity: {allow_privilege_escalation: false}",
            "security.allow_privilege_escalation",
            "sudo needs it",
        ),
        ("sudo: true\nsecurity: {run_as_user: 5}", "sudo", "this needs root"),
        ("accounts: [x]\nsecurity: {run_as_user: 5}", "accounts", "this needs root"),
        ("node: {tolerations: [{}]}", "node.tolerations[0]", "needs operator Exists"),
        ("node: {tolerations: [{operator: Exists, value: x}]}", "node.tolerations[0].value", "no value"),
        ("node: {tolerations: [{key: a, seconds: 1}]}", "node.tolerations[0].seconds", "NoExecute"),
        ("node: {selector: {'-': x}}", "node.selector.-", "the key of a Kubernetes label"),
        ("access: {groups: ['']}", "access.groups[0]", "not a name, or a pattern"),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(text: str, where: str, reason: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        parse(text)
    assert caught.value.where.split(": ", 1)[1] == where
    assert reason in caught.value.reason
