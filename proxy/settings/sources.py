"""The sources of the settings: a file, the environment (which nothing else reads), the command line."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from proxy.errors import SettingsError
from proxy.settings import sentences
from proxy.settings.root import Settings

_PREFIX = "FAIRLEAD_"


def load(
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Join the sources into one value; `file` is YAML, `overrides` come from the command line.

    Raises: SettingsError listing every problem with its path.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    for layer in (_from_file(file or _file_of(environ)), _from_environ(environ), dict(overrides or {})):
        _merge(merged, layer)
    try:
        return Settings.model_validate(merged)
    except ValidationError as exc:
        problems = sentences.problems(exc.errors(), merged)
        raise SettingsError("; ".join(f"{_name(loc, environ)}{said}" for loc, said in problems)) from None


def _name(loc: tuple[int | str, ...], environ: Mapping[str, str]) -> str:
    """Return the name of a setting as it was written: its variable, or its path in a file."""
    variable = _PREFIX + "__".join(str(part).upper() for part in loc)
    name = variable if variable in environ else ".".join(map(str, loc))
    return f"{name}: " if name else ""


def _file_of(environ: Mapping[str, str]) -> Path | None:
    return Path(environ["FAIRLEAD_CONFIG"]) if environ.get("FAIRLEAD_CONFIG") else None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as exc:
        raise SettingsError(f"{file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{file}: is not UTF-8 text at byte {exc.start}") from exc
    except yaml.MarkedYAMLError as exc:
        line = f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise SettingsError(f"{file}{line}: is not YAML: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise SettingsError(f"{file}: is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(content, dict):
        raise SettingsError(f"{file}: must hold a mapping of settings, not {type(content).__name__}")
    return content


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(_PREFIX) or name == "FAIRLEAD_CONFIG":
            continue
        *sections, leaf = name.removeprefix(_PREFIX).lower().split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise SettingsError(f"{name}: {section} is a value, not a section")
        node[leaf] = _value_of(text)
    return tree


def _value_of(text: str) -> Any:
    """Read lists and mappings as JSON; everything else stays text, which the model converts."""
    if text.startswith(("[", "{")):
        with suppress(ValueError):
            return json.loads(text)
    return text


def _merge(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value
