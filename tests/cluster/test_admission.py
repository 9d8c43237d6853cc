"""Rules of a cluster that refuse a pod, asked by a real API server."""

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.errors.workspaces import WorkspaceUnstartable
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import Kind
from tests.cluster.cluster import Cluster, request, silent

HOOKS = Kind(
    "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "admissionregistration.k8s.io/v1"
)


def certificate(directory: Path) -> tuple[bytes, ssl.SSLContext]:
    """Make a certificate for localhost; gives it, and a context that serves with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    file = directory / "hook.pem"
    file.write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return pem, context


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
    pem, context = certificate(tmp_path)
    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    async with hook(kube, f"https://localhost:{runner.addresses[0][1]}/", pem), kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request(), silent)
    await runner.cleanup()
    assert caught.value.user_message == "a rule of the cluster refuses it: only images of example.com"


async def test_a_rule_that_does_not_answer_is_told(kube: Cluster, tmp_path: Path) -> None:
    pem, _ = certificate(tmp_path)
    async with hook(kube, "https://localhost:1/", pem), kube.proxy() as backend:
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
