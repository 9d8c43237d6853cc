"""The workspace backend that the settings name."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from proxy.process.assemble.trust import open_trust
from proxy.settings import Settings
from proxy.trust.manager import TrustManager
from proxy.workspaces.backend import Backend
from proxy.workspaces.local.backend import LocalBackend


@asynccontextmanager
async def open_backend(settings: Settings, trust: TrustManager | None = None) -> AsyncIterator[Backend]:
    """Hold the configured backend; workspaces go on after leaving.

    `trust` is read already; None reads it here, for a backend that needs it.

    Raises: SettingsError when it cannot be used, TrustError.
    """
    async with AsyncExitStack() as stack:
        backend = await _made(settings, trust, stack)
        stack.push_async_callback(backend.close)
        yield backend


async def _made(settings: Settings, trust: TrustManager | None, stack: AsyncExitStack) -> Backend:
    if settings.workspace.backend == "local":
        return LocalBackend(settings.state_dir, settings.workspace)
    from proxy.workspaces.kubernetes.backend import KubernetesBackend  # slow to import

    if trust is None:
        trust = await stack.enter_async_context(open_trust(settings))
        await trust.open()
    return KubernetesBackend(settings.kubernetes, trust, start_timeout_s=settings.workspace.start_timeout_s)
