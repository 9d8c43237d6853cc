import pytest

from proxy.blueprints.resolve import resolve_name
from proxy.errors import BlueprintNotFound, WorkspaceNotFound
from proxy.userstring import parse


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
