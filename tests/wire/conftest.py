"""Proxies for the wire tests: one shared by a module, or one that a test may break."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead


@pytest.fixture(scope="module")
def fairlead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    """A proxy for the tests of one module; its workspace is started by the first of them."""
    server = Fairlead(tmp_path_factory.mktemp("fairlead"))
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_fairlead(tmp_path: Path) -> Iterator[Fairlead]:
    """A proxy for one test, which may break it."""
    server = Fairlead(tmp_path)
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.close()
