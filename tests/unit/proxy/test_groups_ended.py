"""What a live connection loses with its user's groups: blueprints, workloads, repositories, and no more."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.access.gateway import Gateway
from proxy.blueprints.catalog import DirectoryCatalog
from proxy.errors.blueprints import BlueprintNotFound, RepositoryUnreachable
from proxy.model import Visit
from proxy.settings.blueprints import BlueprintSettings, PersonRule, RepositorySettings
from proxy.settings.kubernetes import InjectRule, KubernetesSettings
from proxy.workspaces.backend import Features, WorkspaceRequest
from proxy.workspaces.kubernetes.workloads import Workloads
from proxy.workspaces.provisioner import Workspaces
from proxy.workspaces.repositories import Repositories
from tests.fakes.visits import with_user

MakeVisit = Callable[[str], Visit]

RULES = (InjectRule(namespace="shop", groups=("acme",)), InjectRule(namespace="open", groups=("*",)))


class Backend:
    """Knows no workspace, and lets people into workloads by the rules of the real one."""

    def __init__(self) -> None:
        self.features = Features(account="worker", repositories=True, workloads=True)
        settings = KubernetesSettings(inject=RULES)
        self._workloads = Workloads(cast(Any, None), settings, cast(Any, None))

    async def find(self, name: str) -> None:
        del name

    holder = find

    def check_access(self, request: WorkspaceRequest) -> None:
        if request.origin.workload:
            self._workloads.rule_for(request)


class Files:
    """One private repository, which our token reads."""

    providers = ("github",)

    def __init__(self) -> None:
        self.failure: Exception | None = None

    def clone_url(self, provider: str, repo: str) -> str:
        return f"https://{provider}.example/{repo}.git"

    async def read(self, provider: str, repo: str, ref: str, path: str, *, private: bool) -> bytes | None:
        if self.failure is not None:
            raise self.failure
        if not private and repo == "acme/secret":
            raise BlueprintNotFound("there is no repository acme/secret at github, or it is private")
        return b"description: theirs"


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def gateway(tmp_path: Path, files: Files) -> Gateway:
    (tmp_path / "dev.yaml").write_text("")
    (tmp_path / "staff.yaml").write_text("access: {groups: [acme]}\n")
    (tmp_path / "base.yaml").write_text("abstract: true\n")
    settings = BlueprintSettings(rules=(PersonRule(groups=("acme",), default="staff"),))
    repositories = Repositories(RepositorySettings(base="base"), files)
    workspaces = Workspaces(
        DirectoryCatalog(tmp_path), cast(Any, Backend()), settings, repositories=repositories
    )
    nothing = cast(Any, None)
    return Gateway(workspaces, nothing, nothing, nothing)


def grouped(visit: Visit, *groups: str) -> Visit:
    return with_user(visit, replace(visit.owner, groups=groups, provider="github"))


@pytest.mark.parametrize(
    ("text", "remains"),
    [
        ("alice+dev", True),
        ("alice+staff", False),
        ("alice", False),  # led to `staff`, the default of the group
        ("alice+dev+workload=deployment/web+ns=shop", False),
        ("alice+dev+workload=deployment/web+ns=open", True),
        ("alice+repo=acme/secret", False),
        ("alice+repo=acme/public", True),
        ("alice+nowhere", True),  # groups had not given it either
    ],
)
async def test_what_only_the_groups_gave_ends_and_the_rest_goes_on(
    gateway: Gateway, visit: MakeVisit, text: str, remains: bool
) -> None:
    who = visit(text)
    decision = await gateway.may_remain(grouped(who, "acme"), grouped(who))
    assert bool(decision) is remains
    assert ("log in again" in decision.reason) is not remains
    assert await gateway.may_remain(grouped(who, "acme"), grouped(who, "acme", "more"))


async def test_groups_that_are_won_end_nothing(gateway: Gateway, visit: MakeVisit) -> None:
    """Another blueprint is the default from now on, and the one of before is there still."""
    who = visit("alice")
    assert await gateway.may_remain(grouped(who), grouped(who, "acme"))


async def test_a_forge_that_does_not_answer_decides_nothing_yet(
    gateway: Gateway, files: Files, visit: MakeVisit
) -> None:
    who = visit("alice+repo=acme/public")
    files.failure = RepositoryUnreachable("away", user_message="github does not answer")
    with pytest.raises(RepositoryUnreachable):
        await gateway.may_remain(grouped(who, "acme"), grouped(who))


async def test_a_private_repository_is_lost_even_when_the_old_groups_cannot_be_judged(
    gateway: Gateway, files: Files, visit: MakeVisit
) -> None:
    who = visit("alice+repo=acme/secret")
    await_denied = grouped(who)
    with pytest.raises(BlueprintNotFound):
        await gateway.place(await_denied)
    read = files.read

    async def only_public(*place: str, private: bool) -> bytes | None:
        if private:
            raise RepositoryUnreachable("away", user_message="github does not answer")
        return await read(*place, private=False)  # type: ignore[arg-type]

    files.read = only_public  # type: ignore[assignment,method-assign]
    assert not await gateway.may_remain(grouped(who, "acme"), await_denied)
