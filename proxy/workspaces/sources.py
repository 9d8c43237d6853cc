"""Where the blueprints of this installation are kept: opens the source that the settings name."""

from proxy.blueprints.catalog import Catalog, DirectoryCatalog
from proxy.settings import Settings


async def open_catalog(settings: Settings) -> Catalog:
    """Read the blueprints for the first time.

    Raises: BlueprintInvalid.
    """
    return DirectoryCatalog(settings.blueprint_dir, settings.blueprint.metadata)
