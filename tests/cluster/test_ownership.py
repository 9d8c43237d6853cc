"""Whose a workspace of a cluster is, while it runs, and who may have an account in a pod."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.errors.programs import NameReserved, OwnerUnknown
from proxy.errors.workspaces import ClusterForbidden
from proxy.workspaces.kubernetes import labels
from proxy.workspaces.kubernetes.api import Api
from proxy.workspaces.kubernetes.objects import (
    CLAIM,
    NETWORK_POLICY,
    STATEFUL_SET,
    Kind,
    Object,
    annotations_of,
    labels_of,
)
from tests.cluster.cluster import Cluster, request, silent, user_called

HOME = "storages: {home: {kind: home, size: 1Gi}}\nnetwork: {policy: user}\n"
ALICE = user_called("alice")
LATER = user_called("alice", id="later", created_at=datetime.now(UTC) + timedelta(days=1))


async def disown(kube: Cluster, kind: Kind, name: str) -> None:
    """Make an object as an older release left it."""
    body = {"metadata": {"annotations": {labels.OWNER: None}, "labels": {labels.OWNER: None}}}
    await kube.api.merge(kind, kube.namespace, name, body)


async def test_a_running_workspace_of_an_older_release_is_recorded_as_its_user_s(kube: Cluster) -> None:
    await kube.add_volume()
    async with kube.proxy() as backend:
        asked = request(HOME)
        endpoint = await backend.ensure(asked, silent)
    claim = f"{asked.name}-home"
    await disown(kube, STATEFUL_SET, asked.name)
    await disown(kube, CLAIM, claim)
    async with kube.proxy() as backend:
        with pytest.raises(OwnerUnknown, match=f"fairlead workspace give {asked.name} alice"):
            await backend.ensure(request(HOME, as_user=LATER), silent)
        assert await backend.ensure(asked, silent) == endpoint, "it runs on"
    for kind, name in ((STATEFUL_SET, asked.name), (CLAIM, claim)):
        assert annotations_of(await kube.api.get(kind, kube.namespace, name))[labels.OWNER] == ALICE.id


async def test_a_claim_that_cannot_be_annotated_keeps_no_user_out(
    kube: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights of the release before do not let proxies change claims."""
    await kube.add_volume()
    async with kube.proxy() as backend:
        asked = request(HOME)
        endpoint = await backend.ensure(asked, silent)
        await kube.run(endpoint, "echo kept > kept")
        await backend.delete(asked.name, purge=False)
    await disown(kube, CLAIM, f"{asked.name}-home")
    merge = Api.merge

    async def limited(self: Api, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        if kind == CLAIM:
            raise ClusterForbidden("may not patch claims")
        return await merge(self, kind, namespace, name, body)

    monkeypatch.setattr(Api, "merge", limited)
    async with kube.proxy() as backend:
        assert await kube.run(await backend.ensure(asked, silent), "cat kept") == "kept\n"


async def test_peers_of_the_policy_user_are_of_one_user_and_not_of_one_name(kube: Cluster) -> None:
    await kube.add_volume()
    async with kube.proxy() as backend:
        asked = request(HOME)
        await backend.ensure(asked, silent)
    policy = await kube.api.get(NETWORK_POLICY, kube.namespace, asked.name)
    selectors = [
        peer["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for peer in rule["from"]
    ]
    assert labels_of(await kube.pod(asked.name))[labels.OWNER] == ALICE.id
    assert any(selector.get(labels.OWNER) == ALICE.id for selector in selectors)
    assert not any(labels.USER in selector for selector in selectors)


@pytest.mark.parametrize("name", ["root", "daemon"])
async def test_a_user_with_the_name_of_a_system_account_has_no_pod(kube: Cluster, name: str) -> None:
    """One who exists already is told why; where the blueprint names the account, the name does not matter."""
    async with kube.proxy() as backend:
        with pytest.raises(NameReserved, match=f"the user name {name} is reserved"):
            await backend.ensure(request(who=f"{name}+dev"), silent)
        assert await kube.names(STATEFUL_SET) == []
        endpoint = await backend.ensure(request("account: dev", f"{name}+dev"), silent)
        assert await kube.run(endpoint, "id -un") == "dev\n"
