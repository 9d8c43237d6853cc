"""Checks of the dependencies of a proxy: each tries one thing that the settings name, and changes nothing.

    all_checks(settings) ─▶ [Check, …] ─▶ run: all at once, each with a deadline ─▶ [Finding, …]

The command `fairlead check` prints the findings; a serving proxy logs them and shows them in `/readyz`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from proxy.errors import FairleadError

_log = structlog.get_logger("checks")


class Status(StrEnum):
    """Result of one check."""

    OK = "ok"
    WARNING = "warning"
    """It works, or could not be looked at, and an operator should know the sentence."""
    ERROR = "error"
    """Users will meet this failure."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one look at a dependency."""

    status: Status
    says: str
    """One sentence for an operator; holds no secret."""


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency and how to look at it."""

    name: str
    """Unique among the checks of one installation, such as `database` or `provider github`."""
    look: Callable[[], Awaitable[Verdict]]
    """Makes and changes nothing. A FairleadError that it raises is an error finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one named dependency."""

    name: str
    status: Status
    says: str

    def __str__(self) -> str:
        return f"{self.status}: {self.name}: {self.says}"


def ok(says: str) -> Verdict:
    """Return the verdict on something that works."""
    return Verdict(Status.OK, says)


def warning(says: str) -> Verdict:
    """Return the verdict on something that an operator should know of."""
    return Verdict(Status.WARNING, says)


def error(says: str) -> Verdict:
    """Return the verdict on something that cannot work."""
    return Verdict(Status.ERROR, says)


async def run(checks: Sequence[Check], timeout_s: float) -> list[Finding]:
    """Run all checks at the same time and return their findings in the order of `checks`.

    Returns about `timeout_s` seconds after the call at the latest, with an error finding for each check that
    has not answered.
    """
    return list(await asyncio.gather(*(_run_one(check, timeout_s) for check in checks)))


async def _run_one(check: Check, timeout_s: float) -> Finding:
    try:
        async with asyncio.timeout(timeout_s):
            verdict = await check.look()
    except TimeoutError:
        verdict = error(f"no answer within {timeout_s:g} s (checks.timeout_s)")
    except FairleadError as exc:
        verdict = error(str(exc))
    except Exception as exc:  # noqa: BLE001 - a bug in one check must not take the findings of the others
        _log.exception("check failed", check=check.name)
        verdict = error(f"internal error ({type(exc).__name__}); the log has the details")
    return Finding(check.name, verdict.status, verdict.says)
