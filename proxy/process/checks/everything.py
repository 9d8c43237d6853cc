"""All checks of one installation: once for a command, and beside a serving proxy until they pass."""

import asyncio
from collections.abc import Sequence

import structlog

from proxy.aio import TaskOwner
from proxy.process.checks import Check, Finding, Status, run
from proxy.process.checks.files import file_checks
from proxy.process.checks.services import service_checks
from proxy.process.checks.workspaces import workspace_checks
from proxy.recording.threads import Threads
from proxy.settings import Settings

_log = structlog.get_logger("checks")

_THREADS = 4
_JOBS = 1_000


async def check_all(settings: Settings) -> list[Finding]:
    """Try everything that the settings name. Returns about `checks.timeout_s` later at the latest."""
    threads = Threads("checks", count=_THREADS, queue_size=_JOBS)
    try:
        return await run(_checks(settings, threads), settings.checks.timeout_s)
    finally:
        threads.close()


def _checks(settings: Settings, threads: Threads) -> Sequence[Check]:
    parts = (file_checks, service_checks, workspace_checks)
    return [check for part in parts for check in part(settings, threads)]


class StandingChecks:
    """The checks of a serving proxy: all at its start, then every `checks.repeat_s` those that failed.

    Each finding is logged when it is new. Nothing waits for a check.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.checks
        self._threads = Threads("checks", count=_THREADS, queue_size=_JOBS)
        self._checks = _checks(settings, self._threads)
        self._tasks = TaskOwner("checks")
        self._failed: dict[str, Finding] = {}

    @property
    def problem(self) -> str:
        """Return one line for each check that failed at its last look; empty when none did."""
        return "\n".join(map(str, self._failed.values()))

    def start(self) -> None:
        """Begin; needs a running loop."""
        self._tasks.spawn(self._repeat(), name="repeat")

    async def close(self) -> None:
        """End a look that is under way."""
        await self._tasks.close()
        self._threads.close()

    async def _repeat(self) -> None:
        due = self._checks
        while due:
            for finding in await run(due, self._settings.timeout_s):
                self._note(finding)
            due = [check for check in due if check.name in self._failed]
            await asyncio.sleep(self._settings.repeat_s)

    def _note(self, finding: Finding) -> None:
        last = self._failed.pop(finding.name, None)
        if finding.status is Status.ERROR:
            self._failed[finding.name] = finding
            if finding != last:
                _log.error("check failed", check=finding.name, reason=finding.says)
        elif finding.status is Status.WARNING:
            _log.warning("check warns", check=finding.name, reason=finding.says)
        elif last is not None:
            _log.info("check passed", check=finding.name, says=finding.says)
