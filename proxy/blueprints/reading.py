"""Reading of blueprint files into definitions, with a complete list of errors. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json

from proxy.blueprints.document import Document, Location, read_document
from proxy.blueprints.expressions import Facts, Programs, compile_expressions, evaluate, sample_facts
from proxy.blueprints.inherit import inherit
from proxy.blueprints.schema import Blueprint
from proxy.blueprints.sources import MAX_FILE_BYTES, MAX_FILES, Snapshot
from proxy.errors.blueprints import BlueprintInvalid

_MAX_LISTED = 20


class Problem(NamedTuple):
    """One error in one file."""

    file: str
    where: str
    """`file:line: path`; for the whole file without a path. An inherited value is in another file."""
    reason: str


@dataclass(frozen=True, slots=True)
class Definition:
    """A blueprint as written, with inherited fields; expressions are computed later for each workspace."""

    document: Document
    programs: Programs
    sample: Blueprint
    """Computed for an invented user. Name, access, quota and `abstract` are the same for all users."""

    @property
    def name(self) -> str:
        """Name of the blueprint."""
        return self.sample.name

    def resolve(self, facts: Facts) -> Blueprint:
        """Compute the expressions for one workspace.

        Raises: BlueprintInvalid naming the place of an expression without a value.
        """
        if not self.programs:
            return self.sample
        return build(evaluate(self.document, self.programs, facts), self.name)


@dataclass(frozen=True, slots=True)
class BlueprintSet:
    """Blueprints of one moment, by name."""

    definitions: Mapping[str, Definition] = field(default_factory=dict)
    revision: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The value of `metadata` in expressions."""


def read_set(snapshot: Snapshot, metadata: Mapping[str, Any]) -> BlueprintSet:
    """Read every file.

    Raises: BlueprintInvalid with the first problem; the reason lists the others.
    """
    definitions, problems = examine(snapshot, metadata)
    if problems:
        distinct = list(dict.fromkeys((where, reason) for _, where, reason in problems))
        raise _joined(distinct)
    return BlueprintSet(definitions, snapshot.revision, metadata)


def examine(snapshot: Snapshot, metadata: Mapping[str, Any]) -> tuple[dict[str, Definition], list[Problem]]:
    """Read every file; return the valid blueprints and all problems."""
    documents, problems = _documents(snapshot)
    definitions = {}
    broken = {PurePath(problem.file).stem: problem for problem in problems}
    for name, document in documents.items():
        try:
            definitions[name] = define(name, documents, metadata)
        except BlueprintProblems as exc:
            problems += [Problem(document.file_name, where, reason) for where, reason in exc.problems]
        except BlueprintInvalid as exc:
            template = document.content.get("template")
            cause = broken.get(template) if isinstance(template, str) and template not in documents else None
            reason = f"{template} cannot be used: {cause.where}: {cause.reason}" if cause else exc.reason
            problems.append(Problem(document.file_name, exc.where, reason))
    return definitions, sorted(problems, key=lambda problem: problem.file)


def define(name: str, documents: Mapping[str, Document], metadata: Mapping[str, Any]) -> Definition:
    """Create one blueprint from the documents, and compute it once for an invented user.

    Raises: BlueprintInvalid.
    """
    document = inherit(name, documents)
    programs = compile_expressions(document)
    evaluated = evaluate(document, programs, sample_facts(name, metadata))
    return Definition(document, programs, build(evaluated, name))


def build(document: Document, name: str) -> Blueprint:
    """Validate the fields of a blueprint without inheritance and expressions.

    Raises: BlueprintInvalid.
    """
    try:
        # As JSON, because strict validation of Python values would refuse a list for a tuple.
        return Blueprint.model_validate_json(to_json({"name": name, **document.content}))
    except ValidationError as exc:
        raise BlueprintProblems(
            [explain_error(error, document) for error in exc.errors(include_url=False)]
        ) from None


class BlueprintProblems(BlueprintInvalid):
    """Several separate problems of one blueprint."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        joined = _joined(problems)
        super().__init__(joined.where, joined.reason)


def _documents(snapshot: Snapshot) -> tuple[dict[str, Document], list[Problem]]:
    """Parse the files as YAML, by the name of the blueprint in each."""
    documents: dict[str, Document] = {}
    problems = [Problem(file, file, reason) for file, reason in snapshot.unreadable.items()]
    if len(snapshot.files) > MAX_FILES:
        return {}, [Problem(sorted(snapshot.files)[MAX_FILES], "blueprints", f"more than {MAX_FILES} files")]
    for file, data in snapshot.files.items():
        try:
            name, document = _document(file, data)
        except BlueprintInvalid as exc:
            problems.append(Problem(file, exc.where, exc.reason))
            continue
        if other := documents.get(name):
            reason = f"{name} is the name of {other.file_name} already"
            problems.append(Problem(file, document.where(("name",)), reason))
        else:
            documents[name] = document
    return documents, problems


def _document(file: str, data: bytes) -> tuple[str, Document]:
    """Parse one file. Raises: BlueprintInvalid."""
    if len(data) > MAX_FILE_BYTES:
        raise BlueprintInvalid(file, f"larger than {MAX_FILE_BYTES} bytes")
    document = read_document(data, file)
    name = document.content.get("name")
    return (name if isinstance(name, str) else PurePath(file).stem), document


def explain_error(error: Mapping[str, Any], document: Document) -> tuple[str, str]:
    """Return place and reason of one validation error of pydantic."""
    loc: Location = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] == "misfit":
        loc += tuple(error["ctx"]["at"])
    reasons = {
        "extra_forbidden": "there is no such field",
        "missing": "this field is missing",
        "string_type": "text is expected; put it in quotes",
        "bool_type": "true or false is expected",
        "model_type": "a mapping of fields is expected",
        "dict_type": "a mapping is expected",
        "tuple_type": "a list is expected",
        "string_pattern_mismatch": f"{error['input']!r} is not of the form that is expected here",
    }
    reason = reasons.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    reason = reason.replace("Input should be", "this should be")
    return document.where(loc), reason


def _joined(problems: list[tuple[str, str]]) -> BlueprintInvalid:
    (where, reason), *rest = problems
    also = "".join(f"; {where}: {reason}" for where, reason in rest[:_MAX_LISTED])
    more = f"; and {len(rest) - _MAX_LISTED} more" if len(rest) > _MAX_LISTED else ""
    return BlueprintInvalid(where, reason + also + more)
