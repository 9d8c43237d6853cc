"""Everything that is committed was written here: no large file, no mark of another licence."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_BYTES = 64 * 1024
LARGE = {"requirements.lock", "requirements-dev.lock"}
"""Resolved versions with hashes, made by `make lock`."""
STATES = "tests/fixtures/state-"
"""State that earlier releases of ours wrote; each folder holds the script that made it."""
LICENCES = {"LICENSE"}
"""The text of our own licence."""
_MARK = re.compile(
    rb"copyright \(c\)|\(c\) copyright|@license|@preserve|SPDX-License-Identifier|all rights reserved",
    re.IGNORECASE,
)


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_is_larger_than_what_a_person_writes() -> None:
    large = {name for name in tracked() if (ROOT / name).stat().st_size > LARGEST_BYTES}
    # Modules of protos/ are generated, and compared by `make lint`.
    own = {name for name in large - LARGE if not name.startswith((STATES, "protos/"))}
    assert own == set()


def test_no_file_carries_a_mark_of_another_licence() -> None:
    this_file = str(Path(__file__).relative_to(ROOT))
    marked = {name for name in tracked() if _MARK.search((ROOT / name).read_bytes())}
    assert marked - LICENCES - {this_file} == set()


def test_no_file_is_minified() -> None:
    """A line of a program that nobody could have typed is the work of a tool."""
    programs = [name for name in tracked() if name.endswith((".js", ".css", ".py", ".sh", ".html"))]
    long = {
        name
        for name in programs
        if not name.endswith(("_pb2.py", "_pb2.pyi"))  # generated from protos/, and compared by `make lint`
        and any(len(line) > 400 for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    }
    assert long == set()
