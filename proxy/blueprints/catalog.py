"""The blueprints in use, which are replaced only as a whole set.

A set with an error is refused, with file, line and path in the log, and the last good one stays.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from proxy.blueprints.reading import BlueprintSet, read_set
from proxy.blueprints.sources import Snapshot, blueprint_files, read_directory
from proxy.errors.blueprints import BlueprintInvalid

CHECK_EVERY_S = 1.0

_log = structlog.get_logger("blueprints")
_Signature = tuple[tuple[str, int, int, int], ...]


class Catalog:
    """The set in use; the follower of a source offers newer sets to it."""

    def __init__(self, first: Snapshot, metadata: Mapping[str, Any]) -> None:
        """Begin with `first`.

        Raises: BlueprintInvalid, so that a broken set is noticed at the start of the process.
        """
        self._metadata = metadata
        self._set = read_set(first, metadata)

    def current(self, *, wanted: str = "") -> BlueprintSet:
        """Return the set in use without waiting; `wanted` names the blueprint that should be in it."""
        del wanted
        return self._set

    def offer(self, snapshot: Snapshot) -> bool:
        """Use a newer set if it is good; return whether it is."""
        try:
            taken = read_set(snapshot, self._metadata)
        except BlueprintInvalid as exc:
            _log.error(
                "blueprints not reloaded, the last good ones stay",
                where=exc.where,
                reason=exc.reason,
                refused=snapshot.revision,
                revision=self._set.revision,
            )
            return False
        self._set = taken
        _log.info("blueprints reloaded", names=sorted(taken.definitions), revision=taken.revision)
        return True


class DirectoryCatalog(Catalog):
    """A catalog of a local directory: a change is seen at the first use after a second."""

    def __init__(
        self,
        directory: Path,
        metadata: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the directory; a missing one is empty. Raises: BlueprintInvalid."""
        self._directory = directory
        self._clock = clock
        self._checked_at = clock()
        self._signature = _signature(directory)
        super().__init__(read_directory(directory), metadata or {})

    def current(self, *, wanted: str = "") -> BlueprintSet:
        """Return the set in use; read the directory again if it changed."""
        now = self._clock()
        # Its file may have been written just now.
        at_once = bool(wanted) and wanted not in self._set.definitions
        if now - self._checked_at >= CHECK_EVERY_S or at_once:
            self._checked_at = now
            if (signature := _signature(self._directory)) != self._signature:
                self._signature = signature
                self.offer(read_directory(self._directory))
        return self._set


def _signature(directory: Path) -> _Signature:
    """Return a value that differs when the directory changed, without reading files."""
    seen = []
    for path in blueprint_files(directory):
        try:
            stat = path.stat()
        except OSError:  # gone since it was listed, or a dangling link: the reader reports it
            seen.append((path.name, 0, 0, 0))
        else:
            seen.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(seen)
