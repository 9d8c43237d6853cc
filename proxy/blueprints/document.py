"""YAML as blueprints use it: plain values, and the line that each of them stands on.

Narrower than YAML, so that what is read is what was meant: no tags, no dates, no repeated keys, keys
are text, and no anchors that grow without end.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from proxy.errors import BlueprintInvalid

MAX_NODES = 20_000  # a few lines of nested anchors stand for billions

Location = tuple[str | int, ...]

_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}
_TEXTS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "value")}
_MAPPING, _SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"


@dataclass(frozen=True, slots=True)
class Document:
    """One file's mapping, and where everything in it stands."""

    file_name: str
    content: dict[str, Any]
    lines: dict[Location, int]

    def where(self, loc: Location) -> str:
        """Name a place: `dev.yaml:7: forward.tcp[0]`; what is missing stands where its parent begins."""
        known = loc
        while known not in self.lines and known:
            known = known[:-1]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
        place = f"{self.file_name}:{self.lines.get(known, 1)}"
        return f"{place}: {path}" if path else place


def read_document(data: bytes, file_name: str) -> Document:
    """Read one YAML document that is a mapping; an empty file is an empty one.

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
    """Walks the nodes once, making values and noting lines."""

    def __init__(self, file_name: str, text: str) -> None:
        self._file_name = file_name
        self._loader = yaml.SafeLoader(text)
        self._lines: dict[Location, int] = {}
        self._nodes = 0

    def document(self) -> Document:
        try:
            root = self._loader.get_single_node()
            content = {} if root is None else self._value(root, ())
        finally:
            self._loader.dispose()
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise BlueprintInvalid(f"{self._file_name}:1", "a blueprint is a mapping of fields")
        return Document(self._file_name, content, self._lines)

    def _value(self, node: yaml.Node, loc: Location) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._fail(node, loc, f"more than {MAX_NODES} values; are there anchors in anchors?")
        self._lines.setdefault(loc, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            return [self._value(child, (*loc, index)) for index, child in enumerate(node.value)]
        if node.tag in _TEXTS:
            return self._text(node, loc)
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

    def _mapping(self, node: yaml.MappingNode, loc: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _TEXTS:
                self._fail(key_node, loc, "a name is expected before ':'; put it in quotes")
            key = self._text(key_node, loc)
            if key in result:
                self._fail(key_node, (*loc, key), "this is given twice")
            self._lines[(*loc, key)] = key_node.start_mark.line + 1
            result[key] = self._value(value_node, (*loc, key))
        return result

    def _fail(self, node: yaml.Node, loc: Location, reason: str) -> None:
        self._lines[loc] = node.start_mark.line + 1
        raise BlueprintInvalid(Document(self._file_name, {}, self._lines).where(loc), reason)
