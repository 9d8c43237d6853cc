"""The names that others rely on, compared with what is written down in tests/fixtures/surface.

Operators' files, dashboards and scripts hold settings keys, metric names, event subjects and fields, error
codes, commands with their options, and the wire between proxy and shelld. A line that changes or goes is a
break for them; `REWRITE_GOLDEN=1` writes the files anew after a line was added on purpose.
"""

import dataclasses
import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from google.protobuf.descriptor import FieldDescriptor

import proxy.errors
from protos.shelld.v1 import shelld_pb2
from proxy.cli.main import app
from proxy.errors import FairleadError
from proxy.events import subjects
from proxy.metrics import REGISTRY
from proxy.settings import Settings

SURFACE = Path(__file__).parents[1] / "fixtures" / "surface"
_PROSE = ("description", "title", "examples")


def commands() -> Iterator[str]:
    yield from _commands(typer.main.get_command(app), "fairlead")


def _commands(command: Any, path: str) -> Iterator[str]:
    for parameter in command.params:
        names = " ".join(sorted([*parameter.opts, *parameter.secondary_opts]))
        need = "required" if parameter.required else f"default {parameter.default!r}"
        annotation = parameter.type_descriptor.annotation
        yield f"{path}: {names} ({getattr(annotation, '__name__', annotation)}, {need})"
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield f"{path} {name}"
        yield from _commands(child, f"{path} {name}")


def errors() -> Iterator[str]:
    for module in pkgutil.iter_modules(proxy.errors.__path__, "proxy.errors."):
        importlib.import_module(module.name)
    for error in _descendants(FairleadError):
        yield f"{error.code}: exit {error.exit_status}{', retryable' if error.retryable else ''}"


def _descendants(kind: type[FairleadError]) -> Iterator[type[FairleadError]]:
    if kind.__module__.startswith("proxy."):
        yield kind
    for child in kind.__subclasses__():
        yield from _descendants(child)


def events() -> Iterator[str]:
    for subject, event in subjects.TABLE.items():
        yield f"{subject}: {' '.join(one.name for one in dataclasses.fields(event))}"


def metrics() -> Iterator[str]:
    for metric in REGISTRY.collect():
        if metric.name.startswith("fairlead_"):
            collector = REGISTRY._names_to_collectors[metric.name]
            yield f"{metric.name} {metric.type} {' '.join(collector._labelnames)}"


def settings() -> Iterator[str]:
    document = Settings.model_json_schema()
    yield from _keys(document, document.get("$defs", {}), "")


def _keys(node: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    if reference := node.get("$ref"):
        node = {**definitions[reference.rpartition("/")[2]], **node}
    facts = {
        key: value
        for key, value in node.items()
        if key not in {*_PROSE, "properties", "$ref", "$defs", "items", "anyOf", "additionalProperties"}
    }
    if path:
        yield f"{path}: {facts}"
    for key, child in sorted(node.get("properties", {}).items()):
        yield from _keys(child, definitions, f"{path}.{key}" if path else key)
    if isinstance(node.get("items"), dict):
        yield from _keys(node["items"], definitions, f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _keys(node["additionalProperties"], definitions, f"{path}.*")
    for number, child in enumerate(node.get("anyOf", [])):
        yield from _keys(child, definitions, f"{path}|{number}")


def wire() -> Iterator[str]:
    file = shelld_pb2.DESCRIPTOR
    for service in file.services_by_name.values():
        for method in service.methods:
            yield f"rpc {method.full_name}({method.input_type.name}) {method.output_type.name}"
    for message in file.message_types_by_name.values():
        yield from _fields(message)
    for enum in file.enum_types_by_name.values():
        yield from (f"enum {enum.name}.{value.name} = {value.number}" for value in enum.values)


def _fields(message: Any) -> Iterator[str]:
    for one in message.fields:
        yield f"{message.full_name}.{one.name} = {one.number} {_type(one)}"
    for nested in message.nested_types:
        yield from _fields(nested)
    for enum in message.enum_types:
        yield from (f"enum {enum.full_name}.{value.name} = {value.number}" for value in enum.values)


def _type(one: FieldDescriptor) -> str:
    named = one.message_type or one.enum_type
    kind = named.name if named else f"type {one.type}"
    return f"repeated {kind}" if one.is_repeated else kind


SURFACES = {
    "commands": commands,
    "errors": errors,
    "events": events,
    "metrics": metrics,
    "settings": settings,
    "wire": wire,
}


@pytest.mark.parametrize("name", SURFACES)
def test_public_names_are_those_that_are_written_down(name: str) -> None:
    file = SURFACE / f"{name}.txt"
    found = [" ".join(line.split()) for line in SURFACES[name]()]
    if name in {"errors", "events"}:
        found = sorted(set(found))
    if os.environ.get("REWRITE_GOLDEN"):
        file.write_text("\n".join(found) + "\n")
    assert found == file.read_text().splitlines()
    assert len(found) > 5
