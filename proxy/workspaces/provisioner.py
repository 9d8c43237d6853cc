"""From a person who has logged in to a workspace that answers: decide which, then ensure it."""

from dataclasses import replace

from proxy import policy
from proxy.blueprints.catalog import Catalog
from proxy.blueprints.resolve import resolve, resolve_name
from proxy.blueprints.schema import Blueprint
from proxy.errors.login import UserStringInvalid
from proxy.errors.programs import Refused
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import Endpoint, Phase, Principal, Progress, User, WorkspaceName
from proxy.settings.blueprints import BlueprintSettings
from proxy.userstring import UserString, parse, workspace_name
from proxy.workspaces.backend import Backend, Report, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.quotas import Quotas
from proxy.workspaces.repositories import Repositories
from proxy.workspaces.told import Tell, Told, tell_nobody


class Workspaces:
    """Every workspace that users of this installation may be in."""

    def __init__(
        self,
        catalog: Catalog,
        backend: Backend,
        settings: BlueprintSettings,
        tell: Tell = tell_nobody,
        *,
        repositories: Repositories | None = None,
        hold_s: float = 0,
    ) -> None:
        """`hold_s` is how long connections respect a stop that somebody asked for."""
        self._told = Told(tell)
        self._repositories = repositories if repositories and repositories.are_served else None
        self._backend = backend
        self._catalog = catalog
        self._settings = settings
        self._hold_s = hold_s
        self._quotas = Quotas(backend, settings.rules)

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Bring a workspace to where it answers, for a connection; joins a start under way.

        A connection alone does not undo a stop that somebody asked for lately.

        Raises: WorkspaceNotFound, Refused, WorkspaceHeld, WorkspaceStartFailed, ReadyTimeout.
        """
        return await self._ensure(replace(request, hold_s=self.hold_s(request.blueprint)), report)

    def hold_s(self, blueprint: Blueprint) -> float:
        """Say for how many seconds a stop that somebody asked for is respected."""
        return self._hold_s if blueprint.stop_hold_s is None else blueprint.stop_hold_s

    async def start(self, user: User, value: UserString, report: Report) -> Endpoint:
        """Start a workspace because somebody asks for that, whoever stopped it before.

        The user need not be connected. Raises: as `request` and `ensure`, but not WorkspaceHeld.
        """
        return await self._ensure(await self.request(user, value), report)

    async def _ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        with self._told.start(request, report) as attempt:
            async with self._quotas.admitted(request):
                endpoint = attempt.endpoint = await self._backend.ensure(request, attempt.report)
        if request.blueprint.init:
            # shelld answers before they have ended, and lets programs wait for them.
            report(Progress(Phase.STARTING, f"waiting for workspace {request.name} and its init scripts"))
        return endpoint

    async def request_of(self, principal: Principal) -> WorkspaceRequest:
        """Decide what a connection's user string means now. Raises: as `request`."""
        return await self.request(principal.user, principal.attempt.user_string)

    async def entrance_of(self, principal: Principal, default: str = "") -> str:
        """Name the blueprint that a connection leads to, when its user may enter now.

        `default` stands in where the user string names none: another may be the user's default by now.

        Raises: as `request`.
        """
        value = principal.attempt.user_string
        if default and not value.blueprint and not value.repo and not value.pod:
            value = replace(value, blueprint=default)
        request = await self.request(principal.user, value)
        self._backend.check_access(request)
        return request.blueprint.name

    async def request(self, user: User, value: UserString) -> WorkspaceRequest:
        """Decide which workspace is meant, and whether it may be entered as the account asked for.

        Raises: BlueprintError, WorkspaceNotFound, Refused.
        """
        features = self._backend.features
        name = resolve_name(
            value,
            default=policy.default_blueprint(user, self._settings.rules, self._settings.default),
            repositories=features.repositories and self._repositories is not None,
            workloads=features.workloads,
        )
        if not name:
            record = own_record(await self._backend.find(value.pod), value.pod, user.name)
            name, value = record.blueprint, origin_of(record, value)
        blueprint, key = await self._resolved(name, user, value)
        check_account(value.account, blueprint, own=features.account or blueprint.account or user.name)
        return named_request(value, user, blueprint, key)

    async def _resolved(self, name: str, user: User, value: UserString) -> tuple[Blueprint, str]:
        """Give the blueprint in effect, and what stands for it in the workspace's name."""
        blueprints = self._catalog.current(wanted=name)
        if value.repo and self._repositories is not None:
            return await self._repositories.blueprint(blueprints, user, value), self._repositories.key()
        return resolve(blueprints, name, user, value), name


def named_request(value: UserString, user: User, blueprint: Blueprint, key: str) -> WorkspaceRequest:
    """Name the workspace; `key` stands for the blueprint in that. Pure."""
    name = WorkspaceName(workspace_name(value, key))
    return WorkspaceRequest(name, user, blueprint, value, may_create=not value.pod)


def origin_of(record: WorkspaceRecord, asked: UserString) -> UserString:
    """Say what a workspace that was found by name was once made for; the account is asked for anew. Pure."""
    try:
        origin = parse(record.user_string)
    except UserStringInvalid:  # an older release kept none
        return asked
    return replace(origin, pod=asked.pod, account=asked.account)


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
