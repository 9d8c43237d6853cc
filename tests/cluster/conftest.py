"""Suites that need a cluster: with KUBECONFIG they use it, and need nothing of it but to make a namespace.

Images: FAIRLEAD_TEST_SHELLD_IMAGE (default: built here, for a node that runs images of this dockerd) and
FAIRLEAD_TEST_IMAGE (default `base:1`, any with a shell); every node must have both.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.cluster import MISSING, Cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(300))
            item.add_marker(pytest.mark.skipif(bool(MISSING), reason=MISSING))


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A namespace of its own for each test."""
    made = Cluster(tmp_path)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
