"""The objects of a workspace, whole, for blueprints that use everything and nothing.

Golden files are written anew with `REWRITE_GOLDEN=1`; then read the difference.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.model import User, WorkspaceName
from proxy.settings.kubernetes import KubernetesSettings, ProxySelector
from proxy.settings.trust import TrustSettings
from proxy.userstring import UserString, parse, workspace_name
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.kubernetes import labels
from proxy.workspaces.kubernetes.manifest import Manifest, build
from tests.unit.proxy.blueprints.reading import parse as parse_blueprint

GOLDEN = Path(__file__).parents[4] / "fixtures" / "manifests"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRUST = {"tls.crt": b"certificate", "tls.key": b"key", "client-ca.crt": b"authority", "token.key": b"secret"}
SETTINGS = KubernetesSettings(
    image_pull_secrets=("registry",),
    proxies=ProxySelector(namespace_labels={"name": "fairlead"}, cidrs=("192.0.2.0/24",)),
)
ISSUER = TrustSettings(
    mode="cert-manager",
    issuer_name="workspaces",
    issuer_kind="ClusterIssuer",
    client_cert_file=Path("/certificate"),
    client_key_file=Path("/key"),
    client_ca_file=Path("/authorities"),
)
CASES = {
    "nothing": "",
    "everything": """
        image: registry.example.com/dev:1
        image_pull_policy: Always
        image_pull_secrets: [team]
        env: {EDITOR: vim}
        resources: {requests: {cpu: 500m}, limits: {memory: 4Gi, nvidia.com/gpu: 1}}
        storages:
          home: {kind: home, size: 20Gi, storage_class: fast}
          data: {kind: shared, path: ~/data, sub_path: mine}
          tools: {kind: shared, scope: blueprint, path: /opt/tools, read_only: true}
          models: {kind: existing, claim: models, path: /models, read_only: true}
          cache: {kind: empty, path: /var/cache/dev, size: 5Gi}
          shm: {kind: memory, path: /dev/shm, size: 1Gi}
        network:
          policy: user
          egress_cidrs: [{cidr: 10.0.0.0/8, excluded: [10.1.0.0/16], ports: [443, 53/udp]}]
          egress_pods: [{pods: {app: db}, namespaces: {team: data}, ports: [5432]}, {namespaces: {}}]
        service_account: builder
        sudo: true
        node:
          selector: {pool: dev}
          tolerations: [{key: dev, value: "yes", effect: NoExecute, seconds: 60}, {operator: Exists}]
          priority_class: low
          runtime_class: gvisor
    """,
    "unprivileged": """
        network: {policy: isolated}
        security: {run_as_user: 1000, drop_capabilities: [ALL], read_only_root: true}
        storages: {home: {kind: home}}
    """,
}


def request(text: str = "", who: str = "alice+dev+user=root", **fields: Any) -> WorkspaceRequest:
    value = parse(who)
    name = WorkspaceName(workspace_name(value, "dev"))
    return WorkspaceRequest(
        name, User(value.user, uid=10_001, id=f"id-of-{value.user}"), parse_blueprint(text), value, **fields
    )


def made(text: str = "", who: str = "alice+dev", settings: KubernetesSettings = SETTINGS) -> Manifest:
    return build(request(text, who), settings, TRUST, now=NOW)


def pod_of(manifest: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = manifest.stateful_set["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("case", CASES)
def test_what_is_made_is_what_was_written_down(case: str) -> None:
    is_golden(build(request(CASES[case]), SETTINGS, TRUST, now=NOW), case)


@pytest.mark.parametrize("case", ["nothing", "unprivileged"])
def test_a_certificate_of_somebody_else_is_asked_for_and_joined_with_what_is_ours(case: str) -> None:
    ours = {name: TRUST[name] for name in ("client-ca.crt", "token.key")}
    manifest = build(request(CASES[case]), SETTINGS, ours, now=NOW, issuer=ISSUER)
    is_golden(manifest, f"{case}-cert-manager")
    assert manifest.hash != build(request(CASES[case]), SETTINGS, TRUST, now=NOW).hash
    (volume,) = (one for one in pod_of(manifest)["volumes"] if one["name"] == "fairlead-trust")
    sources = volume["projected"]["sources"]
    paths = [item["path"] for source in sources for item in source["secret"]["items"]]
    assert sorted(paths) == sorted(TRUST), "shelld finds the same files whoever signs"


def is_golden(manifest: Manifest, case: str) -> None:
    file = GOLDEN / f"{case}.yaml"
    if os.environ.get("REWRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump_all(list(manifest), sort_keys=True, width=100))
    assert list(yaml.safe_load_all(file.read_text())) == list(manifest)


def values(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from values(value)
    elif isinstance(node, list):
        for value in node:
            yield from values(value)


@pytest.mark.parametrize("case", CASES)
def test_every_port_says_its_protocol(case: str) -> None:
    """Server-side apply of 1.20 merges lists of ports by it."""
    ports = [
        port for body in made(CASES[case]) for key, value in values(body) if key == "ports" for port in value
    ]
    assert ports
    assert all("protocol" in port for port in ports)


def test_secrets_are_in_the_secret_only() -> None:
    everything_else = [body for body in made() if body["kind"] != "Secret"]
    assert "c2VjcmV0" not in str(everything_else)
    assert "secret" not in str(made().stateful_set["spec"]["template"]["spec"]["containers"])


def test_a_change_that_the_pod_notices_changes_the_hash_and_a_moment_does_not() -> None:
    plain = made()
    later = build(request(who="alice+dev"), SETTINGS, {}, now=NOW + timedelta(days=1))
    assert later.hash == plain.hash
    different = [made("env: {A: b}"), made("image: other"), made(settings=replace_image("other"))]
    assert len({plain.hash, *(one.hash for one in different)}) == 4
    annotations = plain.stateful_set["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {labels.MANIFEST_HASH: plain.hash}


def replace_image(image: str) -> KubernetesSettings:
    return SETTINGS.model_copy(update={"shelld_image": image})


def test_no_token_of_the_cluster_reaches_a_workspace_that_was_not_given_one() -> None:
    assert pod_of(made())["automountServiceAccountToken"] is False
    assert pod_of(made("service_account: builder"))["automountServiceAccountToken"] is True


def test_the_account_is_the_users_or_the_blueprints() -> None:
    def account(text: str, user: User | None = None) -> Any:
        asked = request(text)
        asked = replace(asked, user=user or asked.user)
        (config,) = [body for body in build(asked, SETTINGS, TRUST, now=NOW) if body["kind"] == "ConfigMap"]
        return yaml.safe_load(config["data"]["shelld.json"])["account"]

    own = {"name": "alice", "uid": 10_001, "gid": 10_001, "home": "/home/alice"}
    assert account("") == own
    assert account("", User("alice", uid=10_001, gid=50)) == own | {"gid": 50}
    assert account("account: dev\nhome: /work") == {"name": "dev", "uid": None, "gid": None, "home": "/work"}
    assert account("account: root") == {"name": "root", "uid": 0, "gid": 0, "home": "/root"}
    unprivileged = "security: {run_as_user: 1000, run_as_group: 100}"
    assert account(unprivileged) == own | {"uid": 1000, "gid": 100}


def test_a_home_is_one_workspaces_and_a_shared_storage_one_persons() -> None:
    storages = "storages: {home: {kind: home}, data: {kind: shared, path: /data}}"
    one, other = (
        build(request(storages, who), SETTINGS, TRUST, now=NOW) for who in ("alice+dev", "alice+repo=a/b")
    )
    homes = [claims[0]["metadata"]["name"] for claims in (one.claims, other.claims)]
    assert homes[0] != homes[1]
    shared = [claims[1]["metadata"] for claims in (one.claims, other.claims)]
    assert shared[0]["name"] == shared[1]["name"] == "shared-user-alice-8b27ada982-data"
    assert labels.WORKSPACE not in shared[0]["labels"]  # so that no purge takes it along


def test_the_note_says_what_means_the_workspace_again() -> None:
    annotations = made(who="alice+dev+user=root").stateful_set["metadata"]["annotations"]
    assert annotations[labels.USER_STRING] == "alice+dev"
    assert UserString("alice", "dev") == parse(annotations[labels.USER_STRING])
