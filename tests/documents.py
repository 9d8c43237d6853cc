"""Commands and files that a page of the documentation shows, so that tests run what a reader types."""

import re
from pathlib import Path

_DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(page: str, heading: str) -> str:
    """Return what stands below a heading of docs/`page`, up to the next heading of its level or above.

    Raises: LookupError.
    """
    level, is_code, found = 0, False, list[str]()
    for line in (_DOCS / page).read_text(encoding="utf-8").splitlines(keepends=True):
        is_code ^= line.startswith("```")
        here = 0 if is_code else len(line) - len(line.lstrip("#"))  # a comment of a shell is no heading
        if level and 0 < here <= level:
            break
        if level:
            found.append(line)
        elif line.rstrip() == f"{'#' * here} {heading}" and here:
            level = here
    if not level:
        raise LookupError(f"docs/{page} has no heading {heading!r}")
    return "".join(found)


def blocks(page: str, heading: str, language: str) -> list[str]:
    """Return the fenced blocks of one language below a heading, in their order. Raises: LookupError."""
    found = [text for kind, text in _BLOCK.findall(section(page, heading)) if kind == language]
    if not found:
        raise LookupError(f"docs/{page} has no block of {language} below {heading!r}")
    return found


def files(page: str, heading: str) -> dict[str, str]:
    """Return the YAML files below a heading by the name that each has in its first line, a comment."""
    named = (re.match(r"# ([\w.-]+)", text) for text in blocks(page, heading, "yaml"))
    return {found[1]: found.string for found in named if found}
