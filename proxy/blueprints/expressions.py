"""Late expressions: `!cel "…"` in place of a value, computed for each workspace.

    user.name · user.full_name · user.email · user.provider     text
    user.uid · user.gid                                         numbers
    user.groups                                                 list of text
    workspace.name · workspace.blueprint                        text
    workspace.repo · workspace.ref · workspace.ns · workspace.workload      text, empty if not in the user
    string
    metadata                                                    map, `blueprint.metadata` of the settings

An expression that gives null removes its field, or its entry of a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from proxy.blueprints.document import Document, Expression, Location, Node
from proxy.cel import CompiledExpression, Environment, ExpressionError
from proxy.errors.blueprints import BlueprintInvalid
from proxy.model import User
from proxy.userstring import UserString

_VARIABLES = {
    "user.name": "string",
    "user.full_name": "string",
    "user.email": "string",
    "user.provider": "string",
    "user.uid": "int",
    "user.gid": "int",
    "user.groups": "strings",
    "workspace.name": "string",
    "workspace.blueprint": "string",
    "workspace.repo": "string",
    "workspace.ref": "string",
    "workspace.ns": "string",
    "workspace.workload": "string",
    "metadata": "map",
}

_JSON = frozenset({"STRING", "INT", "UINT", "DOUBLE", "BOOL", "NULL", "NULL_TYPE", "LIST", "MAP", "DYN"})

FIXED = frozenset({"name", "template", "abstract", "access", "quota", "apps"})
"""Fields without expressions: they decide who may use a blueprint or open its apps, so they are equal for
all users.
"""

Programs = Mapping[Location, CompiledExpression]


@dataclass(frozen=True, slots=True)
class Facts:
    """The values of variables in expressions."""

    user: User
    workspace: str
    blueprint: str
    origin: UserString
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def variables(self) -> dict[str, Any]:
        """Return the variables by name, without unknown numbers, so that no user gets the number 0."""
        user, origin = self.user, self.origin
        gid = user.uid if user.gid is None else user.gid
        return {
            "user.name": user.name,
            "user.full_name": user.full_name,
            "user.email": user.email,
            "user.provider": user.provider,
            **({} if user.uid is None else {"user.uid": user.uid}),
            **({} if gid is None else {"user.gid": gid}),
            "user.groups": list(user.groups),
            "workspace.name": self.workspace,
            "workspace.blueprint": self.blueprint,
            "workspace.repo": origin.repo,
            "workspace.ref": origin.ref,
            "workspace.ns": origin.ns,
            "workspace.workload": origin.workload,
            "metadata": dict(self.metadata),
        }


def sample_facts(blueprint: str, metadata: Mapping[str, Any]) -> Facts:
    """Return facts of an invented user, so that every blueprint is computed once when it is read."""
    user = User(
        name="sample",
        full_name="Sample Person",
        email="sample@example.com",
        uid=10_000,
        gid=10_000,
        groups=("example", "example/team"),
        provider="github",
    )
    origin = UserString("sample", repo="sample/project", ref="main")
    return Facts(user, "sample-0123456789", blueprint, origin, metadata)


def compile_expressions(document: Document) -> Programs:
    """Compile every expression of a blueprint, inherited ones included.

    Raises: BlueprintInvalid for the first that is invalid or not allowed at its place.
    """
    programs = {}
    for loc, expression in document.root.expressions():
        if loc[0] in FIXED:
            raise BlueprintInvalid(document.where(loc), "this is the same for all users: no expression here")
        try:
            programs[loc] = _compile(expression)
        except ExpressionError as exc:
            raise BlueprintInvalid(document.where(loc), f"expression: {exc}") from None
    return programs


def evaluate(document: Document, programs: Programs, facts: Facts) -> Document:
    """Replace expressions by their values.

    Raises: BlueprintInvalid naming the expression that has no value.
    """
    if not programs:
        return document
    data = facts.variables()
    values = {}
    for loc, program in programs.items():
        try:
            values[loc] = program.evaluate(data)
        except ExpressionError as exc:
            raise BlueprintInvalid(document.where(loc), f"expression: {exc}") from None
    return Document(_filled(document.root, (), values))


def _filled(node: Node, loc: Location, values: Mapping[Location, Any]) -> Node:
    value = node.value
    if isinstance(value, Expression):
        value = _nodes(values[loc], node)
    elif isinstance(value, dict | list):
        below = [(key, child, _filled(child, (*loc, key), values)) for key, child in node.children()]
        left = [(key, new) for key, old, new in below if new.value is not None or old.value is None]
        value = dict(left) if isinstance(value, dict) else [new for _, new in left]
    return Node(value, node.file_name, node.line)


def _nodes(value: Any, at: Node) -> Any:
    """Return nodes for a result, all with the place of the expression."""
    if isinstance(value, dict):
        return {str(key): Node(_nodes(one, at), at.file_name, at.line) for key, one in value.items()}
    if isinstance(value, list):
        return [Node(_nodes(one, at), at.file_name, at.line) for one in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BlueprintInvalid(f"{at.file_name}:{at.line}", f"expression: gives {type(value).__name__}")


def _compile(expression: Expression) -> CompiledExpression:
    program = _environment().compile(expression.source)
    if program.kind not in _JSON:
        raise ExpressionError(f"gives {program.kind}, which no field takes")
    return program


@cache
def _environment() -> Environment:
    return Environment(_VARIABLES)
