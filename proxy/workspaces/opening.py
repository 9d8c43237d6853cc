"""Chooses the backend that the settings name, for the proxy and for commands alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.settings import Settings
from proxy.workspaces.backend import Backend
from proxy.workspaces.local import LocalBackend


@asynccontextmanager
async def open_backend(settings: Settings) -> AsyncIterator[Backend]:
    """Hold the configured backend; on leaving it lets go, and workspaces run on.

    Raises: SettingsError when it cannot be used.
    """
    backend = LocalBackend(settings.state_dir, settings.workspace)
    try:
        yield backend
    finally:
        await backend.close()
