"""Proxies for the wire tests: one shared by a module, or one that a test may break."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wire.direct import Place, fairlead_place, sshd_place
from tests.wire.harness import Fairlead

MakeFairlead = Callable[..., Fairlead]

BUGS = ("ended by a bug", "failed by a bug", "task failed", '"call failed"', "Traceback")
"""Words of the log that no input, however bad, may bring about."""


def assert_no_bugs(server: Fairlead) -> None:
    """Look through what the proxy and every shelld of it logged."""
    logs = [server.directory / "proxy.log", *server.home.glob("workspaces/*/shelld.log")]
    told = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
    assert [line[:2_000] for line in told if any(words in line for words in BUGS)] == []


@pytest.fixture(scope="module")
def fairlead(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    """A proxy for the tests of one module; its workspace is started by the first of them.

    The module may name `SETTINGS` (environment) and `BLUEPRINTS` (name to YAML) that it needs.
    """
    settings = getattr(request.module, "SETTINGS", {})
    blueprints = getattr(request.module, "BLUEPRINTS", {})
    server = Fairlead(tmp_path_factory.mktemp("fairlead"), extra_env=dict(settings))
    server.prepare(blueprints)
    try:
        server.start()
        yield server
    finally:
        server.close()
    assert_no_bugs(server)


@pytest.fixture(scope="module")
def warm(fairlead: Fairlead) -> None:
    """The shared workspace runs already, so that nothing is said about its start."""
    assert fairlead.ssh("true").returncode == 0


@pytest.fixture(scope="module", params=["fairlead", "sshd"])
def place(
    request: pytest.FixtureRequest, fairlead: Fairlead, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Where a client logs in: at the module's proxy, and at a real `sshd` for which the same holds."""
    if request.param == "fairlead":
        yield fairlead_place(fairlead)
        return
    with sshd_place(tmp_path_factory.mktemp("direct"), fairlead.key) as direct:
        yield direct


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
    assert_no_bugs(server)


@pytest.fixture
def make_fairlead(tmp_path: Path) -> Iterator[MakeFairlead]:
    """Proxies for one test, each with the settings and blueprints that it asks for."""
    servers: list[Fairlead] = []

    def make(settings: dict[str, str] | None = None, blueprints: dict[str, str] | None = None) -> Fairlead:
        server = Fairlead(tmp_path / f"fairlead{len(servers)}", extra_env=dict(settings or {}))
        servers.append(server)
        server.prepare(blueprints)
        server.start()
        return server

    try:
        yield make
    finally:
        for server in servers:
            server.close()
    for server in servers:
        assert_no_bugs(server)
