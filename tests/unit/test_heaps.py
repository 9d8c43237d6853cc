"""Garbage collections of both programs: rare while they start, at Python's default when they serve."""

import subprocess
import sys

import pytest

_PROGRAM = """
import gc
from {module} import collect_rarely, settle_heap
before = gc.get_threshold()
collect_rarely()
assert gc.get_threshold()[0] > 10 * before[0], gc.get_threshold()
settle_heap()
assert gc.get_threshold() == before, gc.get_threshold()
assert gc.get_freeze_count() > 1_000, gc.get_freeze_count()
"""


@pytest.mark.parametrize("module", ["proxy.tuning", "shelld.memory"])
def test_collections_are_rare_until_the_heap_is_settled(module: str) -> None:
    """In a process of its own: a frozen heap stays frozen."""
    subprocess.run([sys.executable, "-c", _PROGRAM.format(module=module)], check=True, timeout=60)
