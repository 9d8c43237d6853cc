"""Inheritance of blueprints from templates: parent first, node by node. Pure.

A scalar of the child replaces the parent's; mappings are joined by key; a list is appended to the parent's,
except where LISTS says otherwise. `null` removes the template's value at that place. Every value keeps its
own place, so that an error names the file to change.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import Enum

from proxy.blueprints.document import Document, Location, Node
from proxy.errors.blueprints import BlueprintInvalid

NOT_INHERITED = frozenset({"name", "template", "abstract"})


KEPT = frozenset({"record"})
"""`null` removes nothing here: the author of a child may be the user to be recorded."""


class Join(Enum):
    """The way in which a child's list is joined with its parent's."""

    APPEND = "append"
    REPLACE = "replace"
    BY_NAME = "by name"
    """An entry replaces the parent's entry of the same `name`, else it is appended."""


LISTS: Mapping[str, Join] = {
    "init": Join.BY_NAME,
    # A child can only narrow a list that grants something by replacing it.
    "access.users": Join.REPLACE,
    "access.groups": Join.REPLACE,
    "accounts": Join.REPLACE,
    "apps.*.share.users": Join.REPLACE,
    "apps.*.share.groups": Join.REPLACE,
    "apps.*.cors": Join.REPLACE,
    "apps.*.embed": Join.REPLACE,
    "forward.tcp": Join.REPLACE,
    "forward.unix": Join.REPLACE,
    "forward.listen_tcp": Join.REPLACE,
    "forward.listen_unix": Join.REPLACE,
    "security.add_capabilities": Join.REPLACE,
    "storages.*.access_modes": Join.REPLACE,
}
"""Lists by path, with `*` for any key. Every other list is appended."""


def inherit(name: str, documents: Mapping[str, Document]) -> Document:
    """Join a blueprint with its template, that one's template, and so on.

    Raises: BlueprintInvalid for a missing template, and for inheritance in a circle.
    """
    line = [name]
    while (template := _template_of(documents[line[-1]])) is not None:
        document = documents[line[-1]]
        if template not in documents:
            reason = f"there is no blueprint {template!r} to inherit from{_hint(template, documents)}"
            raise BlueprintInvalid(document.where(("template",)), reason)
        if template in line:
            circle = " → ".join([*line, template])
            raise BlueprintInvalid(documents[name].where(("template",)), f"inherits from itself: {circle}")
        line.append(template)
    root = documents[line.pop()].root
    while line:
        root = merge(root, documents[line.pop()].root)
    return Document(root)


def merge(parent: Node, child: Node) -> Node:
    """Join two whole blueprints; fields in NOT_INHERITED come from the child only."""
    kept = {key: node for key, node in parent.value.items() if key not in NOT_INHERITED}
    return _merge(Node(kept, parent.file_name, parent.line), child, ())


def _hint(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _template_of(document: Document) -> str | None:
    node = document.root.below("template")
    # Anything else is refused when the fields are read, with a better message.
    return node.value if node is not None and isinstance(node.value, str) else None


def _merge(parent: Node, child: Node, loc: Location) -> Node:
    if isinstance(parent.value, dict) and isinstance(child.value, dict):
        joined = dict(parent.value)
        for key, node in child.value.items():
            if key in joined and node.value is None:
                if loc or key not in KEPT:
                    del joined[key]
            else:
                joined[key] = _merge(joined[key], node, (*loc, key)) if key in joined else node
        return Node(joined, child.file_name, child.line)
    if isinstance(parent.value, list) and isinstance(child.value, list):
        return Node(_join(parent.value, child.value, join_of(loc)), child.file_name, child.line)
    return child


def join_of(loc: Location) -> Join:
    """Return the way in which lists at a place are joined."""
    parts = [str(part) for part in loc]
    for path, join in LISTS.items():
        wanted = path.split(".")
        if len(wanted) == len(parts) and all(
            one in ("*", part) for one, part in zip(wanted, parts, strict=True)
        ):
            return join
    return Join.APPEND


def _join(parent: list[Node], child: list[Node], join: Join) -> list[Node]:
    if join is Join.REPLACE:
        return child
    if join is Join.APPEND:
        return [*parent, *child]
    result = list(parent)
    names = [_name_of(node) for node in parent]
    for node in child:
        name = _name_of(node)
        if name is not None and name in names:
            result[names.index(name)] = node
        else:
            result.append(node)
    return result


def _name_of(node: Node) -> object:
    below = node.below("name")
    return None if below is None else below.value
