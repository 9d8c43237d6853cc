"""From the files of one moment to the blueprints they define; pure, and complete about what is wrong."""

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

_MAX_TOLD = 20


class Problem(NamedTuple):
    """One thing wrong with one file."""

    file: str
    where: str
    """`file:line: path`, the path left out for the whole file. An inherited value stands in another file."""
    reason: str


@dataclass(frozen=True, slots=True)
class Definition:
    """A blueprint as it is written, with what it inherits; its expressions wait for a workspace."""

    document: Document
    programs: Programs
    sample: Blueprint
    """Worked out for somebody made up. Name, access, quota and `abstract` are those of everybody's."""

    @property
    def name(self) -> str:
        return self.sample.name

    def resolve(self, facts: Facts) -> Blueprint:
        """Work out the expressions for one workspace.

        Raises: BlueprintInvalid naming the place of what cannot be worked out.
        """
        if not self.programs:
            return self.sample
        return build(evaluate(self.document, self.programs, facts), self.name)


@dataclass(frozen=True, slots=True)
class BlueprintSet:
    """Blueprints that go together, by name."""

    definitions: Mapping[str, Definition] = field(default_factory=dict)
    revision: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What expressions see as `metadata`."""


def read_set(snapshot: Snapshot, metadata: Mapping[str, Any]) -> BlueprintSet:
    """Read every file.

    Raises: BlueprintInvalid with the first problem; the rest is named in the reason.
    """
    definitions, problems = examine(snapshot, metadata)
    if problems:
        told = list(dict.fromkeys((where, reason) for _, where, reason in problems))
        raise _joined(told)
    return BlueprintSet(definitions, snapshot.revision, metadata)


def examine(snapshot: Snapshot, metadata: Mapping[str, Any]) -> tuple[dict[str, Definition], list[Problem]]:
    """Read every file, and give what can be used beside everything that is wrong."""
    documents, problems = _documents(snapshot)
    definitions = {}
    broken = {PurePath(problem.file).stem: problem for problem in problems}
    for name, document in documents.items():
        try:
            definitions[name] = define(name, documents, metadata)
        except Invalid as exc:
            problems += [Problem(document.file_name, where, reason) for where, reason in exc.problems]
        except BlueprintInvalid as exc:
            template = document.content.get("template")
            cause = broken.get(template) if isinstance(template, str) and template not in documents else None
            reason = f"{template} cannot be used: {cause.where}: {cause.reason}" if cause else exc.reason
            problems.append(Problem(document.file_name, exc.where, reason))
    return definitions, sorted(problems, key=lambda problem: problem.file)


def define(name: str, documents: Mapping[str, Document], metadata: Mapping[str, Any]) -> Definition:
    """Make one blueprint of the documents, and work it out once for somebody made up.

    Raises: BlueprintInvalid.
    """
    document = inherit(name, documents)
    programs = compile_expressions(document)
    evaluated = evaluate(document, programs, sample_facts(name, metadata))
    return Definition(document, programs, build(evaluated, name))


def build(document: Document, name: str) -> Blueprint:
    """Check the fields of a blueprint in which nothing is left to inherit or to evaluate.

    Raises: BlueprintInvalid.
    """
    try:
        # As JSON, because strictness about Python values would refuse every list for a tuple.
        return Blueprint.model_validate_json(to_json({"name": name, **document.content}))
    except ValidationError as exc:
        raise Invalid([told(error, document) for error in exc.errors(include_url=False)]) from None


class Invalid(BlueprintInvalid):
    """Several problems of one blueprint, told apart."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        joined = _joined(problems)
        super().__init__(joined.where, joined.reason)


def _documents(snapshot: Snapshot) -> tuple[dict[str, Document], list[Problem]]:
    """Read the files as YAML, by the name of the blueprint in each."""
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
    """Read one file. Raises: BlueprintInvalid."""
    if len(data) > MAX_FILE_BYTES:
        raise BlueprintInvalid(file, f"larger than {MAX_FILE_BYTES} bytes")
    document = read_document(data, file)
    name = document.content.get("name")
    return (name if isinstance(name, str) else PurePath(file).stem), document


def told(error: Mapping[str, Any], document: Document) -> tuple[str, str]:
    """Name the place and the reason of one error of pydantic's."""
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
    also = "".join(f"; {where}: {reason}" for where, reason in rest[:_MAX_TOLD])
    more = f"; and {len(rest) - _MAX_TOLD} more" if len(rest) > _MAX_TOLD else ""
    return BlueprintInvalid(where, reason + also + more)
