"""`blueprint check` on a directory of broken files: one precise sentence for each of them."""

import json
from pathlib import Path

import pytest

from tests.unit.proxy.commandline import Run

BROKEN = Path(__file__).parents[3] / "fixtures" / "blueprints" / "broken"
EXPECTED = dict(
    line.split("\t", 1) for line in (BROKEN / "expected.tsv").read_text(encoding="utf-8").splitlines()
)


def check(fairlead: Run, *words: str) -> tuple[int, dict[str, list[str]]]:
    done = fairlead("blueprint", "check", "--json", *words, FAIRLEAD_BLUEPRINT__DIRECTORY=str(BROKEN))
    told: dict[str, list[str]] = {}
    for row in json.loads(done.stdout):
        told.setdefault(Path(row["file"]).name, [])
        if not row["ok"]:
            told[Path(row["file"]).name].append(f"{row['where']}: {row['reason']}")
    return done.returncode, told


def test_every_broken_file_is_told_once_and_precisely(fairlead: Run) -> None:
    assert len(EXPECTED) >= 30
    status, told = check(fairlead)
    assert status == 1
    assert told.pop("base.yaml") == []
    assert {file: " | ".join(problems) for file, problems in told.items()} == EXPECTED


@pytest.mark.parametrize("file", ["bad-quantity.yaml", "child-of-conflict.yaml", "circle-a.yaml"])
def test_one_file_is_checked_among_the_others(fairlead: Run, file: str) -> None:
    assert check(fairlead, str(BROKEN / file)) == (1, {file: [EXPECTED[file]]})


def test_a_good_file_among_broken_ones_is_good(fairlead: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("template: base\n")
    assert check(fairlead, str(tmp_path / "mine.yaml")) == (0, {"mine.yaml": []})


def test_a_file_that_is_not_there_is_told(fairlead: Run, tmp_path: Path) -> None:
    status, told = check(fairlead, str(tmp_path / "none.yaml"))
    assert (status, told) == (1, {"none.yaml": ["none.yaml: No such file or directory"]})
