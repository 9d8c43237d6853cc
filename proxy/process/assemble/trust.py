"""The trust of an installation: its store and its signer, from the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.settings import Settings
from proxy.trust.certmanager import MountedIdentity
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore, TrustStore


@asynccontextmanager
async def open_trust(settings: Settings) -> AsyncIterator[TrustManager]:
    """Hold the trust of this installation, not yet read. See `TrustManager.open`."""
    identity = MountedIdentity.of(settings.trust) if settings.trust.mode == "cert-manager" else None
    async with _store(settings) as store:
        keeper = TrustManager(store, settings.trust, identity=identity)
        try:
            yield keeper
        finally:
            await keeper.close()


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[TrustStore]:
    if not uses_tcp(settings):
        yield FileTrustStore(settings.trust_file)
        return
    # Slow to import, and most laptops have no cluster.
    from proxy.workspaces.kubernetes.api import Api
    from proxy.workspaces.kubernetes.secrets import SecretStore

    api = Api(settings.kubernetes)
    namespace = settings.trust.secret_namespace or settings.kubernetes.namespace
    try:
        yield SecretStore(api, namespace, settings.trust.secret_name)
    finally:
        await api.close()


def uses_tcp(settings: Settings) -> bool:
    """Return whether workspaces are reached over TCP, and so need trust."""
    return settings.workspace.backend != "local"
