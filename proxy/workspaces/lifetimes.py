"""How long a workspace that exists may do nothing, and live: what its blueprint in effect says."""

from dataclasses import replace

from proxy.access.policy import Bounds
from proxy.errors.stores import UserNotFound
from proxy.identity.directory import Directory
from proxy.settings import WorkspaceSettings
from proxy.userstring import UserString
from proxy.workspaces.backend import WorkspaceRecord
from proxy.workspaces.ownership import title_to
from proxy.workspaces.provisioner import Workspaces


class BlueprintBounds:
    """Asks for the same blueprint that the owner's next login would get."""

    def __init__(self, workspaces: Workspaces, directory: Directory, settings: WorkspaceSettings) -> None:
        """`settings` have the installation's word, where the blueprint says nothing."""
        self._workspaces = workspaces
        self._directory = directory
        self._settings = settings

    async def __call__(self, record: WorkspaceRecord) -> Bounds:
        """Raises: FairleadError when blueprint or user are not there any more; then nobody knows."""
        user = await self._directory.find(record.user)
        if user is None or not title_to(record, user):
            raise UserNotFound(f"the user {record.user} of workspace {record.name} is no user any more")
        # Bounds give nothing, and a workspace whose user is away for long is to be stopped all the same.
        user = replace(user, groups=user.restricting_groups)
        asked = UserString(user.name, pod=record.name)
        blueprint = (await self._workspaces.request(user, asked)).blueprint
        own_idle_s, own_lifetime_s = blueprint.idle_stop_s, blueprint.lifetime_s
        return Bounds(
            self._settings.idle_stop_s if own_idle_s is None else own_idle_s,
            self._settings.lifetime_s if own_lifetime_s is None else own_lifetime_s,
            self._settings.lifetime_warn_s,
        )
