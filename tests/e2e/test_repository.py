"""A workspace of a repository in a cluster: its file is read by the proxy, and the pod is made of it."""

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, ClusterFairlead, workspace
from tests.e2e.conftest import MakeProxy
from tests.fakes.provider import Say
from tests.wire.forge import Forge, open_forge

pytestmark = pytest.mark.cluster

BLUEPRINTS = {"repository": "abstract: true\nimage_pull_policy: Never\n"}
FILE = "/api/v4/projects/acme%2F{name}/repository/files/.fairlead.yaml/raw?ref={ref}"


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    with open_forge([]) as forge:
        forge.server.on(FILE.format(name="shop", ref="HEAD"), Say(b"env: {CI: 'true'}\n"))
        forge.server.on(FILE.format(name="shop", ref="Next"), Say(b"env: {CI: 'next'}\n"))
        forge.server.on(FILE.format(name="evil", ref="HEAD"), Say(b"sudo: true\n"))
        yield forge


@pytest.fixture(scope="module")
def fairlead(proxies: MakeProxy, forge: Forge) -> ClusterFairlead:
    return proxies(
        front_door={"providers": [forge.provider]},
        blueprint={"repository": {"base": "repository", "provider": "gitlab"}},
    )


@pytest.mark.parametrize(
    ("user_string", "said"),
    [("alice+repo=acme/shop", "acme/shop true"), ("alice+repo=acme/shop+ref=Next", "acme/shop next")],
)
def test_each_ref_is_a_pod_of_its_own(
    fairlead: ClusterFairlead, cluster: Cluster, user_string: str, said: str
) -> None:
    done = fairlead.ssh('echo "$FAIRLEAD_REPO $CI"; hostname', "-l", user_string, timeout_s=180)
    name = done.stdout.decode().splitlines()[-1].removesuffix("-0")
    assert done.stdout.decode() == f"{said}\n{name}-0\n", done.stderr
    assert cluster.core.read_namespaced_pod(f"{name}-0", cluster.namespace).status.phase == "Running"
    assert name != workspace("alice+dev")


def test_a_file_that_asks_for_more_makes_nothing(fairlead: ClusterFairlead, cluster: Cluster) -> None:
    before = len(cluster.stateful_sets())
    done = fairlead.ssh("true", "-l", "alice+repo=acme/evil")
    assert done.returncode != 0
    assert b"acme/evil/.fairlead.yaml:1: sudo: this is not for a repository to set" in done.stderr
    assert len(cluster.stateful_sets()) == before
