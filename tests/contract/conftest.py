"""Fixtures of the suites that run on fake and real."""

from tests.contract.directories import (
    cluster,
    database_url,
    directory,
    postgres_database,
    replica,
    sqlite_template,
)

__all__ = ["cluster", "database_url", "directory", "postgres_database", "replica", "sqlite_template"]
