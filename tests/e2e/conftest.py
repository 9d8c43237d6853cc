"""Fixtures of the journeys through a real cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, ClusterFairlead, missing
from tests.wire.conftest import assert_no_bugs

MakeProxy = Callable[..., ClusterFairlead]


@pytest.fixture(scope="session")
def needs_cluster() -> None:
    """Skip, saying why, on a machine without a cluster."""
    if reason := missing():
        pytest.skip(f"optional: {reason}")


@pytest.fixture(scope="module")
def cluster(needs_cluster: None) -> Iterator[Cluster]:
    """A namespace for the tests of one module."""
    del needs_cluster
    with Cluster().opened() as opened:
        yield opened


@pytest.fixture(scope="module")
def proxies(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeProxy]:
    """Proxies that share the module's namespace, with the module's `BLUEPRINTS`, which may be a function."""
    made: list[ClusterFairlead] = []

    def make(like: ClusterFairlead | None = None, **settings: dict[str, object]) -> ClusterFairlead:
        """Start a proxy, or another replica of `like`."""
        if like is not None:
            made.append(replica := like.replica())
            return replica
        proxy = ClusterFairlead(tmp_path_factory.mktemp("fairlead"), cluster=cluster, settings=settings)
        blueprints = getattr(request.module, "BLUEPRINTS", {})
        proxy.prepare(blueprints() if callable(blueprints) else blueprints)
        made.append(proxy)
        proxy.start()
        return proxy

    try:
        yield make
    finally:
        for proxy in made:
            proxy.close()
    for proxy in made:
        assert_no_bugs(proxy)


@pytest.fixture(scope="module")
def fairlead(proxies: MakeProxy) -> ClusterFairlead:
    """One proxy for the tests of a module."""
    return proxies()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory that pods may mount: its parents let everybody through."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    return tmp_path
