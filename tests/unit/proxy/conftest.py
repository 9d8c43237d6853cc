"""Fixtures of several modules' tests."""

from tests.unit.proxy.commandline import fairlead

__all__ = ["fairlead"]
