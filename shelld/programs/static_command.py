"""Command lines without a shell: words and quotes, and no other syntax of shells.

An image may hold one static program and no shell. `ssh workspace /program --flag "one value"` has one meaning
in every shell, so it is run; any other syntax is refused rather than guessed.
"""

from __future__ import annotations

import os
import re
import shlex

from shelld.errors import StartCode, StartError

_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\$`]|\\[^$`\n])*"|\\[^\n]""")
_SYNTAX = re.compile(r"[|&;<>()$`*?\[\]\n\"'\\]|(?:^|\s)[#~]")
_ASSIGNMENT = re.compile(r"\s*[A-Za-z_][A-Za-z0-9_]*=")


def words(line: str) -> list[str]:
    """Split a command line as every POSIX shell would.

    Raises: StartError INVALID for an empty line, and for one with a meaning in shells only.
    """
    bare = _QUOTED.sub("x", line)
    if _SYNTAX.search(bare) or _ASSIGNMENT.match(bare) or not bare.strip():
        raise StartError(
            StartCode.INVALID,
            "the workspace has no shell, so a command there is a program and its words, with quotes at most",
        )
    return shlex.split(line, posix=True)


def locate(name: str, path: str, directory: str) -> str:
    """Return the file that a command's first word names: execvp(3).

    Raises: StartError NOT_FOUND, NOT_EXECUTABLE.
    """
    if "/" in name:
        places = [os.path.join(directory, name)]
    else:
        places = [os.path.join(directory, entry, name) for entry in path.split(":")]
    found = [place for place in places if os.path.isfile(place)]
    for place in found:
        if os.access(place, os.X_OK):
            return place
    if found:
        raise StartError(StartCode.NOT_EXECUTABLE, f"{name[:256]}: permission denied")
    raise StartError(
        StartCode.NOT_FOUND, f"{name[:256]}: command not found; the workspace has no shell either"
    )
