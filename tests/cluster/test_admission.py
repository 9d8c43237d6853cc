"""Rules of a cluster that refuse a pod, asked by a real API server."""

from pathlib import Path

import pytest

from proxy.errors.workspaces import WorkspaceUnstartable
from proxy.workspaces.kubernetes.api import Query
from proxy.workspaces.kubernetes.labels import EVENTS_BEFORE
from proxy.workspaces.kubernetes.objects import EVENT, STATEFUL_SET, annotations_of, uid_of
from tests.cluster.admission import hook, judged
from tests.cluster.cluster import Cluster, request, silent
from tests.fakes.certificates import Authority

RULE = "only images of example.com"
NAME = request().name


async def test_a_rule_that_refuses_says_so_in_its_own_words(kube: Cluster, tmp_path: Path) -> None:
    async with judged(kube, tmp_path, lambda _: RULE), kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request(), silent)
    assert caught.value.user_message == f"a rule of the cluster refuses it: {RULE}"


async def test_a_refusal_of_a_moment_ago_does_not_count_against_a_new_start(
    kube: Cluster, tmp_path: Path
) -> None:
    """Another proxy starts it at once, and has the events of the refusal in view."""
    rules = [RULE]
    async with (
        judged(kube, tmp_path, lambda _: "".join(rules)),
        kube.proxy() as backend,
        kube.proxy() as another,
    ):
        with pytest.raises(WorkspaceUnstartable):
            await backend.ensure(request(), silent)
        stateful_set = await kube.api.get(STATEFUL_SET, kube.namespace, NAME)
        about = f"involvedObject.uid={uid_of(stateful_set)},reason=FailedCreate"
        refusals = (await kube.api.list(Query(EVENT, kube.namespace, fields=about))).items
        rules.clear()
        endpoint = await another.ensure(request("env: {CORRECTED: 'yes'}"), silent)
        assert await kube.run(endpoint, "echo $CORRECTED") == "yes\n"
    started = await kube.api.get(STATEFUL_SET, kube.namespace, NAME)
    before = int(annotations_of(started)[EVENTS_BEFORE])
    assert refusals
    assert all(int(one["metadata"]["resourceVersion"]) <= before for one in refusals)


@pytest.mark.parametrize("resource", ["pods", "statefulsets"])
async def test_a_rule_whose_refusal_says_cannot_is_no_missing_right(
    kube: Cluster, tmp_path: Path, resource: str
) -> None:
    """A rule about StatefulSets answers us with the code 403, as a missing right does."""
    words = 'User "x" cannot use resource limits here'
    about = {
        "apiGroups": ["", "apps"],
        "apiVersions": ["v1"],
        "resources": [resource],
        "operations": ["CREATE"],
    }
    async with judged(kube, tmp_path, lambda _: words, rules=[about]), kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request(), silent)
    assert caught.value.user_message == f"a rule of the cluster refuses it: {words}"


async def test_a_rule_that_does_not_answer_is_told(kube: Cluster) -> None:
    async with hook(kube, "https://localhost:1/", Authority().pem), kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable, match="failed calling webhook") as caught:
            await backend.ensure(request(), silent)
    assert "a service that must approve of it does not answer" in caught.value.user_message
    async with kube.proxy() as backend:
        assert await backend.ensure(request(), silent), "and its answer is noticed"
