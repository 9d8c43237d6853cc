"""All apps of this shelld, by slug. They outlive the proxies that asked for them, and end with shelld."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

from shelld.apps.app import App, Tools
from shelld.apps.log import AppLog
from shelld.apps.spec import AppSpec, check
from shelld.apps.state import State
from shelld.errors import OpenCode, OpenError, StartCode, StartError
from shelld.forwards.reserved import Reserved
from shelld.log import Log

_log = Log("shelld.apps.supervisor")
MOST_APPS = 64
"""Apps of one workspace."""


class Supervisor:
    """One per shelld."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._apps: dict[str, App] = {}

    async def boot(self, specs: Sequence[AppSpec]) -> None:
        """Start the apps that are to run with the workspace; a bad one is logged and left out."""
        for spec in specs:
            try:
                await self.ensure(spec, automatic=False)
            except StartError as error:
                _log.warning("app not started at boot", slug=spec.slug[:32], reason=error.reason)

    async def ensure(self, spec: AppSpec, *, automatic: bool) -> App:
        """Start an app unless it runs, and return it; see `App.ensure`.

        Raises: StartError INVALID, ACCOUNT_DENIED, NO_SUCH_ACCOUNT, RESOURCES.
        """
        check(spec)
        account = self._tools.accounts.find(spec.account)
        app = self._apps.get(spec.slug)
        if app is None:
            if len(self._apps) >= MOST_APPS:
                raise StartError(
                    StartCode.RESOURCES, f"this workspace has {MOST_APPS} apps, which is its limit"
                )
            app = self._apps[spec.slug] = App(spec, account, self._tools)
        await app.ensure(spec, account, automatic=automatic)
        return app

    def find(self, slug: str) -> App:
        """Return an app that was asked for before. Raises: OpenError NOT_FOUND."""
        try:
            return self._apps[slug]
        except KeyError:
            raise OpenError(OpenCode.NOT_FOUND, f"app {slug[:32]} was not started yet") from None

    def states(self) -> list[State]:
        """Return the state of every app, by slug."""
        return [app.state() for _, app in sorted(self._apps.items())]

    def sessions(self) -> list[int]:
        """Return the sessions of the start commands that run."""
        return [state.pid for state in self.states() if state.pid]

    async def connect(self, slug: str, reserved: Reserved) -> socket.socket:
        """Connect to an app. Raises: OpenError."""
        return await self.find(slug).connect(reserved)

    async def log(self, slug: str, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield the last lines of an app's log, `follow`ed by the next ones. Raises: OpenError."""
        log: AppLog = await self.find(slug).log()
        at = log.total
        if kept := await log.read(lines):
            yield kept
        if follow:
            async for data in log.follow(at):
                yield data

    async def close(self) -> None:
        """End every app."""
        await asyncio.gather(*(app.close() for app in self._apps.values()))
