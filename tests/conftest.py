"""What every test may use."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from proxy.model import ConnId, Peer, Visit
from tests.fakes.visits import visit_of
from tests.strictness import report_unclosed_databases

pytest_plugins = ["tests.held"]

# Shared machines stall; a stall is no failure of the code under test.
_CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", max_examples=200, **_CALM)
settings.register_profile("deep", max_examples=100_000, **_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

report_unclosed_databases()


@pytest.fixture
def peer() -> Peer:
    return Peer(ConnId("conn-1"), "192.0.2.1", 40_000, "192.0.2.2", 22)


@pytest.fixture
def visit(peer: Peer) -> Callable[[str], Visit]:
    """Makes visits of users who logged in with a user string."""
    return lambda text: visit_of(text, peer=peer)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory for Unix sockets, whose paths have at most 107 bytes: pytest's own are too long."""
    path = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name long values by their argument: keys are made anew in every process, and names must not be."""
    del config
    return argname if isinstance(val, str | bytes) and len(val) > 24 else None
