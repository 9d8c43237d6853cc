"""Trust kept in a Secret, so that every proxy of a cluster has the same."""

import base64
import binascii

from proxy.errors.upstream import TrustError
from proxy.errors.workspaces import ClusterConflict, ClusterError, ClusterNotFound
from proxy.trust.store import StoredTrust
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.labels import MANAGED_BY
from proxy.workspaces.kubernetes.objects import SECRET, Object

_KEY = "trust.json"


class SecretStore:
    """The trust.TrustStore of a cluster; the API server refuses the second writer of a version."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name

    async def load(self) -> StoredTrust | None:
        """See TrustStore."""
        try:
            found = await self._api.find(SECRET, self._namespace, self._name)
        except ClusterError as exc:
            raise self._failed(exc) from exc
        if found is None:
            return None
        try:
            data = base64.b64decode(found["data"][_KEY], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise TrustError(f"secret {self._namespace}/{self._name} holds no {_KEY}") from None
        return StoredTrust(data, found["metadata"]["resourceVersion"])

    async def create(self, data: bytes) -> bool:
        """See TrustStore."""
        body = self._body(data)
        body["metadata"]["labels"] = {"app.kubernetes.io/name": "fairlead", MANAGED_BY: "fairlead"}
        try:
            await self._api.create(body)
        except ClusterConflict:
            return False
        except ClusterError as exc:
            raise self._failed(exc) from exc
        return True

    async def replace(self, data: bytes, version: str) -> bool:
        """See TrustStore."""
        body = self._body(data)
        body["metadata"]["resourceVersion"] = version
        try:
            await self._api.merge(SECRET, self._namespace, self._name, body)
        except (ClusterConflict, ClusterNotFound):
            return False
        except ClusterError as exc:
            raise self._failed(exc) from exc
        return True

    def _body(self, data: bytes) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "data": {_KEY: base64.b64encode(data).decode()},
        }

    def _failed(self, exc: ClusterError) -> TrustError:
        return TrustError(f"secret {self._namespace}/{self._name}: {exc}")
