"""What a person with a stock ssh client sees of a cluster: they get in, or they read why not."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.cluster import IMAGE, Cluster
from tests.images.docker import shelld_image
from tests.wire.conftest import assert_no_bugs
from tests.wire.harness import Fairlead, needs

pytestmark = needs("ssh", "ssh-keygen", "sftp")

BLUEPRINTS = {
    "dev": "storages: {home: {kind: home, size: 1Gi}}",
    "name": "image: UPPER:1",
    "huge": "resources: {requests: {cpu: 1000}}",
    "late": "service_account: nobody",
}
SENTENCES = {
    "name": "'UPPER:1' is no valid name of an image: correct the image of the blueprint",
    "huge": "no node has enough cpu left: stop another workspace, or ask for less in the blueprint",
    "late": 'serviceaccount "nobody" not found: ask an operator to create it',
}


def proxy(kube: Cluster, directory: Path, *, replica_of: Fairlead | None = None) -> Fairlead:
    """Start a proxy; a replica has the users and the key of the other one."""
    settings = {
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "FAIRLEAD_WORKSPACE__BACKEND": "kubernetes",
        "FAIRLEAD_KUBERNETES__NAMESPACE": kube.namespace,
        "FAIRLEAD_KUBERNETES__SHELLD_IMAGE": shelld_image(),
        "FAIRLEAD_KUBERNETES__DEFAULT_IMAGE": IMAGE,
        "FAIRLEAD_KUBERNETES__STORAGE_CLASS": kube.namespace,
        "FAIRLEAD_KUBERNETES__TERMINATION_GRACE_S": "3",
        "FAIRLEAD_KUBERNETES__PATIENCE_S": "1",
    }
    server = Fairlead(directory, extra_env=settings)
    if replica_of is None:
        server.prepare(BLUEPRINTS)
    else:
        shutil.copytree(replica_of.home / "blueprints", server.home / "blueprints")
        server.extra_env["FAIRLEAD_IDENTITY__DATABASE_URL"] = (
            f"sqlite+aiosqlite:///{replica_of.home}/fairlead.db"
        )
        shutil.copy(replica_of.key, server.key)
        server.configure_client()
    server.start()
    return server


@pytest.fixture
async def server(kube: Cluster, tmp_path: Path) -> AsyncIterator[Fairlead]:
    made = await asyncio.to_thread(proxy, kube, tmp_path / "one")
    yield made
    made.stop()
    assert_no_bugs(made)


async def test_a_failure_is_a_sentence_and_a_status_on_exec_and_on_a_terminal(server: Fairlead) -> None:
    for blueprint, sentence in SENTENCES.items():
        for options in ((), ("-tt",)):
            login = ("-l", f"alice+{blueprint}", *options)
            done = await asyncio.to_thread(server.ssh, "true", *login, timeout_s=120)
            said = done.stderr + (done.stdout if options else b"")
            assert sentence in " ".join(said.decode().split()), said
            assert done.returncode == 255
            assert options or done.stdout == b""


async def test_every_form_of_a_user_string_gets_in(server: Fairlead, kube: Cluster) -> None:
    await kube.add_volume()
    first = await asyncio.to_thread(
        server.ssh, "id -un; hostname; echo kept > kept", "-l", "alice", timeout_s=120
    )
    assert first.returncode == 0, first.stderr
    assert b"starting" in first.stderr or b"looking for a node" in first.stderr, "it is told what happens"
    account, host = first.stdout.decode().split()
    assert account == "alice"
    for form in ("alice+dev", f"alice+pod={host.removesuffix('-0')}", "alice+dev+user=alice"):
        done = await asyncio.to_thread(server.ssh, "cat kept", "-l", form, timeout_s=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"kept\n", b"")
    async with asyncio.timeout(60):  # the cluster asks once a second whether it is ready
        while '"phase": "running"' not in await asyncio.to_thread(server.cli, "workspace", "list", "--json"):
            await asyncio.sleep(0.2)


async def test_twenty_clients_of_two_proxies_meet_in_one_workspace(
    server: Fairlead, kube: Cluster, tmp_path: Path
) -> None:
    await kube.add_volume()
    other = await asyncio.to_thread(proxy, kube, tmp_path / "two", replica_of=server)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(20) as threads:
        done = await asyncio.gather(
            *(
                loop.run_in_executor(threads, lambda one=one: one.ssh("hostname", timeout_s=180))  # type: ignore[misc]
                for one in (server, other)
                for _ in range(10)
            )
        )
    other.stop()
    assert_no_bugs(other)
    assert [one.returncode for one in done] == [0] * 20, [one.stderr for one in done if one.returncode]
    assert len({one.stdout for one in done}) == 1
