"""Fixtures that tests of several folders share."""

from tests.contract.independent import installed as installed
