import pytest

from proxy.blueprints.resolve import resolve, resolve_name, usable
from proxy.errors import EXIT_REFUSED
from proxy.errors.blueprints import BlueprintNotFound
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import User
from proxy.userstring import parse, workspace_name
from tests.unit.proxy.blueprints.reading import read

SET = read(
    base="abstract: true",
    dev="template: base\nenv: {WHERE: !cel workspace.name}",
    gpu="access: {groups: [ml/*], users: [root]}",
    secret="abstract: true\naccess: {users: [root]}",
)


@pytest.mark.parametrize(
    ("text", "name"),
    [("alice", "dev"), ("alice+data", "data"), ("alice+user=root", "dev"), ("alice+pod=x", "")],
)
def test_chooses_by_form(text: str, name: str) -> None:
    assert resolve_name(parse(text), default="dev") == name


def test_what_a_backend_serves_resolves() -> None:
    assert resolve_name(parse("alice+repo=o/p"), default="dev", repositories=True) == "dev"
    assert (
        resolve_name(parse("alice+data+workload=deployment/x+ns=n"), default="dev", workloads=True) == "data"
    )


def test_what_it_does_not_serve_is_refused_with_what_would_work() -> None:
    with pytest.raises(BlueprintNotFound, match=r"repository are not served here; log in as alice\+dev"):
        resolve_name(parse("alice+repo=o/p"), default="dev", workloads=True)
    with pytest.raises(WorkspaceNotFound, match=r"no cluster workloads .*; log in as alice\+data"):
        resolve_name(parse("alice+data+workload=deployment/x+ns=n"), default="dev", repositories=True)


def test_nothing_is_left_to_work_out() -> None:
    value = parse("alice+dev")
    assert resolve(SET, "dev", User("alice"), value).env == {"WHERE": workspace_name(value, "dev")}


@pytest.mark.parametrize(
    ("user", "names"),
    [
        (User("alice"), ["dev"]),
        (User("alice", groups=("ML/vision",)), ["dev", "gpu"]),
        (User("alice", groups=("ml",)), ["dev"]),
        (User("root"), ["dev", "gpu"]),
    ],
)
def test_a_person_has_what_is_for_everybody_and_what_is_for_them(user: User, names: list[str]) -> None:
    assert [definition.name for definition in usable(SET, user)] == names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nope", "there is no blueprint 'nope'; there are: dev"),
        ("gpu", "there is no blueprint 'gpu'; there are: dev"),
        ("secret", "there is no blueprint 'secret'; there are: dev"),
        ("base", "blueprint 'base' is only a template for others; there are: dev"),
    ],
)
def test_what_is_for_others_sounds_like_what_is_not_there(name: str, said: str) -> None:
    with pytest.raises(BlueprintNotFound) as caught:
        resolve(SET, name, User("alice"), parse("alice"))
    assert str(caught.value) == said
    assert caught.value.exit_status == EXIT_REFUSED
