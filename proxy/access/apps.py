"""The start of apps on demand, and connections to them, over a link to their workspace.

Policy is asked by the callers: `gateway` for connections, `app_controls` for commands.
"""

from collections.abc import Callable
from contextlib import closing

from proxy.access import policy
from proxy.blueprints.schema import Blueprint
from proxy.errors.programs import AppNotReady, OpenFailed, OpenFailedKind
from proxy.model import AppPhase, AppSpec, AppState, AppTarget, Reserved, Visit
from proxy.upstream.client import Link
from proxy.upstream.streams import AppStates, Connection

_NOT_RUNNING = frozenset({OpenFailedKind.NOT_FOUND, OpenFailedKind.REFUSED})


def demanded(visit: Visit, blueprint: Blueprint, target: AppTarget) -> AppSpec | None:
    """Return the app that this visit may start by a request; None where it has to run already.

    Raises: AppNotReady for an app that the blueprint does not have any more.
    """
    app = blueprint.apps.get(target.slug)
    if app is None or not app.start:
        raise AppNotReady(f"blueprint {blueprint.name} has no app {target.slug} to start any more")
    if app.when == "never" or not policy.may_demand_app(visit, app.wake):
        return None
    return app.spec(target.slug)


async def dial(
    link: Link,
    target: AppTarget,
    spec: AppSpec | None,
    reserved: Reserved,
    *,
    quiet: bool,
    heard: Callable[[AppState], None],
) -> Connection:
    """Connect to an app; start it by `spec` first where it does not run. `heard` gets its states.

    Raises: AppNotReady; OpenFailed, UpstreamError.
    """
    try:
        return await link.dial(target, "", reserved, quiet=quiet)
    except OpenFailed as exc:
        if exc.kind not in _NOT_RUNNING:
            raise
        if spec is None:
            raise AppNotReady(str(exc)) from exc
    await until_ready(await link.ensure_app(spec, automatic=True), heard)
    return await link.dial(target, "", reserved, quiet=quiet)


async def until_ready(states: AppStates, heard: Callable[[AppState], None]) -> None:
    """Follow the start of an app, at least one state, to its end. Raises: AppNotReady, UpstreamError."""
    with closing(states):
        async for state in states:
            heard(state)
            if state.phase is AppPhase.READY:
                return
    raise not_ready(state)


def not_ready(state: AppState) -> AppNotReady:
    """Return the error for a request to an app in a state that is not ready."""
    reason = f": {state.reason}" if state.reason else ""
    return AppNotReady(f"app {state.slug} is {state.phase.value}{reason}")
