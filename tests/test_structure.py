"""The structure of the source: rooms, directions of imports, docstrings and their language.

import-linter holds the layers (`make lint`); here is what it does not see: circles that only type checkers
follow, loose modules, and what a reader finds at the top of each module, class and function.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = ("proxy", "shelld")
MOST_LOOSE = 12
"""Modules directly in `proxy/`, which every other may use."""

SEES_ALL_SETTINGS = ("proxy.process", "proxy.cli", "proxy.settings")

_QUESTIONS = frozenset(
    [
        "what",
        "who",
        "whom",
        "whose",
        "whether",
        "how",
        "where",
        "when",
        "why",
        "which",
        "whatever",
        "whoever",
        "that",
    ]
)
_NO_VERBS = _QUESTIONS | frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "these",
        "those",
        "it",
        "its",
        "they",
        "one",
        "every",
        "each",
        "there",
        "here",
        "all",
        "some",
        "any",
        "no",
        "not",
        "if",
        "in",
        "on",
        "at",
        "of",
        "by",
        "for",
        "from",
        "with",
        "as",
        "is",
        "are",
        "was",
        "may",
        "can",
        "must",
        "should",
        "true",
        "false",
        "none",
        "yes",
        "only",
        "never",
        "ever",
    ]
)
_VERBS_IN_S = frozenset(
    [
        "pass",
        "process",
        "press",
        "dismiss",
        "address",
        "focus",
        "canvass",
        "access",
        "express",
        "guess",
        "toss",
    ]
)
_THIRD_PERSONS = frozenset(
    [
        "accepts",
        "answers",
        "asks",
        "begins",
        "brings",
        "builds",
        "calls",
        "carries",
        "chooses",
        "closes",
        "collects",
        "compares",
        "connects",
        "decides",
        "describes",
        "does",
        "draws",
        "ends",
        "finds",
        "gives",
        "has",
        "holds",
        "is",
        "keeps",
        "knows",
        "lets",
        "listens",
        "looks",
        "makes",
        "opens",
        "prints",
        "puts",
        "reads",
        "refuses",
        "removes",
        "returns",
        "runs",
        "says",
        "sends",
        "serves",
        "shows",
        "speaks",
        "starts",
        "stops",
        "takes",
        "tells",
        "tries",
        "turns",
        "verifies",
        "waits",
        "watches",
        "wraps",
        "writes",
    ]
)
_BANNED = re.compile(r"(?<![a-z])(somebody|nobody|whoever|whatever|told)(?![a-z])", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


class Documented(NamedTuple):
    """A module, class or function of the source."""

    place: str
    kind: str
    name: str
    docstring: str | None
    is_public: bool


@cache
def modules() -> dict[str, ast.Module]:
    """Parse every module of both programs, by dotted name."""
    found = {}
    for program in PROGRAMS:
        for file in sorted((ROOT / program).rglob("*.py")):
            if "migrations" in file.parts:
                continue
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imports(name: str) -> set[str]:
    """Return the modules of ours that a module imports, for type checkers too."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                full if (full := f"{node.module}.{alias.name}") in modules() else node.module
                for alias in node.names
            }
    return found & modules().keys() - {name}


def documented() -> Iterator[Documented]:
    """Yield every module, class and function, with what is written at its top."""
    for module, tree in modules().items():
        yield Documented(module, "module", module.rpartition(".")[2], ast.get_docstring(tree), True)
        yield from _members(module, tree, is_public=True)


def _members(place: str, node: ast.AST, *, is_public: bool) -> Iterator[Documented]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if isinstance(child, ast.If | ast.Try | ast.With):
                yield from _members(place, child, is_public=is_public)
            continue
        kind = "class" if isinstance(child, ast.ClassDef) else "function"
        public = is_public and not child.name.startswith("_")
        yield Documented(f"{place}.{child.name}", kind, child.name, ast.get_docstring(child), public)
        yield from _members(f"{place}.{child.name}", child, is_public=public and kind == "class")


def test_no_import_goes_in_a_circle() -> None:
    finished: set[str] = set()

    def follow(name: str, road: tuple[str, ...]) -> None:
        assert name not in road, f"a circle: {' -> '.join((*road[road.index(name) :], name))}"
        if name not in finished:
            for other in sorted(imports(name)):
                follow(other, (*road, name))
            finished.add(name)

    for name in modules():
        follow(name, ())


def test_few_modules_of_the_proxy_are_loose() -> None:
    loose = [name for name in modules() if re.fullmatch(r"proxy\.\w+", name) and not _is_room(name)]
    assert len(loose) <= MOST_LOOSE, loose


def _is_room(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).is_dir()


def test_every_room_says_what_it_is() -> None:
    for name, tree in modules().items():
        if _is_room(name):
            docstring = ast.get_docstring(tree)
            assert docstring, f"{name}/__init__.py has no docstring"
            assert docstring.partition("\n\n")[0].rstrip().endswith("."), f"{name}: not a sentence"


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith(SEES_ALL_SETTINGS)])
def test_parts_see_their_own_section_of_the_settings(name: str) -> None:
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.ImportFrom) and node.module == "proxy.settings":
            assert "Settings" not in {alias.name for alias in node.names}
