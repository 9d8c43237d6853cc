"""What an older shelld is not sent."""

import pytest

from proxy import model
from proxy.errors.programs import OpenFailed, ProgramNotStarted
from proxy.upstream import compat

NEW, OLD = frozenset({"bytes", "sftp"}), frozenset({"sftp"})
ODD = "caf\udce9"


@pytest.mark.parametrize(
    "spec",
    [
        model.ProgramSpec(model.Exec(ODD)),
        model.ProgramSpec(model.Exec("true"), original_command=ODD),
    ],
)
def test_a_command_that_is_not_utf8_goes_to_a_new_shelld_only(spec: model.ProgramSpec) -> None:
    assert compat.program_for(NEW, spec) is spec
    with pytest.raises(ProgramNotStarted, match="not UTF-8"):
        compat.program_for(OLD, spec)


def test_an_older_shelld_gets_the_variables_that_are_utf8() -> None:
    spec = model.ProgramSpec(model.Shell(), {"LANG": "ä", "LC_ALL": ODD})
    assert compat.program_for(NEW, spec).env == {"LANG": "ä", "LC_ALL": ODD}
    assert compat.program_for(OLD, spec).env == {"LANG": "ä"}
    assert compat.variables_left_out(NEW, spec.env) == []
    assert compat.variables_left_out(OLD, spec.env) == ["LC_ALL"]


def test_a_path_that_is_not_utf8_goes_to_a_new_shelld_only() -> None:
    compat.check_path(NEW, model.UnixTarget(f"/{ODD}"))
    compat.check_path(OLD, model.UnixTarget("/ä"))
    compat.check_path(OLD, model.TcpTarget("localhost", 1))
    with pytest.raises(OpenFailed, match=r"^/caf\\xe9 is not UTF-8"):
        compat.check_path(OLD, model.UnixTarget(f"/{ODD}"))
