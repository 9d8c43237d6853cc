import ast
import json
import logging
import unicodedata
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import proxy.cli
from proxy import log
from proxy.cli.output import print_fields, print_json, print_lines, print_rows, say, warn
from proxy.printable import printable, printable_json, printable_value

ESCAPES = [
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x9d52;c;eA==\x9c",
    "\r",
    "\b",
    "\x7f",
    "\u202e",
    "\u2028",
    "\udc9b",
]


def is_harmless(text: str, keep: str = "") -> bool:
    """Return whether no character of `text` is a control, a mark of direction or no character at all."""
    return all(one in keep or unicodedata.category(one)[0] != "C" for one in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ls -l; echo ä€漢", "ls -l; echo ä€漢"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\U000e0041", r"\U000e0041"),
        ("\udc9b", r"\udc9b"),
    ],
)
def test_what_a_terminal_would_carry_out_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_nothing_harmful_is_left_of_any_text(text: str) -> None:
    assert is_harmless(printable(text))
    assert is_harmless(printable(text, keep="\n\t"), keep="\n\t")
    assert printable(printable(text)) == printable(text)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(nested)
def test_json_is_harmless_and_is_read_back_as_it_was(value: object) -> None:
    for indent in (None, 2):
        written = printable_json(value, indent)
        assert is_harmless(written, keep="\n")
        assert json.loads(written) == value
    assert is_harmless(json.dumps(printable_value(value), ensure_ascii=False))


@pytest.mark.parametrize("escape", ESCAPES)
def test_every_way_from_a_command_to_the_terminal_is_harmless(
    escape: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": f"a{escape}b", "list": [escape], "at": None}
    say(escape)
    warn(escape)
    print_lines(f"key: {escape}\n")
    print_json(row)
    print_json(row, indent=None)
    print_fields(row, 12)
    print_rows([row], False, ("name", "list"))
    print_rows([row], True, ("name", "list"))
    told = capsys.readouterr()
    assert is_harmless(told.out + told.err, keep="\n\t")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("escape", ESCAPES)
def test_the_log_is_harmless_in_both_forms(
    form: log.LogFormat, escape: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger().handlers[:]
    try:
        log.configure("info", form)
        logger = structlog.get_logger("test").bind(conn=escape)
        logger.info(
            escape, version=escape, several=[escape], mapping={escape: escape}, path=Path(escape + "x")
        )
        try:
            raise ValueError(escape)
        except ValueError as exc:
            logger.exception("failed", reason=exc)
        logging.getLogger("library").warning("said %s", escape)
        told = capfd.readouterr()
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = before
    assert is_harmless(told.out + told.err, keep="\n\t"), told
    assert "failed" in told.err
    assert "said" in told.err


def test_no_command_has_another_way_to_the_terminal_but_the_player_of_recordings() -> None:
    """Ruff forbids `print` there; this is about what it does not know."""
    found = set()
    for file in Path(proxy.cli.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "typer.echo",
                "typer.secho",
                "sys.stdout.write",
                "sys.stderr.write",
                "sys.stdout.buffer",
            ):
                found.add((file.name, ast.unparse(node)))
    found = {(file, use) for file, use in found if file != "output.py"}  # the way to the terminal
    assert found == {("recordings.py", "sys.stdout.write"), ("recordings.py", "sys.stdout.buffer")}
