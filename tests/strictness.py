"""Unclosed SQLite connections, reported on every Python as Python 3.13 and later report them."""

import gc
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Watched(sqlite3.Connection):
    def __del__(self) -> None:
        try:
            self.total_changes  # noqa: B018 (the cheapest question that only an open connection answers)
        except sqlite3.ProgrammingError:
            return
        warnings.warn(f"unclosed database in {self!r}", ResourceWarning, stacklevel=1, source=self)


def report_unclosed_databases() -> None:
    """Make `sqlite3.connect` return connections that warn when they are dropped while still open."""
    if sys.version_info >= (3, 13):
        return
    connect = sqlite3.connect

    def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        return connect(*args, **{"factory": _Watched, **kwargs})

    sqlite3.connect = sqlite3.dbapi2.connect = watched  # type: ignore[assignment]


@contextmanager
def unclosed() -> Iterator[list[str]]:
    """Collect what every resource dropped unclosed in the block says, garbage included."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        yield found
        gc.collect()
        found += [str(one.message) for one in said if issubclass(one.category, ResourceWarning)]
