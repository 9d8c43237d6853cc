"""Where trust is kept: a file, and a Secret of a real cluster. The same cases on both."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.errors.upstream import TrustError
from proxy.settings.kubernetes import KubernetesSettings
from proxy.settings.trust import TrustSettings
from proxy.trust.manager import TrustManager
from proxy.trust.store import FileTrustStore, TrustStore
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import SECRET
from proxy.workspaces.kubernetes.secrets import SecretStore

NAMESPACE = "default"


@pytest.fixture
async def secret() -> AsyncIterator[tuple[Api, str]]:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a cluster: KUBECONFIG is not set")
    api = Api(KubernetesSettings())
    name = f"fairlead-test-trust-{secrets.token_hex(4)}"
    yield api, name
    await api.delete(SECRET, NAMESPACE, name)
    await api.close()


@pytest.fixture(params=["file", "secret"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TrustStore:
    if request.param == "file":
        return FileTrustStore(tmp_path / "trust.json")
    api, name = request.getfixturevalue("secret")
    return SecretStore(api, NAMESPACE, name)


async def test_the_second_writer_finds_out(store: TrustStore) -> None:
    assert await store.load() is None
    assert await store.create(b"one")
    assert not await store.create(b"two")
    first = await store.load()
    assert first is not None
    assert first.data == b"one"
    assert await store.replace(b"three", first.version)
    assert not await store.replace(b"four", first.version)
    last = await store.load()
    assert last is not None
    assert last.data == b"three"


async def test_of_many_that_create_one_does(store: TrustStore) -> None:
    made = await asyncio.gather(*(store.create(b"%d" % number) for number in range(10)))
    assert made.count(True) == 1
    found = await store.load()
    assert found is not None
    assert found.data == b"%d" % made.index(True)


async def test_nothing_there_cannot_be_replaced(store: TrustStore) -> None:
    assert not await store.replace(b"one", "12345")


async def test_keepers_agree_through_it(store: TrustStore) -> None:
    keepers = [TrustManager(store, TrustSettings()) for _ in range(6)]
    await asyncio.gather(*(keeper.refresh() for keeper in keepers))
    assert len({keeper.token("ws1", "alice", "") for keeper in keepers}) == 1
    results = await asyncio.gather(*(keeper.rotate() for keeper in keepers), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [TrustError] * 5
    await asyncio.gather(*(keeper.refresh() for keeper in keepers))
    assert [len(keeper.generations.all) for keeper in keepers] == [2] * 6


async def test_a_secret_of_another_kind_is_told(secret: tuple[Api, str]) -> None:
    api, name = secret
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}}
    await api.create({**body, "data": {"other": "eA=="}})
    with pytest.raises(TrustError, match="holds no"):
        await SecretStore(api, NAMESPACE, name).load()


async def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrustError):
        await FileTrustStore(tmp_path / "file" / "trust.json").create(b"one")
