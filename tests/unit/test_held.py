"""What `.ci/run` holds of a test run beside its failures: budgets of files and reasons of skips."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import budgets, skips
from tests.budgets import Budgets, Spent
from tests.held import Held
from tests.skips import Allowed, Skipped

ROOT = Path(__file__).parents[2]
SLOW, QUICK = "tests/wire/test_slow.py", "tests/unit/test_quick.py"
BUDGETS = Budgets(10, {"tests/cluster": 100}, {SLOW: 60})


def report(nodeid: str, seconds: float = 0, skipped: str = "") -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=nodeid,
        location=("", 0, ""),
        keywords={},
        outcome="skipped" if skipped else "passed",
        longrepr=("file", 1, f"Skipped: {skipped}") if skipped else None,
        when="call",
        duration=seconds,
    )


def spent(**seconds: float) -> Spent:
    made = Spent()
    for file, each in seconds.items():
        for number in range(2):
            made.add(report(f"{ {'slow': SLOW, 'quick': QUICK}[file] }::test_{number}", each))
    return made


def test_a_file_has_its_own_budget_or_that_of_its_folder_or_the_default() -> None:
    files = (SLOW, QUICK, "tests/cluster/deep/test_one.py")
    assert [BUDGETS.of(file) for file in files] == [60, 10, 100]


def test_the_tests_of_a_file_share_its_budget() -> None:
    assert spent(slow=30, quick=5).over(BUDGETS) == []
    (said,) = spent(slow=30, quick=6).over(BUDGETS)
    assert said.startswith(f"{QUICK} took 12 s, and its budget is 10 s")


def test_a_file_with_a_failed_test_is_not_judged_by_its_time() -> None:
    made = spent(slow=30, quick=6)
    made.failed.add(QUICK)
    assert made.over(BUDGETS) == []


def test_the_slowest_files_are_listed_first() -> None:
    lines = spent(quick=1, slow=30).table(BUDGETS)
    assert [line.split() for line in lines] == [
        ["60.0", "s", "of", "60", "s", SLOW],
        ["2.0", "s", "of", "10", "s", QUICK],
        ["62.0", "s", "in", "2", "files"],
    ]


def test_the_longest_files_are_started_first_and_a_file_stays_in_order() -> None:
    names = [f"{QUICK}::b", f"{QUICK}::a", f"{SLOW}::b", f"{SLOW}::a"]
    items = [SimpleNamespace(nodeid=name) for name in names]
    budgets.order(items, BUDGETS)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == [f"{SLOW}::b", f"{SLOW}::a", f"{QUICK}::b", f"{QUICK}::a"]


def test_a_budget_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "budgets.toml"
    file.write_text('default_s = 10\n[folders]\n[files]\n"tests/a.py" = 10\n')
    with pytest.raises(ValueError, match=re.escape("tests/a.py = 10 is not above default_s = 10")):
        budgets.load(file)


def test_every_budget_is_of_a_file_or_folder_that_is_there() -> None:
    loaded = budgets.load()
    assert [name for name in [*loaded.files, *loaded.folders] if not (ROOT / name).exists()] == []


def test_a_skip_for_a_reason_on_the_list_is_no_matter() -> None:
    seen = Skipped()
    seen.add(report("a::b", skipped="needs a cluster"))
    seen.add(report("a::c"))
    assert seen.others((Allowed(re.compile("needs a .*"), "why"),)) == []


def test_a_skip_for_another_reason_is_named() -> None:
    """The whole reason counts: a longer one is another."""
    seen = Skipped()
    seen.add(report("a::b", skipped="needs a cluster, and a lot more"))
    (said,) = seen.others((Allowed(re.compile("needs a cluster"), "why"),))
    assert said.startswith("a::b was skipped: needs a cluster, and a lot more")


def test_every_reason_on_the_list_says_why_and_is_a_reason_of_some_test() -> None:
    """A word of each reason stands in a test, so that the list does not outlive its tests."""
    source = "".join(
        file.read_text() for file in (ROOT / "tests").rglob("*.py") if file.name != "test_held.py"
    )
    for one in skips.load():
        assert len(one.why) > 20
        for reason in one.reason.pattern.split("|"):
            begin = re.split(r"[.\\()\[{]", reason)[0].strip()
            assert begin in source, reason


def test_a_missing_program_is_on_no_list() -> None:
    seen = Skipped()
    seen.add(report("a::b", skipped="optional, not found here: haproxy"))
    assert len(seen.others(skips.load())) == 1


class _Cache(dict[str, list[str]]):
    set = dict.__setitem__


def _run(cache: _Cache, *reports: pytest.TestReport, lf: bool = False, hold: bool = True) -> int:
    """Let the plugin see a run that passed; return the exit status."""
    option = SimpleNamespace(hold_budgets=hold, hold_skips=hold, lf=lf)
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    held = Held(SimpleNamespace(option=option, cache=cache))  # type: ignore[arg-type]
    for one in reports:
        held.pytest_runtest_logreport(one)
    held.pytest_sessionfinish(session, session.exitstatus)  # type: ignore[arg-type]
    return int(session.exitstatus)


def test_a_run_that_breaks_what_is_held_fails_and_its_repetition_too() -> None:
    """The second run has only what failed, and neither the slow file nor the skipped test."""
    cache = _Cache()
    broken = report("tests/unit/a.py::b", skipped="optional, not found here: haproxy")
    assert _run(cache, broken) == 1
    assert _run(cache, report("tests/unit/c.py::d"), lf=True) == 1
    assert _run(cache, report("tests/unit/c.py::d")) == 0
    assert _run(cache, report("tests/unit/c.py::d"), lf=True) == 0


def test_a_file_over_its_budget_fails_a_run_that_holds_budgets_only() -> None:
    late = report("tests/unit/a.py::b", budgets.load().default_s + 1)
    assert _run(_Cache(), late) == 1
    assert _run(_Cache(), late, hold=False) == 0
