"""Where the files of blueprints come from. A set is read whole, at one moment, or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 1_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one moment."""

    files: Mapping[str, bytes]
    """By name; no more than MAX_FILE_BYTES + 1 of each, so that a larger one shows as that."""
    revision: str = ""
    """What tells this state from others, for people: a commit, a resourceVersion."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Files that are there and could not be read, and why."""


class Source(Protocol):
    """Somewhere that blueprints are kept, and that takes a while to ask."""

    async def fetch(self) -> Snapshot:
        """Read the files as they are now, within a deadline of the source's own.

        Raises: BlueprintSourceFailed.
        """


def is_blueprint(file_name: str) -> bool:
    """Tell files that hold blueprints from others; editors' hidden files are none."""
    return file_name.endswith((".yaml", ".yml")) and not file_name.startswith(".")


def blueprint_files(directory: Path) -> list[Path]:
    """List the files of a directory that hold blueprints."""
    return sorted(path for path in directory.glob("*.y*ml") if is_blueprint(path.name))


def read_directory(directory: Path) -> Snapshot:
    """Read a directory; one that is missing holds nothing."""
    return read_files(blueprint_files(directory))


def read_files(paths: list[Path]) -> Snapshot:
    """Read these files; their names alone tell them apart."""
    files, unreadable = {}, {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                files[path.name] = stream.read(MAX_FILE_BYTES + 1)
        except OSError as exc:
            unreadable[path.name] = exc.strerror or "cannot be read"
    return Snapshot(files, unreadable=unreadable)
