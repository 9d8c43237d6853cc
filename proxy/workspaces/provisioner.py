"""The choice of the workspace of a logged-in user, and its start."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.resolve import default_blueprint, find, resolve, resolve_name
from proxy.blueprints.schema import Blueprint
from proxy.errors.login import UserStringInvalid
from proxy.errors.programs import Refused
from proxy.model import Endpoint, Phase, Progress, User, Visit, WorkspaceName
from proxy.settings.blueprints import BlueprintSettings
from proxy.userstring import UserString, parse, workspace_name
from proxy.workspaces.backend import Backend, Report, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.ownership import Title, own_record, owner_unknown, title_to
from proxy.workspaces.quotas import Quotas
from proxy.workspaces.repositories import Repositories
from proxy.workspaces.start_events import Publish, StartAnnouncer, publish_nothing

_MOST_NAMES = 8


class Workspaces:
    """All workspaces that users of this installation may enter."""

    def __init__(
        self,
        catalog: Catalog,
        backend: Backend,
        settings: BlueprintSettings,
        publish: Publish = publish_nothing,
        *,
        repositories: Repositories | None = None,
        hold_s: float = 0,
    ) -> None:
        """Create it; `hold_s` is how long connections respect a stop on request, in seconds."""
        self._announcer = StartAnnouncer(publish)
        self._repositories = repositories if repositories and repositories.are_served else None
        self._backend = backend
        self._catalog = catalog
        self._settings = settings
        self._hold_s = hold_s
        self._quotas = Quotas(backend, settings.rules)

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Return the address of a workspace for a connection; start it if needed, or join its start.

        A connection alone does not undo a recent stop on request, and nothing is started for a request that
        may not.

        Raises: WorkspaceNotFound, Refused, WorkspaceHeld, WorkspaceStartFailed, ReadyTimeout.
        """
        return await self._ensure(replace(request, hold_s=self.hold_s(request.blueprint)), report)

    def hold_s(self, blueprint: Blueprint) -> float:
        """Return for how many seconds a stop on request is respected."""
        return self._hold_s if blueprint.stop_hold_s is None else blueprint.stop_hold_s

    async def start(self, user: User, value: UserString, report: Report) -> Endpoint:
        """Start a workspace on request, in spite of any stop before.

        The user need not be connected. Raises: as `request` and `ensure`, but not WorkspaceHeld.
        """
        return await self._ensure(await self.request(user, value), report)

    async def _ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        with self._announcer.start(request, report) as attempt:
            async with self._quotas.admitted(request) if request.may_start else nullcontext():
                endpoint = attempt.endpoint = await self._backend.ensure(request, attempt.report)
        if request.blueprint.init:
            # shelld answers before they have ended, and lets programs wait for them.
            report(Progress(Phase.STARTING, f"waiting for workspace {request.name} and its init scripts"))
        return endpoint

    async def request_of(self, visit: Visit) -> WorkspaceRequest:
        """Return the workspace that a visit means now. Raises: as `request`."""
        return await self.request(visit.owner, visit.address)

    async def entrance_of(self, visit: Visit, default: str = "") -> str:
        """Return the name of the blueprint of a connection, if its user may enter now.

        `default` is used if the user string names none, since the user's default may have changed.

        Raises: as `request`.
        """
        value = visit.address
        if default and not value.blueprint and not value.repo and not value.pod:
            value = replace(value, blueprint=default)
        request = await self.request(visit.owner, value)
        self._backend.check_access(request)
        return request.blueprint.name

    async def request(self, user: User, value: UserString) -> WorkspaceRequest:
        """Choose the workspace, and check that the user may enter it as the requested account.

        Raises: BlueprintError, WorkspaceNotFound, OwnerUnknown, Refused.
        """
        features = self._backend.features
        name = resolve_name(
            value,
            default=default_blueprint(user, self._settings.rules, self._settings.default),
            repositories=features.repositories and self._repositories is not None,
            workloads=features.workloads,
        )
        if not name:
            record = own_record(await self._backend.find(value.pod), value.pod, user)
            name, value = record.blueprint, origin_of(record, value)
        workspace, blueprint = await self._resolved(name, user, value)
        check_account(value.account, blueprint, own=features.account or blueprint.account or user.name)
        return WorkspaceRequest(workspace, user, blueprint, value, may_create=not value.pod)

    async def _resolved(self, name: str, user: User, value: UserString) -> tuple[WorkspaceName, Blueprint]:
        """Return the workspace's name and the blueprint in effect."""
        blueprints = self._catalog.current(wanted=name)
        if value.repo and self._repositories is not None:
            workspace = await address(self._backend, user, value, self._repositories.key())
            return workspace, await self._repositories.blueprint(blueprints, user, value, workspace)
        find(blueprints, name, user)  # before the backend is asked: most mistakes are in the name
        workspace = await address(self._backend, user, value, name)
        return workspace, resolve(blueprints, name, user, value, workspace)


def named_request(value: UserString, user: User, blueprint: Blueprint, key: str) -> WorkspaceRequest:
    """Return a request with the workspace's name; `key` stands for the blueprint in the name. Pure."""
    name = WorkspaceName(workspace_name(value, key))
    return WorkspaceRequest(name, user, blueprint, value, may_create=not value.pod)


async def address(backend: Backend, user: User, value: UserString, key: str) -> WorkspaceName:
    """Return the name of the workspace that a user string means for this user.

    It is the first of `names` that is the user's, else the first that is free, so that every replica finds
    the same one. Raises: OwnerUnknown, Refused when every name is another user's; WorkspaceError.
    """
    free = ""
    for name in names(user, value, key):
        record = await backend.holder(name)
        if record is None:
            if free:
                break
            free = name
            continue
        match title_to(record, user):
            case Title.RECORDED | Title.UNRECORDED:
                return WorkspaceName(name)
            case Title.UNKNOWN:
                raise owner_unknown(name, user)
    if not free:
        raise Refused("every name for this workspace belongs to another user; ask an operator")
    return WorkspaceName(free)


def names(user: User, value: UserString, key: str) -> Iterator[str]:
    """Yield the names that a workspace may have: one for the name of its user, then some for the id. Pure."""
    yield workspace_name(value, key)
    if user.id and not value.pod:
        yield workspace_name(value, key, user.id)
        # The last resort, after an operator changed the owner of the workspaces with those names.
        yield from (workspace_name(value, key, f"{user.id} {number}") for number in range(2, _MOST_NAMES))


def origin_of(record: WorkspaceRecord, asked: UserString) -> UserString:
    """Return the request for which a workspace was made, with the account of this request. Pure."""
    try:
        origin = parse(record.user_string)
    except UserStringInvalid:  # an older release stored none
        return asked
    # It may have been another user's then.
    return replace(origin, user=asked.user, pod=asked.pod, account=asked.account)


def check_account(account: str, blueprint: Blueprint, *, own: str) -> None:
    """Check that `user=account` is permitted. Pure.

    Raises: Refused with the permitted accounts.
    """
    if not account or account == own or account in blueprint.accounts:
        return
    allowed = ", ".join(dict.fromkeys([*([own] if own else []), *blueprint.accounts]))
    raise Refused(
        f"blueprint {blueprint.name} has no account {account!r} to log in as"
        + (f"; it has: {allowed}" if allowed else "")
    )
