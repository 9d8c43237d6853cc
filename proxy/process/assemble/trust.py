"""The trust of an installation: its store and its signer, from the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.process.parts import closing
from proxy.settings import Settings
from proxy.trust.certmanager import MountedIdentity
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore, TrustStore


@asynccontextmanager
async def open_trust(settings: Settings) -> AsyncIterator[TrustManager]:
    """Hold the trust of this installation, not yet read. See `TrustManager.open`."""
    identity = MountedIdentity.of(settings.trust) if settings.trust.mode == "cert-manager" else None
    async with (
        _store(settings) as store,
        closing(TrustManager(store, settings.trust, identity=identity)) as keeper,
    ):
        yield keeper


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[TrustStore]:
    if not uses_tcp(settings):
        yield FileTrustStore(settings.trust_file)
        return
    # Slow to import, and most laptops have no cluster.
    from proxy.workspaces.kubernetes.api import Api
    from proxy.workspaces.kubernetes.secrets import SecretStore

    namespace = settings.trust.secret_namespace or settings.kubernetes.namespace
    async with closing(Api(settings.kubernetes)) as api:
        yield SecretStore(api, namespace, settings.trust.secret_name)


def uses_tcp(settings: Settings) -> bool:
    """Return whether workspaces are reached over TCP, and so need trust."""
    return settings.workspace.backend != "local"
