"""YAML documents of blueprints: values, the line of each value, and expressions.

Stricter than YAML, so that the result is what the author meant: no tags but `!cel`, no dates, no repeated
keys, keys are text, and no anchors that grow without end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from proxy.errors.blueprints import BlueprintInvalid

MAX_NODES = 20_000  # a few lines of nested anchors can mean billions of nodes
EXPRESSION_TAG = "!cel"

Location = tuple[str | int, ...]

_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}
_TEXTS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "value")}
_MAPPING, _SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"


@dataclass(frozen=True, slots=True)
class Expression:
    """`!cel "…"`: a value that is computed for each workspace."""

    source: str


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place; in a mapping the place is that of the key."""

    value: Any
    """A dict of nodes by text, a list of nodes, an Expression, or a scalar of JSON."""
    file_name: str
    line: int

    def plain(self) -> Any:
        """Return the value without places; expressions stay as they are."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def expressions(self, loc: Location = ()) -> Iterator[tuple[Location, Expression]]:
        """Yield every expression and its location."""
        if isinstance(self.value, Expression):
            yield loc, self.value
        for key, node in self.children():
            yield from node.expressions((*loc, key))

    def children(self) -> "Iterator[tuple[str | int, Node]]":
        """Yield the nodes directly below, by key or index."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def below(self, part: str | int) -> "Node | None":
        """Return the node directly below; None if there is none."""
        return next((node for key, node in self.children() if key == part), None)


@dataclass(frozen=True, slots=True)
class Document:
    """A mapping, read from one file or inherited from several."""

    root: Node

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return self.root.file_name

    @property
    def content(self) -> dict[str, Any]:
        """Return the nodes by key."""
        plain: dict[str, Any] = self.root.plain()
        return plain

    def where(self, loc: Location) -> str:
        """Describe a place: `dev.yaml:7: forward.tcp[0]`; a missing value has the place of its parent."""
        node = self.root
        for part in loc:
            if (below := node.below(part)) is None:
                break
            node = below
        return place(node.file_name, node.line, loc)


def place(file_name: str, line: int, loc: Location) -> str:
    """Format a place for users."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
    return f"{file_name}:{line}: {path}" if path else f"{file_name}:{line}"


def read_document(data: bytes, file_name: str) -> Document:
    """Parse one YAML document that is a mapping; an empty file is an empty mapping.

    Raises: BlueprintInvalid.
    """
    try:
        text = data.decode()
        return _Reader(file_name, text).document()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise BlueprintInvalid(f"{file_name}:{line}", "not UTF-8 text") from None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else 1
        raise BlueprintInvalid(f"{file_name}:{line}", exc.problem or "not YAML") from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise BlueprintInvalid(f"{file_name}:{line}", f"not YAML: {exc.reason}") from None
    except (yaml.YAMLError, RecursionError):
        raise BlueprintInvalid(file_name, "not YAML, or nested too deeply") from None


class _Reader:
    """A converter of YAML nodes into nodes with places."""

    def __init__(self, file_name: str, text: str) -> None:
        self._file_name = file_name
        self._loader = yaml.SafeLoader(text)
        self._nodes = 0

    def document(self) -> Document:
        try:
            root = self._loader.get_single_node()
            node = Node(None, self._file_name, 1) if root is None else self._node(root, (), _line(root))
        finally:
            self._loader.dispose()
        if node.value is None:
            node = Node({}, self._file_name, node.line)
        if not isinstance(node.value, dict):
            raise BlueprintInvalid(f"{self._file_name}:1", "a blueprint is a mapping of fields")
        return Document(node)

    def _node(self, node: yaml.Node, loc: Location, line: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._fail(node, loc, f"more than {MAX_NODES} values; are there anchors in anchors?")
        return Node(self._value(node, loc), self._file_name, line)

    def _value(self, node: yaml.Node, loc: Location) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            return [self._node(child, (*loc, at), _line(child)) for at, child in enumerate(node.value)]
        if node.tag in _TEXTS:
            return self._text(node, loc)
        if node.tag == EXPRESSION_TAG and isinstance(node, yaml.ScalarNode):
            return Expression(self._text(node, loc))
        if node.tag in _SCALARS:
            try:
                return self._loader.construct_object(node)
            except (ValueError, OverflowError):
                self._fail(node, loc, "not a number that can be read")
        self._fail(node, loc, f"the tag {node.tag} is not used in blueprints")
        return None

    def _text(self, node: yaml.Node, loc: Location) -> str:
        text: str = node.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._fail(node, loc, "half of a surrogate pair is not text")
        return text

    def _mapping(self, node: yaml.MappingNode, loc: Location) -> dict[str, Node]:
        result: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _TEXTS:
                self._fail(key_node, loc, "a name is expected before ':'; put it in quotes")
            key = self._text(key_node, loc)
            if key in result:
                self._fail(key_node, (*loc, key), "this is given twice")
            result[key] = self._node(value_node, (*loc, key), _line(key_node))
        return result

    def _fail(self, node: yaml.Node, loc: Location, reason: str) -> None:
        raise BlueprintInvalid(place(self._file_name, _line(node), loc), reason)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
