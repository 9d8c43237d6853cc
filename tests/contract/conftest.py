"""Fixtures of the suites that run on fake and real."""

from tests.contract.directories import (
    cluster,
    database_url,
    directory,
    postgres_database,
    replica,
    sqlite_template,
)
from tests.contract.independent import installed

__all__ = [
    "cluster",
    "database_url",
    "directory",
    "installed",
    "postgres_database",
    "replica",
    "sqlite_template",
]
