"""Sentences about invalid settings: the place, the given value, and the accepted ones. Pure.

pydantic says what a programmer of the model needs. An operator needs the key path as it was written, the
unit, and words instead of a regular expression.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MAX_SHOWN = 60
"""Characters of a value that are repeated."""

_NAME = "lower-case letters, digits and `-`"
_NATS = "letters, digits, `-` and `_`"
PATTERNS: Mapping[str, str] = {
    r"^[a-z0-9][a-z0-9-]{0,30}$": f"1 to 31 {_NAME}, the first no `-`",
    r"^[a-z0-9][a-z0-9.-]{0,252}$": f"1 to 253 {_NAME} or `.`, as the name of a pod",
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": f"1 to 63 {_NAME}, no `-` at either end",
    r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$": f"1 to 253 {_NAME} or `.`, letters or digits at both ends",
    r"^[0-9]+(\.[0-9]+)?([EPTGMk]i?|m)?$": "a quantity of Kubernetes, such as 10Gi",
    r"^[0-9]+([kMGT]|[KMGT]i)?$": "a size, such as 10Gi",
    r"^([A-Za-z0-9._-]+/)*$": "empty, or names that each end with `/`, such as fairlead/",
    r"^([A-Za-z0-9_.-]+/?)*$": "a directory of the repository, such as deploy/blueprints",
    r"^[A-Za-z0-9_][^\s~^:?*\[\\]*$": "the name of a branch or tag",
    r"^([0-9a-f-]{36})?$": "an installation id, as `fairlead database show` prints it",
    r"^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64})*$": f"words of {_NATS}, with `.` between them",
    r"^[A-Za-z0-9_-]{1,64}$": f"1 to 64 {_NATS}",
    r"^$|^[A-Za-z0-9.-]+:[0-9]{1,5}$": "host:port, such as ssh.example.com:22",
    r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$": (
        "a domain in lower case, such as apps.example.com"
    ),
}
"""What each pattern of a setting asks for."""

_UNITS = {
    "_s": " seconds",
    "_bytes": " bytes",
    "_days": " days",
    "_percent": " percent",
    "_chars": " characters",
}
_SENTENCES: Mapping[str, str] = {
    "extra_forbidden": "there is no such setting",
    "greater_than": "must be more than {gt}{unit}, not {shown}",
    "greater_than_equal": "must be at least {ge}{unit}, not {shown}",
    "less_than": "must be less than {lt}{unit}, not {shown}",
    "less_than_equal": "must be at most {le}{unit}, not {shown}",
    "literal_error": "must be {expected}, not {shown}",
    "missing": "is needed",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "too_short": "needs at least {min_length} of them",
    "union_tag_invalid": "must be one of {expected_tags}, not {tag!r}",
    "union_tag_not_found": "is needed",
}
"""By pydantic's name of an error; what stands in braces is its own context, besides `unit` and `shown`."""
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
}
_LIST = 'a list; in the environment as JSON: ["…"]'
_MAPPING = 'a mapping; in the environment as JSON: {"…": …}'
_GROUPS = {
    "tuple": _LIST,
    "list": _LIST,
    "dict": _MAPPING,
    "mapping": _MAPPING,
    "model": "a section of settings",
}
"""What was given in their place is not repeated: it may be an address with a password in it."""
Loc = tuple[int | str, ...]


def problems(errors: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Yield the path of each invalid setting, as it stands in a file, and its fault.

    `errors` are pydantic's and `given` is what it was given.
    """
    seen: set[Loc] = set()
    for error in errors:
        loc = _written(error["loc"], given, is_missing=error["type"] == "missing")
        if error["type"].startswith("union_tag"):
            loc = (*loc, _word(error["ctx"]["discriminator"]))
        if loc in seen and error["type"] not in ("missing", "extra_forbidden"):
            continue  # the other ways to give the same setting
        seen.add(loc)
        yield loc, sentence(error, str(loc[-1]) if loc else "")


def _written(loc: Loc, given: Any, *, is_missing: bool) -> Loc:
    """Leave out the parts that pydantic adds to a path: the kind of a provider, and names of types."""
    path: list[int | str] = []
    node = given
    for number, part in enumerate(loc):
        is_last = number == len(loc) - 1
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(part, int) and isinstance(node, Sequence) and not isinstance(node, str):
            node = node[part] if part < len(node) else None
        elif not (is_last and is_missing):
            continue
        path.append(part)
    return tuple(path)


def sentence(error: Mapping[str, Any], name: str) -> str:
    """Return the fault of one value; `name` ends with its unit, as `_s` and `_bytes` do."""
    kind, shown = error["type"], _shown(error.get("input"))
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    context = {key: _number(value) for key, value in (error.get("ctx") or {}).items()}
    if kind == "string_pattern_mismatch":
        return f"must be {PATTERNS.get(context['pattern'], 'written otherwise')}, not {shown}"
    unit = next((words for end, words in _UNITS.items() if name.endswith(end)), "")
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(**context, unit=unit, shown=shown)
    sort = kind.partition("_")[0]
    if sort in _GROUPS:
        return f"must be {_GROUPS[sort]}"
    wanted = _KINDS.get(sort)
    of = f" of{unit}" if unit else ""
    return f"must be {wanted}{of}, not {shown}" if wanted else str(error["msg"])


def _number(value: Any) -> Any:
    """Write a bound without a fraction of zero."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any) -> str:
    """Repeat a short value; a long or deep one is only called by its kind, and may hold a secret."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, str):
        return repr(value) if len(value) <= _MAX_SHOWN else f"a text of {len(value)} characters"
    if isinstance(value, Sequence):
        return "a list"
    return "nothing" if value is None else str(value)


def _word(text: str) -> str:
    return re.sub(r"\W", "", text)
