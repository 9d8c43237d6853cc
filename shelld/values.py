"""Typed values from parsed JSON; problems are collected, so that one message lists all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
MAX_SOCKET_PATH_BYTES = 107
"""Room in `sun_path` without its final NUL: unix(7)."""


class Reader:
    """A reader of typed values from one JSON object, which collects problems."""

    def __init__(self, raw: object, path: str, problems: list[str]) -> None:
        self._path = path
        self._problems = problems
        if not isinstance(raw, dict):
            problems.append(f"{path or 'the file'} must be a JSON object")
            raw = {}
        self._raw: dict[str, Any] = dict(raw)

    def take(self, key: str, default: _T, convert: Callable[[Any], _T]) -> _T:
        """Return the converted value of `key`, or `default` when it is missing, null or bad."""
        value = self._raw.pop(key, None)
        if value is None:
            return default
        try:
            return convert(value)
        except (TypeError, ValueError) as error:
            self._problems.append(f"{self._path}{key} {error}")
            return default

    def close(self) -> None:
        """Report unknown keys: a misspelt key must not be ignored silently."""
        self._problems.extend(f"{self._path}{key} is not a setting" for key in self._raw)


def text(value: Any) -> str:
    """Return text. Raises: TypeError."""
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("must be text")
    return value


def absolute(value: Any) -> str:
    """Return an absolute path. Raises: TypeError, ValueError."""
    if not text(value).startswith("/"):
        raise ValueError("must be an absolute path")
    return str(value)


def number(value: Any) -> float:
    """Return a finite number of at least 0. Raises: TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise TypeError("must be a number of at least 0")
    return float(value)


def flag(value: Any) -> bool:
    """Return true or false. Raises: TypeError."""
    if not isinstance(value, bool):
        raise TypeError("must be true or false")
    return value


def count(value: Any) -> int:
    """Return a whole number of at least 0, below 2^32 - 1. Raises: TypeError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32 - 1:
        raise TypeError("must be a whole number of at least 0")
    return value


def list_of(convert: Callable[[Any], _T]) -> Callable[[Any], tuple[_T, ...]]:
    """Return a converter of lists whose items `convert` converts."""

    def convert_all(value: Any) -> tuple[_T, ...]:
        if not isinstance(value, list):
            raise TypeError("must be a list")
        return tuple(convert(item) for item in value)

    return convert_all


def environment(value: Any) -> dict[str, str]:
    """Return environment variables. Raises: TypeError, ValueError."""
    if not isinstance(value, dict):
        raise TypeError("must be an object of texts")
    for name, entry in value.items():
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"has a bad name: {name!r}")
        if not isinstance(entry, str) or "\0" in entry:
            raise ValueError(f"must hold text under {name}")
    return dict(value)
