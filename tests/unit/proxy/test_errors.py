import importlib
import pkgutil
import re

import pytest

from proxy import errors
from proxy.errors import FairleadError, SettingsError, exit_status_of, user_sentence
from proxy.errors.blueprints import BlueprintInvalid
from proxy.errors.login import UserStringInvalid
from proxy.errors.programs import ProgramNotStarted, ProgramNotStartedKind, Refused
from proxy.errors.workspaces import WorkspaceStartFailed


def every_error() -> list[type[FairleadError]]:
    for module in pkgutil.iter_modules(errors.__path__):
        importlib.import_module(f"proxy.errors.{module.name}")
    found, todo = [], [FairleadError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return [kind for kind in found if kind.__module__.startswith("proxy.errors")]


def test_every_error_has_a_code_of_its_own_and_a_docstring() -> None:
    codes = [kind.code for kind in every_error()]
    assert len(set(codes)) == len(codes)
    for kind in every_error():
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", kind.code)
        assert kind.__doc__


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__
    for kind in every_error():
        assert re.search(rf"\b{kind.__name__}\b", errors.__doc__), kind.__name__


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (ProgramNotStarted(ProgramNotStartedKind.NOT_FOUND, ""), 127),
        (ProgramNotStarted(ProgramNotStartedKind.NOT_EXECUTABLE, ""), 126),
        (ProgramNotStarted(ProgramNotStartedKind.ACCOUNT_DENIED, ""), 254),
        (ProgramNotStarted(ProgramNotStartedKind.RESOURCES, ""), 255),
        (Refused("no"), 254),
        (WorkspaceStartFailed("no"), 255),
        (SettingsError("no"), 78),
        (ValueError("a bug"), 255),
    ],
)
def test_a_script_can_tell_failures_apart(exc: Exception, status: int) -> None:
    assert exit_status_of(exc) == status


def test_a_person_reads_one_sentence() -> None:
    assert user_sentence(Refused("not today"), "c-1") == "not today (reference c-1)"
    assert (
        user_sentence(WorkspaceStartFailed("/secret/path: ENOSPC", user_message="its disk is full"), "c-1")
        == "its disk is full; trying again may help (reference c-1)"
    )


def test_a_bug_tells_nothing() -> None:
    assert user_sentence(KeyError("/etc/secret"), "c-1") == "internal error (reference c-1)"


def test_what_is_only_for_the_operator_stays_out_of_the_sentence() -> None:
    exc = BlueprintInvalid("/srv/blueprints/dev.yaml:1", "bad")
    assert "/srv" in str(exc)
    assert "/srv" not in exc.user_message


def test_positions_are_shown_counting_from_one() -> None:
    exc = UserStringInvalid("bad", text="a+", position=1)
    assert str(exc) == "user string 'a+': bad (at character 2)"
