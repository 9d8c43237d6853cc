"""Command lines where no shell is: what is understood, and what is refused rather than guessed."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shelld.errors import StartCode, StartError
from shelld.programs.static_command import locate, words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/tool", ["/tool"]),
        (
            'tool --flag=a=b \'it is $5; really\' "and so\\" on"',
            ["tool", "--flag=a=b", "it is $5; really", 'and so" on'],
        ),
        ("tool a\\ b '' \"\"", ["tool", "a b", "", ""]),
        ("tool a#b x~y", ["tool", "a#b", "x~y"]),
        ("tool 'multi\nline'", ["tool", "multi\nline"]),
        *(
            (line, None)
            for line in ("", "  ", "a | b", "a; b", "a && b", "a > f", "a < f", "a &", "(a)", "a `b`")
        ),
        *(
            (line, None)
            for line in ("a $HOME", 'a "$HOME"', 'a "`b`"', 'a "\\$b"', "a *", "a ?", "a [b]", "a\nb")
        ),
        *((line, None) for line in ("FOO=1 a", "a # b", "a ~/b", "~/a", "a 'b", 'a "b', "a \\", "a 'b\\'c'")),
    ],
)
def test_words_and_quotes_are_understood_and_nothing_else(line: str, expected: list[str] | None) -> None:
    if expected is not None:
        assert words(line) == expected
        return
    with pytest.raises(StartError, match="no shell") as caught:
        words(line)
    assert caught.value.code is StartCode.INVALID


@given(
    st.lists(
        st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8), min_size=1, max_size=4
    )
)
def test_whatever_was_quoted_for_a_shell_comes_out_as_it_was(argv: list[str]) -> None:
    assume(argv[0] and "=" not in argv[0])  # an assignment would be no program
    assert words(shlex.join(argv)) == argv


@given(st.text("ab '\"\\$`~#=;*", min_size=1, max_size=12))
def test_a_line_that_is_understood_means_the_same_to_sh(line: str) -> None:
    try:
        understood = words(f"x {line}")
    except StartError:
        return
    said = subprocess.run(["sh", "-c", f"printf '%s\\0' x {line}"], capture_output=True, text=True).stdout
    assert said.split("\0")[:-1] == understood


def test_a_program_is_found_as_execvp_finds_it(tmp_path: Path) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").touch(mode)
    path = f"{tmp_path}/first:{tmp_path}/second"
    assert locate("tool", path, "/") == f"{tmp_path}/second/tool"
    assert locate("./second/tool", "", str(tmp_path)) == os.path.join(tmp_path, "./second/tool")
    with pytest.raises(StartError, match="command not found"):
        locate("tool", "/nowhere", "/")
    with pytest.raises(StartError, match="permission denied"):
        locate(f"{tmp_path}/first/tool", path, "/")
