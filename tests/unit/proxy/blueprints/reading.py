"""Reads blueprints from text, as sets of files are read."""

from collections.abc import Mapping
from typing import Any

from proxy.blueprints.reading import BlueprintSet, read_set
from proxy.blueprints.schema import Blueprint
from proxy.blueprints.sources import Snapshot


def read(metadata: Mapping[str, Any] | None = None, /, **files: str | bytes) -> BlueprintSet:
    """Read a set; `base="…"` is the file base.yaml."""
    data = {f"{name}.yaml": text.encode() if isinstance(text, str) else text for name, text in files.items()}
    return read_set(Snapshot(data), metadata or {})


def parse(text: str | bytes) -> Blueprint:
    """Read dev.yaml alone."""
    (definition,) = read(dev=text).definitions.values()
    return definition.sample
