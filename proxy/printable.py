"""Untrusted text made safe for a terminal: control characters are shown and not executed. Pure.

User strings, client versions, commands, paths and names may hold anything. ESC and the controls U+0080 to
U+009F begin sequences that change a window's title, write to the clipboard or type an answer; direction marks
make a line read as another.
"""

import json
from typing import Any


def printable(text: str, keep: str = "") -> str:
    r"""Return `text` with unprintable characters, except those in `keep`, written as `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def printable_value(value: Any) -> Any:
    """Return a value with every string in it, keys of mappings included, made printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_value(key): printable_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [printable_value(one) for one in value]
    return value


def printable_json(value: Any, indent: int | None = None) -> str:
    """Return the JSON of the same value with unprintable characters written as `\\u009b`; letters stay."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    # Outside of strings there are line ends and spaces only, and json has escaped those inside.
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


def _escaped(one: str) -> str:
    return one.encode("unicode_escape", "surrogatepass").decode("ascii")
