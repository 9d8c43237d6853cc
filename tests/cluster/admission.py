"""An admission webhook of this machine, for a real API server that can call back."""

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import Kind
from tests.cluster.cluster import Cluster
from tests.fakes.certificates import Authority

HOOKS = Kind(
    "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "admissionregistration.k8s.io/v1"
)

Judge = Callable[[dict[str, Any]], str]
"""Returns why an admission request is refused; empty to let it pass."""


@asynccontextmanager
async def judged(kube: Cluster, directory: Path, judge: Judge, **changed: Any) -> AsyncIterator[None]:
    """Have every new pod of our namespace judged by `judge`; `changed` are fields of the webhook."""
    if not await is_here(kube):
        pytest.skip("needs an API server of this machine, which can call back")

    async def answer(asked: web.BaseRequest) -> web.Response:
        review = await asked.json()
        refusal = judge(review["request"])
        response: dict[str, Any] = {"uid": review["request"]["uid"], "allowed": not refusal}
        if refusal:
            response["status"] = {"message": refusal}
        return web.json_response(
            {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        )

    authority = Authority()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("localhost").write(directory, "hook"))
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        async with hook(kube, f"https://localhost:{runner.addresses[0][1]}/", authority.pem, **changed):
            yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def hook(kube: Cluster, url: str, authority: bytes, **changed: Any) -> AsyncIterator[None]:
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
        **changed,
    }
    body = {"apiVersion": HOOKS.api, "kind": HOOKS.name, "metadata": {"name": kube.namespace}}
    await kube.api.create({**body, "webhooks": [webhook]})
    try:
        yield
    finally:
        await kube.api.delete(HOOKS, "", kube.namespace)


async def is_here(kube: Cluster) -> bool:
    """Whether the API server runs on this machine."""
    api = Api(kube.settings())
    host = urlsplit((await api._open()).configuration.host).hostname
    await api.close()
    return host in {"127.0.0.1", "localhost", "::1"}
