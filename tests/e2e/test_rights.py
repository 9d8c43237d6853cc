"""The rights in `deploy/kubernetes/base/access.yaml` are what a proxy needs: all are used, and no other.

A proxy of this machine does with the rights of that account, through a front door that notes each request,
all that a proxy ever does to a cluster.
"""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from kubernetes import client

from tests.e2e.cluster import Cluster, ClusterFairlead, until, workspace
from tests.fakes.apiserver import Front, serving
from tests.images.docker import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

Right = tuple[str, str, str]
"""Namespace, resource with its group, verb."""

_PATH = re.compile(
    r"/api(?:s/(?P<group>[^/]+))?/v1/namespaces/(?P<ns>[^/]+)/(?P<kind>[^/]+)(?:/(?P<name>[^/]+))?(?P<sub>/[^/]+)?"
)


def rights_of(request: web.Request) -> set[Right]:
    """Say what a request needs (https://kubernetes.io/docs/reference/access-authn-authz/authorization/)."""
    if (found := _PATH.fullmatch(request.path)) is None:
        return {("", request.path, request.method)}
    resource = ".".join(filter(None, (found["kind"], found["group"]))) + (found["sub"] or "")
    reading = "watch" if "watch" in request.query else "list"
    verbs = {
        "GET": {"get" if found["name"] else reading},
        "POST": {"create"},
        # What is applied and not there is made.
        "PATCH": {"patch", "create"} if "apply" in request.content_type else {"patch"},
        "DELETE": {"delete"},
    }
    return {(found["ns"], resource, verb) for verb in verbs[request.method]}


def granted(roles: list[dict[str, object]]) -> set[Right]:
    """Spell out what roles allow."""
    return {
        (role["metadata"]["namespace"], f"{resource}.{group}" if group else resource, verb)  # type: ignore[index]
        for role in roles
        for rule in role["rules"]  # type: ignore[attr-defined]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@contextmanager
def noting_front(upstream: str, token: str, directory: Path, used: set[Right]) -> Iterator[Path]:
    """Stand before the API server with the rights of `token`; give the kubeconfig that leads here."""
    front = Front(upstream, {"Authorization": f"Bearer {token}"})

    async def answer(request: web.Request) -> web.StreamResponse:
        used.update(rights_of(request))
        return await front(request)

    ready, done = threading.Event(), asyncio.Event()
    serving_in: list[tuple[asyncio.AbstractEventLoop, Path]] = []

    async def serve() -> None:
        async with serving(answer, directory) as kubeconfig:
            serving_in.append((asyncio.get_running_loop(), kubeconfig))
            ready.set()
            await done.wait()
        await front.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        loop, kubeconfig = serving_in[0]
        yield kubeconfig
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)


@pytest.fixture
def roles(cluster: Cluster) -> Iterator[tuple[list[dict[str, object]], str, str]]:
    """Apply access.yaml with namespaces of our own; give its roles, the token and the proxies' namespace."""
    text = (ROOT / "deploy/kubernetes/base/access.yaml").read_text()
    own = f"{cluster.namespace}-own"
    text = re.sub(r"(namespace: )fairlead-workspaces\b", rf"\g<1>{cluster.namespace}", text)
    text = re.sub(r"(namespace: )fairlead\b(?!-)", rf"\g<1>{own}", text)
    objects = list(yaml.safe_load_all(text))
    core = cluster.core
    core.create_namespace({"metadata": {"name": own}})
    try:
        rights = client.RbacAuthorizationV1Api(core.api_client)
        make = {
            "ServiceAccount": core.create_namespaced_service_account,
            "Role": rights.create_namespaced_role,
            "RoleBinding": rights.create_namespaced_role_binding,
        }
        for one in objects:
            make[one["kind"]](one["metadata"]["namespace"], one)
        spec = {"spec": {"expirationSeconds": 3_600}}
        token = core.create_namespaced_service_account_token("fairlead", own, spec).status.token
        yield [one for one in objects if one["kind"] == "Role"], token, own
    finally:
        core.delete_namespace(own)


def test_every_right_is_needed_and_no_other(
    cluster: Cluster, roles: tuple[list[dict[str, object]], str, str], tmp_path: Path
) -> None:
    declared, token, own = roles
    used: set[Right] = set()
    host = cluster.core.api_client.configuration.host
    with noting_front(host, token, tmp_path, used) as kubeconfig:
        settings = {
            "kubernetes": {"kubeconfig": str(kubeconfig)},
            "trust": {"secret_namespace": own},
            "blueprint": {
                "source": "config_map",
                "config_map": {"name": "fairlead-blueprints", "namespace": own},
            },
        }
        proxy = ClusterFairlead(tmp_path / "proxy", cluster=cluster, settings=settings)
        with cluster.storage_class(tmp_path, volumes=1) as storage_class:
            home = f"storages: {{home: {{kind: home, size: 1Gi, storage_class: {storage_class}}}}}\n"
            blueprints = {
                "dev.yaml": home,
                "broken.yaml": "image: fairlead-e2e-nowhere:1\nimage_pull_policy: Never\n",
            }
            cluster.core.create_namespaced_config_map(
                own, {"metadata": {"name": "fairlead-blueprints"}, "data": blueprints}
            )
            proxy.prepare()
            proxy.start()
            try:
                _do_everything(proxy, used)
            finally:
                proxy.close()
    assert "403" not in proxy.log
    assert used == granted(declared)


def _do_everything(proxy: ClusterFairlead, used: set[Right]) -> None:
    def fails() -> bool:
        assert proxy.ssh("true", "-l", "alice+broken", timeout_s=120).returncode == 255
        return any(right[1:] == ("pods", "delete") for right in used)

    name = workspace("alice+dev")
    assert proxy.ssh("true", timeout_s=120).returncode == 0
    until("a pod that failed some seconds ago is taken away", fails)
    assert "serving" in proxy.cli("workspace", "logs", name)
    assert json.loads(proxy.cli("workspace", "events", name, "--json"))
    assert len(json.loads(proxy.cli("workspace", "list", "--json"))) == 2
    proxy.cli("trust", "rotate")
    proxy.cli("workspace", "stop", name)
    proxy.cli("workspace", "start", name)
    proxy.cli("workspace", "give", name, "alice")
    proxy.cli("workspace", "delete", "--purge", name)
