"""Commands about apps: start, state, stop and log, for every client protocol; the policy permits each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from proxy.access import policy
from proxy.blueprints.apps import App
from proxy.errors.programs import AppNotStarted, Refused
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import AppPhase, AppState, Visit
from proxy.upstream.client import Link, Links
from proxy.workspaces.backend import Backend, Report, WorkspaceRequest
from proxy.workspaces.ownership import own_record
from proxy.workspaces.provisioner import Workspaces
from proxy.workspaces.reaching import reach


class AppControls:
    """One per process."""

    def __init__(self, workspaces: Workspaces, backend: Backend, links: Links) -> None:
        self._workspaces = workspaces
        self._backend = backend
        self._links = links

    async def ensure(
        self, visit: Visit, slug: str, report: Report, *, automatic: bool = False
    ) -> AsyncIterator[AppState]:
        """Start the workspace and the app unless they run; yield the app's states, up to one that lasts.

        An automatic start respects a stop of the app, and the limit of its restarts.

        Raises: Refused, BlueprintError, WorkspaceError, UpstreamError, AppNotStarted.
        """
        request = await self.request(visit)
        spec = _startable(request, slug).spec(slug)
        link = await reach(self._workspaces, self._links, request, report)
        async with self._links.hold(link):
            with closing(await link.ensure_app(spec, automatic=automatic)) as states:
                async for state in states:
                    yield state

    async def states(self, visit: Visit) -> list[AppState]:
        """Return the state of every app of the blueprint that shelld starts; starts nothing.

        Raises: Refused, BlueprintError, WorkspaceError, UpstreamError.
        """
        request = await self.request(visit)
        declared = {slug for slug, app in request.blueprint.apps.items() if app.start}
        try:
            async with self._running(request) as link:
                known = {state.slug: state for state in await link.apps()}
        except WorkspaceNotFound:
            known = {}
        return [known.get(slug) or AppState(slug, AppPhase.STOPPED) for slug in sorted({*declared, *known})]

    async def stop(self, visit: Visit, slug: str, *, by: str = "") -> AppState:
        """End the processes of an app; only a command starts it again. `by` is the name of an operator.

        Raises: Refused, BlueprintError, WorkspaceError, UpstreamError; AppNotStarted for one that never ran.
        """
        async with self._running(await self.request(visit)) as link:
            return await link.stop_app(slug, by or visit.actor.name)

    async def log(self, visit: Visit, slug: str, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield the last lines of an app's log (0: all that were kept), and with `follow` those to come.

        Raises: as `stop`.
        """
        async with self._running(await self.request(visit)) as link:
            async for data in link.app_log(slug, lines, follow=follow):
                yield data

    async def request(self, visit: Visit) -> WorkspaceRequest:
        """Return the workspace of a visit. Raises: Refused, BlueprintError, WorkspaceError."""
        if not (decision := policy.may_use_app_controls(visit)):
            raise Refused(decision.reason)
        return await self._workspaces.request_of(visit)

    @asynccontextmanager
    async def _running(self, request: WorkspaceRequest) -> AsyncIterator[Link]:
        """Hold a link to a workspace, which is not started. Raises: WorkspaceNotFound, UpstreamError."""
        record = await self._backend.find(request.name)
        if record is not None:
            own_record(record, request.name, request.user)
        endpoint = None if record is None else await self._backend.locate(request.name)
        if endpoint is None:
            sentence = f"workspace {request.name} does not run, and so none of its apps does"
            raise WorkspaceNotFound(sentence, user_message=sentence)
        async with self._links.use(endpoint) as link:
            yield link


def _startable(request: WorkspaceRequest, slug: str) -> App:
    """Return an app of the blueprint that shelld starts. Raises: AppNotStarted."""
    app = request.blueprint.apps.get(slug)
    if app is None:
        there = ", ".join(sorted(request.blueprint.apps)) or "none"
        raise AppNotStarted(f"blueprint {request.blueprint.name} has no app {slug[:40]!r}; it has: {there}")
    if not app.start:
        raise AppNotStarted(f"app {slug} has no `start` in its blueprint: something else starts it")
    return app
