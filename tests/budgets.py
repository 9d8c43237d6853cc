"""Time budgets of test files: the order of a run, the slowest files at its end, and the files over budget.

The numbers are in `tests/budgets.toml`. A file with a large budget is started early, so that no worker is
left alone with it at the end. `--hold-budgets` fails a run in which a file took longer than its budget.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

FILE = Path(__file__).with_name("budgets.toml")
SHOWN = 15
"""Files listed at the end of a run."""


@dataclass(frozen=True)
class Budgets:
    """Seconds that the tests of a file may take together, set-up and tear-down included."""

    default_s: float
    folders: Mapping[str, float]
    """For each file below the folder, instead of the default."""
    files: Mapping[str, float]

    def of(self, file: str) -> float:
        """Return the budget of a file, given by its path from the root of the repository."""
        if file in self.files:
            return self.files[file]
        parents = (str(folder) for folder in PurePosixPath(file).parents)
        return next((self.folders[folder] for folder in parents if folder in self.folders), self.default_s)


@cache
def load(file: Path = FILE) -> Budgets:
    """Read the budgets.

    Raises: KeyError; ValueError if a number is not above the default, and such a line says nothing.
    """
    read = tomllib.loads(file.read_text())
    budgets = Budgets(read["default_s"], read["folders"], read["files"])
    for name, seconds in [*budgets.folders.items(), *budgets.files.items()]:
        if not seconds > budgets.default_s > 0:
            raise ValueError(f"{file}: {name} = {seconds} is not above default_s = {budgets.default_s}")
    return budgets


@dataclass
class Spent:
    """Seconds that each file took in this run."""

    seconds: Counter[str] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)
    """Files with a failed test. They are not judged: most failures are waits that ended by their deadline."""

    def add(self, report: pytest.TestReport) -> None:
        """Count one phase of one test."""
        file = _file_of(report.nodeid)
        self.seconds[file] += report.duration  # type: ignore[assignment]
        if report.failed:
            self.failed.add(file)

    def over(self, budgets: Budgets) -> list[str]:
        """Return one sentence for each file without a failure that took longer than its budget."""
        return [
            f"{file} took {seconds:.0f} s, and its budget is {budgets.of(file):.0f} s (tests/budgets.toml)"
            for file, seconds in self.seconds.most_common()
            if seconds > budgets.of(file) and file not in self.failed
        ]

    def table(self, budgets: Budgets) -> list[str]:
        """Return the slowest files, a line each, and the sum of all."""
        rows = [
            f"{seconds:7.1f} s of {budgets.of(file):4.0f} s  {file}"
            for file, seconds in self.seconds.most_common(SHOWN)
        ]
        return [*rows, f"{self.seconds.total():7.1f} s in {len(self.seconds)} files"]


def order(items: list[pytest.Item], budgets: Budgets) -> None:
    """Sort files by their budget, the largest first; the tests of a file keep their order."""
    items.sort(key=lambda item: -budgets.of(_file_of(item.nodeid)))


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]
