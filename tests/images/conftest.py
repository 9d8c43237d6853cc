"""Fixtures of the image suites."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.images import docker

GET_COMPOSE = docker.ROOT / "deploy" / "tools" / "get-compose"


@pytest.fixture(scope="session")
def dockerd() -> None:
    """Skip, saying why, on a machine that runs no containers."""
    if reason := docker.missing():
        pytest.skip(f"optional: {reason}")


@pytest.fixture(scope="session")
def compose_config(dockerd: None) -> dict[str, str]:
    """Find Compose v2, or fetch it once for this machine; give what docker's environment needs for it."""
    if docker.docker("compose", "version", check=False):
        return {}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlead-compose"
    if shutil.which("apt-get") is None:
        pytest.skip("optional: Compose v2 is not installed, and there is no apt-get to fetch it with")
    done = subprocess.run([GET_COMPOSE, cache], capture_output=True, text=True, timeout=docker.PATIENCE_S)
    if done.returncode != 0:
        pytest.skip(f"optional: Compose v2 is not installed and cannot be fetched: {done.stderr[-200:]}")
    return {"DOCKER_CONFIG": str(cache)}
