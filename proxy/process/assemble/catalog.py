"""The catalog of blueprints, from the source that the settings name."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from proxy.blueprints.catalog import Catalog, DirectoryCatalog
from proxy.blueprints.follow import Follower, LastGood, first_catalog
from proxy.blueprints.forges import RepositoryFiles
from proxy.blueprints.git import GitSource
from proxy.blueprints.sources import Source
from proxy.http.client import HttpClient
from proxy.onboarding.service import read_secret
from proxy.process.parts import closing, running
from proxy.settings import Settings
from proxy.workspaces.repositories import Repositories


@asynccontextmanager
async def open_catalog(settings: Settings, *, follow: bool = False) -> AsyncIterator[Catalog]:
    """Read the blueprints, and with `follow` again whenever they change.

    Raises: BlueprintInvalid, BlueprintSourceFailed, SettingsError.
    """
    wanted = settings.blueprint
    if wanted.source == "directory":
        yield DirectoryCatalog(settings.blueprint_dir, wanted.metadata)
        return
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_source(settings))
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        last_good = LastGood(settings.state_dir / "blueprints.last-good.json")
        catalog = await first_catalog(source, last_good, wanted.metadata)
        if follow:
            follower = Follower(source, catalog, last_good, wanted.refresh_s)
            await stack.enter_async_context(running(follower))
        yield catalog


@asynccontextmanager
async def open_repositories(settings: Settings) -> AsyncIterator[Repositories]:
    """Hold the reader of repository files; no forge is contacted before the first use.

    Raises: SettingsError for a token that cannot be read.
    """
    door = settings.front_door_in_effect
    wanted = settings.blueprint.repository
    tokens = {
        provider: secret
        for provider, file in wanted.token_files.items()
        if (secret := read_secret(file, f"blueprint.repository.token_files.{provider}")) is not None
    }
    async with (
        closing(HttpClient(door.http)) as http,
        closing(Repositories(wanted, RepositoryFiles(door.providers, http, tokens))) as repositories,
    ):
        yield repositories


@asynccontextmanager
async def open_source(settings: Settings) -> AsyncIterator[Source]:
    """Hold the Git repository or ConfigMap of blueprints, which is not asked yet."""
    if settings.blueprint.source == "git":
        yield GitSource(settings.blueprint.git)
        return
    from proxy.workspaces.kubernetes.api import Api  # slow to import, and most laptops have no cluster
    from proxy.workspaces.kubernetes.configmap import ConfigMapSource

    async with closing(Api(settings.kubernetes)) as api:
        yield ConfigMapSource(api, settings.blueprint.config_map, settings.kubernetes.namespace)
