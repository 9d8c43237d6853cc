"""The other Pythons that `.ci/run` finds for the unit tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "pythons"


def install(directory: Path, name: str, *, prints: str | None) -> Path:
    """Write a program of that name which prints a version, or fails as a shim of pyenv does."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    act = f"echo {prints}" if prints else "echo 'command not found' >&2; exit 127"
    file.write_text(f"#!/bin/sh\n{act}\n")
    file.chmod(0o755)
    return file


def find(own: str, path: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": f"{path}:/usr/bin:/bin", "PYENV_ROOT": str(home)}
    return subprocess.run(
        ["/bin/bash", SCRIPT, own], env=environment, capture_output=True, text=True, check=True, timeout=60
    )


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "bin", tmp_path / "pyenv"


def test_each_other_version_is_found_once_on_path_or_of_pyenv(places: tuple[Path, Path]) -> None:
    path, home = places
    on_path = install(path, "python3.97", prints="3.97")
    install(path, "python3.10", prints="3.10")
    install(path, "python3.98", prints=None)
    install(home / "versions/3.97.1/bin", "python3.97", prints="3.97")
    of_pyenv = install(home / "versions/3.98.0/bin", "python3.98", prints="3.98")
    done = find("3.11", path, home)
    ours = [line for line in done.stdout.splitlines() if line.startswith(str(path.parent))]
    assert ours == [str(on_path), str(of_pyenv)]
    assert f"{path}/python3.98: does not run" in done.stderr


def test_the_version_that_ran_already_is_left_out(places: tuple[Path, Path]) -> None:
    path, home = places
    install(path, "python3.97", prints="3.97")
    assert f"{path}/python3.97" not in find("3.97", path, home).stdout


def test_a_python_that_can_make_an_environment_is_really_asked(places: tuple[Path, Path]) -> None:
    """The interpreter of these tests has made its own environment, so the question must accept it."""
    path, home = places
    path.mkdir()
    base = Path(os.path.realpath(sys.executable))
    name = f"python3.{sys.version_info.minor}"
    (path / name).symlink_to(base)
    assert f"{path}/{name}" in find("3.10", path, home).stdout.splitlines()
