"""Each way in which a start can fail, provoked for real: told in a sentence, and the wait ends."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from proxy.errors.workspaces import ClusterError, ReadyTimeout, WorkspaceError, WorkspaceUnstartable
from proxy.model import Progress
from proxy.workspaces.backend import WorkspacePhase
from proxy.workspaces.kubernetes.objects import CONFIG_MAP, SECRET, Kind
from tests.cluster.cluster import STOP, Cluster, request, silent, texts

NAME = request().name


async def failure(kube: Cluster, blueprint: str = "", **settings: Any) -> tuple[WorkspaceError, list[str]]:
    told: list[Progress] = []
    async with kube.proxy(**settings) as backend:
        with pytest.raises(WorkspaceError) as caught:
            await backend.ensure(request(blueprint), told.append)
    return caught.value, texts(told)


@pytest.mark.parametrize(
    ("blueprint", "settings", "sentence"),
    [
        # No version reads this as a name: `UPPER/case` may be a registry called UPPER.
        pytest.param("image: case/UPPER:1", {}, "'case/UPPER:1' is no valid name of an image", id="name"),
        pytest.param(
            "image: nowhere:1\nimage_pull_policy: Never", {}, "image nowhere:1 is not on the node", id="never"
        ),
        pytest.param(
            "image: registry.invalid/nowhere:1",
            {},
            "(the registry of image registry.invalid/nowhere:1 does not answer"
            "|image registry.invalid/nowhere:1 cannot be pulled)",
            id="registry",
        ),
        pytest.param("resources: {requests: {cpu: 1000}}", {}, "no node has enough cpu left", id="cpu"),
        pytest.param(
            "resources: {limits: {example.com/gpu: 1}}", {}, "no node has enough example.com/gpu", id="gpu"
        ),
        pytest.param(
            "node: {selector: {no.such: node}}", {}, "no node matches what the blueprint selects", id="node"
        ),
        pytest.param(
            "resources: {limits: {memory: 6Mi}}",
            {},
            "(ran out of memory while it was starting: raise resources.limits|its container cannot be made)",
            id="memory",
        ),
        pytest.param("service_account: nobody", {}, '"nobody" not found: ask an operator', id="account"),
        pytest.param(
            "storages: {home: {kind: home, storage_class: none}}",
            {},
            "storage class none does not exist: correct the storage of the blueprint",
            id="class",
        ),
        pytest.param(
            "storages: {home: {kind: home}}",
            {"storage_class": ""},
            "(no volume is left for .*-home|its volume is not there yet)",
            id="unbound",
        ),
        pytest.param(
            "storages: {models: {kind: existing, claim: models, path: /models}}",
            {},
            "the volume claim models does not exist: ask an operator to create it",
            id="claim",
        ),
        pytest.param(
            "node: {priority_class: none}",
            {},
            "the cluster refuses it: no PriorityClass with name none was found",
            id="priority",
        ),
        pytest.param(
            "", {"shelld_image": "base:1"}, "fairlead-bundle cannot be run|cannot be made", id="init"
        ),
        pytest.param(
            "", {"namespace": "fairlead-none"}, "namespace fairlead-none .* does not exist", id="ns"
        ),
        pytest.param("", {"context": "alice"}, "Fairlead lacks a right in the cluster", id="rights"),
    ],
)
async def test_what_cannot_start_says_why(
    kube: Cluster, blueprint: str, settings: dict[str, Any], sentence: str
) -> None:
    error, told = await failure(kube, blueprint, **settings)
    assert isinstance(error, WorkspaceUnstartable), error
    assert re.search(sentence, error.user_message), error.user_message
    assert "\n" not in error.user_message
    assert told[-1] != error.user_message or len(told) > 1


QUOTAS = {
    "pods": ("", {"pods": "0"}, r"the quota is used up \(few, requested: pods=1, used: pods=0"),
    "limits": ("", {"limits.memory": "1Gi"}, r"the quota wants limits that the blueprint does not give"),
    "claims": (
        "storages: {home: {kind: home}}",
        {"persistentvolumeclaims": "0"},
        r"the quota is used up \(few, requested: persistentvolumeclaims=1",
    ),
}


@pytest.mark.parametrize("kind", QUOTAS)
async def test_a_quota_says_what_is_used_up_and_room_is_noticed(kube: Cluster, kind: str) -> None:
    blueprint, hard, sentence = QUOTAS[kind]
    await kube.create("v1", "ResourceQuota", "few", spec={"hard": hard})
    quota = Kind("ResourceQuota", "resourcequotas")
    async with asyncio.timeout(30):
        while not (await kube.api.get(quota, kube.namespace, "few")).get("status", {}).get("used"):
            await asyncio.sleep(0.05)
    error, _ = await failure(kube, blueprint)
    assert re.search(sentence, error.user_message), error.user_message
    await kube.api.delete(quota, kube.namespace, "few")
    await kube.add_volume()
    async with kube.proxy() as backend:
        assert await backend.ensure(request(blueprint), silent)


@asynccontextmanager
async def spoiling(kube: Cluster, spoil: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Undo something again and again, faster than a node looks."""

    async def keep() -> None:
        while True:
            with suppress(ClusterError):
                await spoil()
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_secret_that_is_missing_is_named(kube: Cluster) -> None:
    async with spoiling(kube, lambda: kube.api.delete(SECRET, kube.namespace, NAME)):
        error, _ = await failure(kube)
    assert f"the secret {NAME} that it needs does not exist" in error.user_message
    async with kube.proxy() as backend:
        assert await backend.ensure(request(), silent)


async def test_a_crash_loop_says_how_it_ended_and_its_last_words(kube: Cluster) -> None:
    bad = {"data": {"shelld.json": '{"workspace": "w", "no_such_setting": 1}'}}
    async with spoiling(kube, lambda: kube.api.merge(CONFIG_MAP, kube.namespace, NAME, bad)):
        error, _ = await failure(kube)
    assert re.search(r"the workspace ended with status \d+ while it was starting", error.user_message)
    assert "no_such_setting is not a setting" in error.user_message
    async with kube.proxy() as backend:
        record = await backend.find(NAME)
        assert record is not None
        assert record.phase is WorkspacePhase.FAILED
        assert "ended with status" in record.detail
        assert any(event.kind == "warning" for event in await backend.events(NAME))
        assert await backend.ensure(request(), silent), "and is made anew when it is asked for again"


async def test_a_blueprint_that_was_corrected_is_taken_up_at_once(kube: Cluster) -> None:
    async with kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable):
            await backend.ensure(request("image: case/UPPER:1"), silent)
        assert await backend.ensure(request(), silent)


async def test_a_running_workspace_is_left_alone_by_another_blueprint_until_it_stops(kube: Cluster) -> None:
    async with kube.proxy() as backend:
        old = await backend.ensure(request("env: {WORD: old}"), silent)
        assert await backend.ensure(request("env: {WORD: new}"), silent) == old
        assert await kube.run(old, "echo $WORD") == "old\n"
        await backend.stop(NAME, STOP)
        new = await backend.ensure(request("env: {WORD: new}"), silent)
        assert await kube.run(new, "echo $WORD") == "new\n"


async def test_a_deadline_says_how_far_it_came(kube: Cluster) -> None:
    async with kube.proxy(timeout_s=3, patience_s=60) as backend:
        with pytest.raises(ReadyTimeout, match="no node has enough cpu") as caught:
            await backend.ensure(request("resources: {requests: {cpu: 1000}}"), silent)
    assert "no node has enough cpu" in caught.value.user_message
