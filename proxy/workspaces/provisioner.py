"""From a person who has logged in to a workspace that answers: decide which, then ensure it."""

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.resolve import resolve_name
from proxy.blueprints.schema import Blueprint
from proxy.errors import Refused, WorkspaceNotFound
from proxy.model import Endpoint, Phase, Principal, Progress, User, WorkspaceName
from proxy.userstring import UserString, workspace_name
from proxy.workspaces.backend import Backend, Report, WorkspaceRecord, WorkspaceRequest


class Workspaces:
    """Every workspace that users of this installation may be in."""

    def __init__(self, catalog: Catalog, backend: Backend, default_blueprint: str) -> None:
        self._backend = backend
        self._catalog = catalog
        self._default = default_blueprint

    async def ensure(self, principal: Principal, report: Report) -> Endpoint:
        """Bring the workspace that the user string means to where it answers; joins a start under way.

        Raises: BlueprintNotFound, WorkspaceNotFound, Refused, WorkspaceStartFailed, ReadyTimeout.
        """
        return await self.start(principal.user, principal.attempt.user_string, report)

    async def start(self, user: User, value: UserString, report: Report) -> Endpoint:
        """Do as `ensure` for a user who need not be connected."""
        request = await self.request(user, value)
        endpoint = await self._backend.ensure(request, report)
        if request.blueprint.init:
            # shelld answers before they have ended, and lets programs wait for them.
            report(Progress(Phase.STARTING, f"waiting for workspace {request.name} and its init scripts"))
        return endpoint

    async def blueprint(self, principal: Principal) -> Blueprint:
        """Give the blueprint in effect. Raises: as `ensure`, but for starting."""
        return (await self.request(principal.user, principal.attempt.user_string)).blueprint

    async def request(self, user: User, value: UserString) -> WorkspaceRequest:
        """Decide which workspace is meant, and whether it may be entered as the account asked for."""
        features = self._backend.features
        blueprint_name = resolve_name(
            value,
            default=self._default,
            repositories=features.repositories,
            workloads=features.workloads,
        )
        if not blueprint_name:
            record = own_record(await self._backend.find(value.pod), value.pod, user.name)
            blueprint_name = record.blueprint
        blueprint = self._catalog.get(blueprint_name)
        check_account(value.account, blueprint, own=features.account)
        return request_of(value, user, blueprint)


def request_of(value: UserString, user: User, blueprint: Blueprint) -> WorkspaceRequest:
    """Name the workspace. Pure."""
    name = WorkspaceName(workspace_name(value, blueprint.name))
    return WorkspaceRequest(name, user, blueprint, value, may_create=not value.pod)


def own_record(record: WorkspaceRecord | None, name: str, user: str) -> WorkspaceRecord:
    """Let through a record of this user's. Pure.

    Raises: WorkspaceNotFound, in the same words whether there is none or it is somebody else's.
    """
    if record is None or record.user != user:
        raise WorkspaceNotFound(f"there is no workspace {name!r} of {user}")
    return record


def check_account(account: str, blueprint: Blueprint, *, own: str) -> None:
    """Make sure that `user=account` may be asked for. Pure.

    Raises: Refused, saying what is allowed.
    """
    if not account or account == own or account in blueprint.accounts:
        return
    allowed = ", ".join(dict.fromkeys([*([own] if own else []), *blueprint.accounts]))
    raise Refused(
        f"blueprint {blueprint.name} has no account {account!r} to log in as"
        + (f"; it has: {allowed}" if allowed else "")
    )
