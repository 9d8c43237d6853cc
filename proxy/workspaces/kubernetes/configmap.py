"""Blueprints from a ConfigMap: its keys are the names of files, and all of them change at once."""

from proxy.blueprints.sources import Snapshot, is_blueprint
from proxy.errors.blueprints import BlueprintSourceFailed
from proxy.errors.workspaces import ClusterError
from proxy.settings.blueprints import ConfigMapSettings
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import CONFIG_MAP


class ConfigMapSource:
    """One ConfigMap, read when it is asked for; `api` sees to deadlines."""

    def __init__(self, api: Api, settings: ConfigMapSettings, default_namespace: str) -> None:
        self._api = api
        self._name = settings.name
        self._namespace = settings.namespace or default_namespace

    async def fetch(self) -> Snapshot:
        """Give the files as they are now. Raises: BlueprintSourceFailed."""
        try:
            found = await self._api.get(CONFIG_MAP, self._namespace, self._name)
        except ClusterError as exc:
            raise BlueprintSourceFailed(f"ConfigMap {self._namespace}/{self._name}: {exc}") from exc
        files = {
            name: text.encode()
            for name, text in sorted((found.get("data") or {}).items())
            if is_blueprint(name)
        }
        revision = f"{self._namespace}/{self._name} at {found['metadata']['resourceVersion']}"
        return Snapshot(files, revision)
