"""The checks of everything that the settings name, beside the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.process.assemble.common import Common
from proxy.process.checks.everything import StandingChecks
from proxy.process.parts import running


@asynccontextmanager
async def open_checks(common: Common) -> AsyncIterator[None]:
    """Check while inside; nothing waits for a check."""
    async with running(StandingChecks(common.settings)) as checks:
        common.health.add_problem(
            "fairlead_checks_failed",
            "1 while something that the settings name does not work; `fairlead check` says what.",
            lambda: checks.problem,
        )
        yield
