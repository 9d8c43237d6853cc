"""Rules of a cluster that refuse a pod, asked by a real API server."""

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from proxy.errors.workspaces import WorkspaceUnstartable
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import Kind
from tests.cluster.cluster import Cluster, request, silent
from tests.fakes.certificates import Authority

HOOKS = Kind(
    "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "admissionregistration.k8s.io/v1"
)


async def refuse(asked: web.Request) -> web.Response:
    review = await asked.json()
    answer = {
        "uid": review["request"]["uid"],
        "allowed": False,
        "status": {"message": "only images of example.com"},
    }
    return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": answer})


@asynccontextmanager
async def hook(kube: Cluster, url: str, authority: bytes) -> AsyncIterator[None]:
    """Have every pod of our namespace, and of no other, approved of at `url`."""
    await kube.api.merge(
        Kind("Namespace", "namespaces"), "", kube.namespace, {"metadata": {"labels": {"of": kube.namespace}}}
    )
    webhook = {
        "name": "images.example.com",
        "clientConfig": {"url": url, "caBundle": b64encode(authority).decode()},
        "namespaceSelector": {"matchLabels": {"of": kube.namespace}},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
        ],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
    }
    body = {"apiVersion": HOOKS.api, "kind": HOOKS.name, "metadata": {"name": kube.namespace}}
    await kube.api.create({**body, "webhooks": [webhook]})
    try:
        yield
    finally:
        await kube.api.delete(HOOKS, "", kube.namespace)


async def test_a_rule_that_refuses_says_so_in_its_own_words(kube: Cluster, tmp_path: Path) -> None:
    if not await is_here(kube):
        pytest.skip("needs an API server of this machine, which can call back")
    authority = Authority()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("localhost").write(tmp_path, "hook"))
    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    async with (
        hook(kube, f"https://localhost:{runner.addresses[0][1]}/", authority.pem),
        kube.proxy() as backend,
    ):
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request(), silent)
    await runner.cleanup()
    assert caught.value.user_message == "a rule of the cluster refuses it: only images of example.com"


async def test_a_rule_that_does_not_answer_is_told(kube: Cluster) -> None:
    async with hook(kube, "https://localhost:1/", Authority().pem), kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable, match="failed calling webhook") as caught:
            await backend.ensure(request(), silent)
    assert "a service that must approve of it does not answer" in caught.value.user_message
    async with kube.proxy() as backend:
        assert await backend.ensure(request(), silent), "and its answer is noticed"


async def is_here(kube: Cluster) -> bool:
    api = Api(kube.settings())
    host = urlsplit((await api._open()).configuration.host).hostname
    await api.close()
    return host in {"127.0.0.1", "localhost", "::1"}
