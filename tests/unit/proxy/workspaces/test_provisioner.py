from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.blueprints.catalog import DirectoryCatalog
from proxy.blueprints.schema import Blueprint
from proxy.errors.blueprints import BlueprintNotFound
from proxy.errors.programs import Refused
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import Endpoint, User, Visit, WorkspaceName
from proxy.settings.blueprints import BlueprintSettings, PersonRule, RepositorySettings
from proxy.userstring import parse, workspace_name
from proxy.workspaces.backend import (
    Features,
    Report,
    Stop,
    WorkspaceEvent,
    WorkspaceRecord,
    WorkspaceRequest,
)
from proxy.workspaces.ownership import own_record
from proxy.workspaces.provisioner import Workspaces, check_account
from proxy.workspaces.repositories import Repositories
from tests.fakes.visits import with_user

MakeVisit = Callable[[str], Visit]


class RecordingBackend:
    """Starts nothing, and remembers what it was asked for."""

    def __init__(self, records: dict[str, WorkspaceRecord], account: str = "worker") -> None:
        self.features = Features(account=account)
        self.records = records
        self.asked: list[WorkspaceRequest] = []

    async def find(self, name: str) -> WorkspaceRecord | None:
        return self.records.get(name)

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        self.asked.append(request)
        return Endpoint(request.name, "unix:///nowhere", "1")

    async def holder(self, name: str) -> WorkspaceRecord | None:
        return self.records.get(name)

    async def list(self) -> Sequence[WorkspaceRecord]:
        return tuple(self.records.values())

    async def stop(self, name: WorkspaceName, stop: Stop) -> None:
        del self.records[name]

    async def delete(self, name: WorkspaceName, *, purge: bool) -> None:
        del self.records[name]

    async def logs(self, name: WorkspaceName, *, follow: bool, tail: int) -> AsyncIterator[str]:
        yield name

    async def events(self, name: WorkspaceName) -> Sequence[WorkspaceEvent]:
        return []

    async def close(self) -> None:
        pass


@pytest.fixture
def visit(visit: MakeVisit) -> MakeVisit:
    """Makes a user as the directory knows one."""

    def make(text: str) -> Visit:
        who = visit(text)
        return with_user(who, replace(who.owner, id=f"id-of-{who.owner.name}"))

    return make


@pytest.fixture
def backend() -> RecordingBackend:
    def record(name: str, user: str, blueprint: str = "data") -> WorkspaceRecord:
        return WorkspaceRecord(WorkspaceName(name), user, blueprint, datetime.now(UTC), owner=f"id-of-{user}")

    return RecordingBackend(
        {
            "mine": record("mine", "alice"),
            "hers": record("hers", "bob"),
            "old": record("old", "alice", "gone"),
        }
    )


@pytest.fixture
def workspaces(tmp_path: Path, backend: RecordingBackend) -> Workspaces:
    (tmp_path / "dev.yaml").write_text("")
    (tmp_path / "data.yaml").write_text("accounts: [postgres]\n")
    return Workspaces(DirectoryCatalog(tmp_path), backend, BlueprintSettings())


async def ensured(workspaces: Workspaces, who: Visit) -> Endpoint:
    return await workspaces.ensure(await workspaces.request_of(who), print)


@pytest.mark.parametrize(
    ("text", "name", "blueprint", "may_create"),
    [
        ("alice", workspace_name(parse("alice"), "dev"), "dev", True),
        ("alice+dev", workspace_name(parse("alice"), "dev"), "dev", True),
        ("alice+data", workspace_name(parse("alice"), "data"), "data", True),
        ("alice+data+user=postgres", workspace_name(parse("alice"), "data"), "data", True),
        ("alice+dev+user=worker", workspace_name(parse("alice"), "dev"), "dev", True),
        ("alice+pod=mine", "mine", "data", False),
        ("alice+pod=mine+user=postgres", "mine", "data", False),
    ],
)
async def test_a_user_string_means_one_workspace(
    workspaces: Workspaces,
    backend: RecordingBackend,
    visit: MakeVisit,
    text: str,
    name: str,
    blueprint: str,
    may_create: bool,
) -> None:
    endpoint = await ensured(workspaces, visit(text))
    assert endpoint.workspace == name
    (asked,) = backend.asked
    assert (asked.name, asked.user.name, asked.blueprint.name, asked.may_create) == (
        name,
        "alice",
        blueprint,
        may_create,
    )


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("alice+nope", BlueprintNotFound, "there is no blueprint 'nope'; there are: data, dev"),
        ("alice+pod=hers", WorkspaceNotFound, "there is no workspace 'hers' of alice"),
        ("alice+pod=none", WorkspaceNotFound, "there is no workspace 'none' of alice"),
        ("alice+pod=old", BlueprintNotFound, "there is no blueprint 'gone'"),
        (
            "alice+repo=o/p",
            BlueprintNotFound,
            "workspaces of a repository are not served here; log in as alice+dev",
        ),
        ("alice+workload=deployment/x+ns=n", WorkspaceNotFound, "no cluster workloads to enter here"),
        (
            "alice+dev+user=postgres",
            Refused,
            "blueprint dev has no account 'postgres' to log in as; it has: worker",
        ),
        ("alice+data+user=root", Refused, "it has: worker, postgres"),
        ("alice+pod=mine+user=root", Refused, "it has: worker, postgres"),
    ],
)
async def test_a_refusal_says_what_there_is(
    workspaces: Workspaces,
    backend: RecordingBackend,
    visit: MakeVisit,
    text: str,
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error) as caught:
        await ensured(workspaces, visit(text))
    assert sentence in str(caught.value)
    assert backend.asked == []


def test_what_is_not_there_and_what_is_not_yours_sound_alike() -> None:
    other = WorkspaceRecord(WorkspaceName("ws"), "bob", "dev", datetime.now(UTC), owner="id-of-bob")
    said = []
    for record in (None, other):
        with pytest.raises(WorkspaceNotFound) as caught:
            own_record(record, "ws", User("alice", id="id-of-alice"))
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_backend_without_account_offers_none() -> None:
    with pytest.raises(Refused, match=r"'root' to log in as$"):
        check_account("root", Blueprint(name="dev"), own="")
    check_account("", Blueprint(name="dev"), own="")


async def test_the_blueprint_in_effect_can_be_asked_for(workspaces: Workspaces, visit: MakeVisit) -> None:
    assert (await workspaces.request_of(visit("alice+data"))).blueprint.accounts == ("postgres",)


class RepositoryFiles:
    """One repository, whose file says what it is for."""

    providers = ("github",)

    def clone_url(self, provider: str, repo: str) -> str:
        return f"https://{provider}.example/{repo}.git"

    async def read(self, provider: str, repo: str, ref: str, path: str, *, private: bool) -> bytes | None:
        return f"description: {repo} at {ref}\n".encode()


async def test_a_repository_s_workspace_is_found_again_by_its_name(
    tmp_path: Path, backend: RecordingBackend, visit: MakeVisit
) -> None:
    (tmp_path / "base.yaml").write_text("abstract: true\n")
    settings = BlueprintSettings(repository=RepositorySettings(base="base", provider="github"))
    repositories = Repositories(settings.repository, RepositoryFiles())
    backend.features = Features(repositories=True)
    these = Workspaces(DirectoryCatalog(tmp_path), backend, settings, repositories=repositories)
    await ensured(these, visit("alice+repo=o/p+ref=v1"))
    (asked,) = backend.asked
    assert asked.name == workspace_name(parse("alice+repo=o/p+ref=v1"), "base")
    assert asked.blueprint.description == "o/p at v1"
    backend.records["ws"] = WorkspaceRecord(
        WorkspaceName("ws"),
        "alice",
        "base",
        datetime.now(UTC),
        user_string="alice+repo=o/p+ref=v1",
        owner="id-of-alice",
    )
    await ensured(these, visit("alice+pod=ws"))
    named = backend.asked[-1]
    assert (named.name, named.may_create) == ("ws", False)
    assert named.blueprint == asked.blueprint
    assert (named.origin.repo, named.origin.ref) == ("o/p", "v1")
    await repositories.close()


async def test_the_default_is_that_of_the_first_rule(
    tmp_path: Path, backend: RecordingBackend, visit: MakeVisit
) -> None:
    (tmp_path / "gpu.yaml").write_text("")
    rules = (PersonRule(users=("bob",), default="dev"), PersonRule(default="gpu", max_workspaces=3))
    these = Workspaces(DirectoryCatalog(tmp_path), backend, BlueprintSettings(rules=rules))
    await ensured(these, visit("alice"))
    assert backend.asked[0].blueprint.name == "gpu"
    backend.records["more"] = WorkspaceRecord(
        WorkspaceName("more"), "alice", "gpu", datetime.now(UTC), owner="id-of-alice"
    )
    with pytest.raises(Refused, match="you may have 3 workspaces and have mine"):
        await ensured(these, visit("alice"))
