"""Fixtures of several modules' tests."""

from tests.unit.proxy.commandline import database, fairlead

__all__ = ["database", "fairlead"]
