"""Renewal of certificates and keys of running and stopped workspaces, before they expire.

Only the Secret changes: kubelet brings it into the pod, and shelld reads its files again when they change.
"""

import asyncio

import structlog

from proxy.errors.workspaces import ClusterNotFound
from proxy.trust.authority import server_name
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.labels import ALL_WORKSPACES, workspace_of
from proxy.workspaces.kubernetes.manifest import encoded
from proxy.workspaces.kubernetes.objects import SECRET, STATEFUL_SET, name_of
from proxy.workspaces.kubernetes.startup import Trust, decoded

EVERY_S = 3_600.0
"""Certificates last for months and are renewed a month ahead."""

_log = structlog.get_logger("kubernetes")


class Renewal:
    """A regular check of the Secrets of workspaces: every hour, and at every step of a rotation."""

    def __init__(self, api: Api, namespace: str, trust: Trust) -> None:
        self._api = api
        self._namespace = namespace
        self._trust = trust
        self._done_for: object = None
        self._again_at = 0.0

    async def run(self) -> None:
        """Renew the Secrets that are due. Raises: ClusterError, TrustError."""
        now = asyncio.get_running_loop().time()
        state = self._trust.rotation_state
        if state == self._done_for and now < self._again_at:
            return
        # Secrets are read one by one: proxies have no right to list those of a namespace.
        listing = await self._api.list(Query(STATEFUL_SET, self._namespace, ALL_WORKSPACES))
        renewed = 0
        for stateful_set in listing.items:
            renewed += await self._renew(name_of(stateful_set))
        if renewed:
            _log.info("secrets renewed", count=renewed)
        self._done_for, self._again_at = state, now + EVERY_S

    async def _renew(self, name: str) -> bool:
        """Change the Secret of one workspace, if anything in it must; tell whether that was so."""
        secret = await self._api.find(SECRET, self._namespace, name)
        if secret is None or workspace_of(secret) != name:
            return False
        present = decoded(secret)
        files = self._trust.workspace_files(name, server_name(name, self._namespace), present)
        if all(present.get(file) == data for file, data in files.items()):
            return False
        try:
            await self._api.merge(SECRET, self._namespace, name, {"data": encoded(files)})
        except ClusterNotFound:  # deleted meanwhile
            return False
        return True
