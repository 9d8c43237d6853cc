"""The pytest plugin behind `--hold-budgets` and `--hold-skips`, which CI gives."""

import pytest

from tests import budgets, skips

_CACHED = "fairlead/held"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("fairlead")
    group.addoption("--hold-budgets", action="store_true", help="fail if a file exceeds its budget")
    group.addoption("--hold-skips", action="store_true", help="fail on a skip for an unlisted reason")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the whole run: in the controller of xdist, or in the only process."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Held(config), "fairlead-held")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first; before other plugins, which may order anew."""
    budgets.order(items, budgets.load())


class Held:
    """What one run took and skipped, and whether it may."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._spent = budgets.Spent()
        self._skipped = skips.Skipped()
        self._broken: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test."""
        self._spent.add(report)
        self._skipped.add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that is skipped as a whole."""
        self._skipped.add(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail a run that broke what is held.

        A run of `--last-failed` repeats a few tests of the run before, and is held to what that one broke.
        """
        option, cache = self._config.option, getattr(self._config, "cache", None)
        if option.hold_budgets:
            self._broken += self._spent.over(budgets.load())
        if option.hold_skips:
            self._broken += self._skipped.others(skips.load())
        if cache is not None and (option.hold_budgets or option.hold_skips):
            if option.lf:
                self._broken = sorted({*self._broken, *cache.get(_CACHED, [])})
            cache.set(_CACHED, self._broken)
        if self._broken and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the slowest files, and what was broken."""
        if len(self._spent.seconds) > 1:
            terminalreporter.section("slowest files")
            for line in self._spent.table(budgets.load()):
                terminalreporter.line(line)
        if self._broken:
            terminalreporter.section("not held", red=True)
            for line in self._broken:
                terminalreporter.line(line)
