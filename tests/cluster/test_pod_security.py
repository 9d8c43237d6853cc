"""What PodSecurity `restricted` wants; a webhook asks, since its admission came with Kubernetes 1.23."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.errors.workspaces import WorkspaceUnstartable
from tests.cluster.admission import judged
from tests.cluster.cluster import Cluster, request, silent
from tests.cluster.test_inject import asked, program, rules

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"


def restricted(review: dict[str, Any]) -> str:
    """Judge a pod as the standard does, and name what is wrong as its admission does."""
    spec = review["object"]["spec"]
    pod = spec.get("securityContext") or {}
    wrong = []
    for one in (*spec["containers"], *spec.get("initContainers", ())):
        own = one.get("securityContext") or {}
        capabilities = own.get("capabilities") or {}
        seccomp = own.get("seccompProfile") or pod.get("seccompProfile") or {}
        checks = {
            "allowPrivilegeEscalation != false": own.get("allowPrivilegeEscalation") is False,
            "unrestricted capabilities": "ALL" in capabilities.get("drop", ())
            and set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot != true": own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True,
            "runAsUser=0": own.get("runAsUser", pod.get("runAsUser")) != 0,
            "seccompProfile": seccomp.get("type") in {"RuntimeDefault", "Localhost"},
        }
        wrong += [f"{what} ({one['name']})" for what, is_fine in checks.items() if not is_fine]
    kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
    if other := kinds - {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}:
        wrong.append(f"volume types {other}")
    return ", ".join(wrong)


def documented() -> str:
    """Read what the page says that every blueprint needs."""
    block = PAGE.read_text().partition("`restricted` needs\n\n")[2].partition("\n\n")[0]
    return yaml.safe_dump(yaml.safe_load(block))


async def test_the_blueprint_that_the_documentation_names_passes_restricted(
    kube: Cluster, tmp_path: Path
) -> None:
    async with judged(kube, tmp_path, restricted), kube.proxy() as backend:
        endpoint = await backend.ensure(request(documented()), silent)
        assert await kube.run(endpoint, "id -u") == "1000\n"


async def test_containers_that_are_injected_pass_restricted_with_it(kube: Cluster, tmp_path: Path) -> None:
    def ours(review: dict[str, Any]) -> str:
        spec = review["object"]["spec"]
        for kind in ("containers", "initContainers"):
            spec[kind] = [one for one in spec.get(kind, ()) if "fairlead" in one["name"]]
        return restricted(review)

    await program(kube, "deployment")
    async with judged(kube, tmp_path, ours), kube.proxy(**rules(kube)) as backend:
        endpoint = await backend.ensure(asked(kube, "deployment", blueprint=documented()), silent)
        assert await kube.run(endpoint, "id -u") == "1000\n"
        await backend.delete(endpoint.workspace, purge=False)
        with pytest.raises(WorkspaceUnstartable, match="runAsUser=0"):
            await backend.ensure(asked(kube, "deployment"), silent)


async def test_a_refusal_names_the_fields_of_the_blueprint(kube: Cluster, tmp_path: Path) -> None:
    async with judged(kube, tmp_path, restricted), kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request("sudo: true\nsecurity: {seccomp_profile: Unconfined}"), silent)
    said = caught.value.user_message
    for field in (
        "sudo and security.allow_privilege_escalation",
        "security.drop_capabilities",
        "security.run_as_user",
        "security.seccomp_profile",
    ):
        assert field in said, said
