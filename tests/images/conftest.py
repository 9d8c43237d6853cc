"""Fixtures of the image suites."""

import pytest

from tests.images import docker


@pytest.fixture(scope="session")
def dockerd() -> None:
    """Skip, saying why, on a machine that runs no containers."""
    if reason := docker.missing():
        pytest.skip(f"optional: {reason}")
