"""Sources of blueprint files. A set is read as a whole, at one moment."""

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
    """By name; at most MAX_FILE_BYTES + 1 of each, so that a larger one is recognised."""
    revision: str = ""
    """Name of this state for operators: a commit, a resourceVersion."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Reasons why files could not be read, by name."""


class Source(Protocol):
    """A remote source of blueprints."""

    async def fetch(self) -> Snapshot:
        """Read the present files, within a deadline of the source's own.

        Raises: BlueprintSourceFailed.
        """


def is_blueprint(file_name: str) -> bool:
    """Return whether a file holds a blueprint; hidden files of editors do not."""
    return file_name.endswith((".yaml", ".yml")) and not file_name.startswith(".")


def blueprint_files(directory: Path) -> list[Path]:
    """Return the files of a directory that hold blueprints."""
    return sorted(path for path in directory.glob("*.y*ml") if is_blueprint(path.name))


def read_directory(directory: Path) -> Snapshot:
    """Read a directory; a missing one is empty."""
    return read_files(blueprint_files(directory))


def read_files(paths: list[Path]) -> Snapshot:
    """Read these files; the keys are their names without directories."""
    files, unreadable = {}, {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                files[path.name] = stream.read(MAX_FILE_BYTES + 1)
        except OSError as exc:
            unreadable[path.name] = exc.strerror or "cannot be read"
    return Snapshot(files, unreadable=unreadable)
