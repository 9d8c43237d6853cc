"""The blueprints there are: a directory of `*.yaml`, read whole, swapped whole, never half.

When a file changes, the next use sees it, at most a second later. When the new set cannot be read,
the last good one stays in use and the log says what is wrong.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from proxy.blueprints.schema import Blueprint, load_blueprint
from proxy.errors import BlueprintInvalid, BlueprintNotFound

CHECK_EVERY_S = 1.0

_log = structlog.get_logger("blueprints")
_Signature = tuple[tuple[str, int, int, int], ...]


class Catalog:
    """Blueprints by name."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the directory; one that is missing holds nothing.

        Raises: BlueprintInvalid, so that a broken set is noticed by whoever starts the process.
        """
        self._directory = directory
        self._clock = clock
        self._checked_at = clock()
        self._signature = _signature(directory)
        self._blueprints = read_directory(directory)

    def get(self, name: str) -> Blueprint:
        """Find a blueprint.

        Raises: BlueprintNotFound with a sentence that lists what there is.
        """
        self._refresh(at_once=name not in self._blueprints)  # it may have been written a moment ago
        try:
            return self._blueprints[name]
        except KeyError:
            there = ", ".join(sorted(self._blueprints)) or "none at all"
            raise BlueprintNotFound(f"there is no blueprint {name!r}; there are: {there}") from None

    def all(self) -> list[Blueprint]:
        """Give every blueprint, by name."""
        self._refresh()
        return [self._blueprints[name] for name in sorted(self._blueprints)]

    def _refresh(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if now - self._checked_at < CHECK_EVERY_S and not at_once:
            return
        self._checked_at = now
        if (signature := _signature(self._directory)) == self._signature:
            return
        self._signature = signature
        try:
            self._blueprints = read_directory(self._directory)
        except BlueprintInvalid as exc:
            _log.error("blueprints not reloaded, the last good ones stay", where=exc.where, reason=exc.reason)
        else:
            _log.info("blueprints reloaded", names=sorted(self._blueprints))


def read_directory(directory: Path) -> Mapping[str, Blueprint]:
    """Read every file of a directory.

    Raises: BlueprintInvalid for the first file that cannot be used, and for a name that two of them have.
    """
    found: dict[str, tuple[Blueprint, str]] = {}
    for file in blueprint_files(directory):
        blueprint = load_blueprint(file)
        if blueprint.name in found:
            other = found[blueprint.name][1]
            raise BlueprintInvalid(f"{file.name}: name", f"{blueprint.name} is the name of {other} already")
        found[blueprint.name] = (blueprint, file.name)
    return {name: blueprint for name, (blueprint, _) in found.items()}


def blueprint_files(directory: Path) -> list[Path]:
    """List the files that hold blueprints; editors' hidden files are none."""
    return sorted(
        path for path in directory.glob("*.y*ml") if path.suffix in {".yaml", ".yml"} and path.name[0] != "."
    )


def _signature(directory: Path) -> _Signature:
    """Tell one state of the directory from another, without reading files."""
    seen = []
    for path in blueprint_files(directory):
        try:
            stat = path.stat()
        except OSError:  # gone since it was listed, or a dangling link: reading it will say so
            seen.append((path.name, 0, 0, 0))
        else:
            seen.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(seen)
