"""Skipped tests: the reasons that a complete run may give, and the tests that gave another.

The reasons are in `tests/skips.toml`, each with why it is no gap. `--hold-skips` fails a run with any other:
a machine where something is missing tests less, and says so.
"""

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("skips.toml")


@dataclass(frozen=True)
class Allowed:
    """A reason that a test may be skipped for."""

    reason: re.Pattern[str]
    """Matches the whole reason."""
    why: str


@cache
def load(file: Path = FILE) -> tuple[Allowed, ...]:
    """Read the list. Raises: KeyError, re.error."""
    rows = tomllib.loads(file.read_text())["allowed"]
    return tuple(Allowed(re.compile(row["reason"]), row["why"]) for row in rows)


@dataclass
class Skipped:
    """Tests of this run that were skipped, with their reasons."""

    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Note a test that was skipped; others are no matter here."""
        if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
            self.reasons[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")

    def others(self, allowed: tuple[Allowed, ...]) -> list[str]:
        """Return one sentence for each test that was skipped for a reason that is not on the list."""
        return [
            f"{nodeid} was skipped: {reason} (not in tests/skips.toml)"
            for nodeid, reason in sorted(self.reasons.items())
            if not any(one.reason.fullmatch(reason) for one in allowed)
        ]
