"""Rules of a cluster that refuse a pod, asked by a real API server."""

from pathlib import Path

import pytest

from proxy.errors.workspaces import WorkspaceUnstartable
from tests.cluster.admission import hook, judged
from tests.cluster.cluster import Cluster, request, silent
from tests.fakes.certificates import Authority

RULE = "only images of example.com"


async def test_a_rule_that_refuses_says_so_in_its_own_words(kube: Cluster, tmp_path: Path) -> None:
    async with judged(kube, tmp_path, lambda _: RULE), kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request(), silent)
    assert caught.value.user_message == f"a rule of the cluster refuses it: {RULE}"


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
