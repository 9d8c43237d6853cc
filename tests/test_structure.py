"""The structure of the source: rooms, directions of imports, docstrings and their language.

import-linter holds the layers (`make lint`); here is what it does not see: circles that only type checkers
follow, loose modules, and what a reader finds at the top of each module, class and function.
"""

import ast
import io
import re
import tokenize
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


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_QUESTIONS = _words("what who whom whose whether how where when why which whatever whoever that")
_NO_VERBS = _QUESTIONS | _words(
    "a an the this these those it its they one every each there here all some any no not if in on at of by"
    " for from with as is are was may can must should true false none yes only never ever seconds"
    " made taken given kept called found"
)
_VERBS_IN_S = _words("pass process press dismiss address focus canvass access express guess toss discuss")
_VERBS_IN_ED_OR_ING = _words("feed need embed speed exceed proceed bring string ping")
_IMPERATIVES = _words(
    "add allow apply ask begin bring build carry choose close collect connect create decide decode describe"
    " do draw drop encode find forget get give have hear hold keep know let listen look make notice own parse"
    " put read refuse remember remove return run say see send serve take tell try turn wait write"
)
"""Words that are no nouns, with which a module or a class does not begin."""
_THIRD_PERSONS = _words(
    "accepts adds answers asks begins brings builds carries chooses closes collects compares connects"
    " creates decides describes does draws encrypts ends finds gathers gives has hears holds is judges keeps"
    " knows lets listens looks maps makes opens prints publishes puts refuses remembers removes returns runs"
    " says seals sends serves speaks starts stops takes tells tries turns verifies waits watches wraps writes"
)
_CLAUSE = re.compile(
    r"\bwhat\b|\b(?:return|say|tell|give|show|know|decide|choose|find|describe|explain|name)s?"
    r" (?:who|whom|whose|how|why|which|where)\b",
    re.IGNORECASE,
)
"""A clause that begins with a question word; `Return whether` and `Return when` are plain enough."""
_BANNED = re.compile(r"(?<![a-z])(somebody|nobody|whoever|whatever|told)(?![a-z])", re.IGNORECASE)
_BANNED_IN_TEXT = re.compile(r"\b(somebody|nobody|anybody|everybody|whoever|whatever|told)\b", re.IGNORECASE)
_LISTS_ACCOUNTS = "proxy.identity.reserved_names"
"""Names the account `nobody`."""
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


def documented(name: str) -> Iterator[Documented]:
    """Yield a module, its classes and its functions, with what is written at their tops."""
    tree = modules()[name]
    yield Documented(name, "module", name.rpartition(".")[2], ast.get_docstring(tree), True)
    yield from _members(name, tree, is_public=True)


def _members(place: str, node: ast.AST, *, is_public: bool) -> Iterator[Documented]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if isinstance(child, ast.If | ast.Try | ast.With):
                yield from _members(place, child, is_public=is_public)
            continue
        kind = "class" if isinstance(child, ast.ClassDef) else "function"
        public = is_public and not child.name.startswith("_")
        inner = f"{place}.{child.name}"
        yield Documented(inner, kind, child.name, ast.get_docstring(child), public)
        yield from _members(inner, child, is_public=public and kind == "class")


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
        if isinstance(node, ast.ImportFrom) and node.module in ("proxy.settings", "proxy.settings.root"):
            assert "Settings" not in {alias.name for alias in node.names}


# ---------------------------------------------------------------------------------------- language

READ = list(modules())


def first_line_fault(kind: str, docstring: str) -> str:
    """Return why the first line of a docstring is no noun phrase or imperative; empty when it is one."""
    line = docstring.splitlines()[0]
    found = _WORD.match(line.lstrip('`"'))
    word = found[0].lower() if found else ""
    if kind == "function":
        if line.startswith("See "):
            return ""
        if word in _NO_VERBS or (word.endswith("s") and word not in _VERBS_IN_S):
            return "does not begin with an imperative"
        if word.endswith(("ed", "ing")) and word not in _VERBS_IN_ED_OR_ING:
            return "does not begin with an imperative"
    elif word in _QUESTIONS | _THIRD_PERSONS | _IMPERATIVES:
        return "does not begin with a noun phrase"
    return "has a clause with a question word" if _CLAUSE.search(line) else ""


@pytest.mark.parametrize("name", READ)
def test_docstrings_begin_with_a_noun_phrase_or_an_imperative(name: str) -> None:
    faults = [
        f"{one.place} {fault}: {one.docstring.splitlines()[0]}"
        for one in documented(name)
        if one.docstring and (fault := first_line_fault(one.kind, one.docstring))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", READ)
def test_every_public_name_has_a_docstring(name: str) -> None:
    without = [one.place for one in documented(name) if one.is_public and not one.docstring]
    assert not without, without


@pytest.mark.parametrize("name", READ)
def test_docstrings_comments_and_names_say_who_acts(name: str) -> None:
    """None of *somebody, nobody, whoever, whatever, told*."""
    docstrings, names = _strings_of_their_own(modules()[name]), _identifiers(modules()[name])
    faults = [text for text in (*docstrings, *names, *_comments(name)) if _BANNED.search(text)]
    assert not faults, faults


@pytest.mark.parametrize("name", [name for name in READ if name != _LISTS_ACCOUNTS])
def test_texts_for_users_and_logs_say_who_acts(name: str) -> None:
    texts = [
        node.value
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    faults = [text for text in texts if _BANNED_IN_TEXT.search(text)]
    assert not faults, faults


@pytest.mark.parametrize(
    ("kind", "docstring"),
    [
        ("function", "What is known of a user."),
        ("function", "Returns the user."),
        ("function", "Made by `start`."),
        ("function", "Seconds since the start."),
        ("function", "Whether it is live."),
        ("function", "Say who asked."),
        ("function", "Give what is known."),
        ("class", "Keeps trust."),
        ("class", "Hold a secret."),
        ("class", "Who asks, and for which workspace."),
        ("module", "How long a user may stay."),
        ("module", "The place where what is known lies."),
    ],
)
def test_a_docstring_in_the_former_way_is_found(kind: str, docstring: str) -> None:
    assert first_line_fault(kind, docstring)


@pytest.mark.parametrize(
    ("kind", "docstring"),
    [
        ("function", "Return whether a user is known."),
        ("function", "Pass a request on."),
        ("function", "See Directory."),
        ("class", "The users of one process."),
        ("class", "`tun` devices of a workspace."),
        ("module", "Bans, and resource limits for unauthenticated connections."),
    ],
)
def test_a_plain_docstring_is_accepted(kind: str, docstring: str) -> None:
    assert not first_line_fault(kind, docstring)


def _strings_of_their_own(tree: ast.Module) -> Iterator[str]:
    """Yield docstrings, those of attributes included: strings that are statements."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            yield value if isinstance(value, str) else ""


def _identifiers(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module gives or uses, with `_` between the words of CamelCase."""
    for name in _names(tree):
        yield re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.alias):
            yield node.name


def _comments(name: str) -> Iterator[str]:
    base = ROOT / name.replace(".", "/")
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
