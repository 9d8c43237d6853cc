"""The docker command line, as tests use it."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LABEL = "fairlead-test"
PATIENCE_S = 600
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

BASES = ("base:1", "debian:bookworm-slim")
"""Looked for in this order when FAIRLEAD_TEST_BASE names none."""


def docker(*words: str, timeout_s: float = PATIENCE_S, check: bool = True, **more: str) -> str:
    """Run a docker command; give its output. `more` is added to its environment."""
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **more}
    )
    assert not check or done.returncode == 0, f"docker {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@functools.cache
def missing() -> str:
    """Say what keeps this machine from running containers; empty when nothing does."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    if not docker("version", "--format", "{{.Server.Version}}", check=False):
        return "no dockerd answers; set DOCKER_HOST"
    if not _base():
        return f"none of {', '.join(BASES)} is in this dockerd; name a Debian image in FAIRLEAD_TEST_BASE"
    return ""


def _base() -> str:
    wanted = os.environ.get("FAIRLEAD_TEST_BASE")
    known = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    return wanted or next((name for name in BASES if name in known), "")


@functools.cache
def base() -> str:
    """Return a base image that trusts whom this machine trusts, so that builds reach what it reaches."""
    with tempfile.TemporaryDirectory() as context:
        lines = [f"FROM {_base()}", f"LABEL {LABEL}=base"]
        if CERTIFICATES.exists():
            shutil.copy(CERTIFICATES, context)
            trusting = " ".join(f"{name}={CERTIFICATES}" for name in ("PIP_CERT", "NODE_EXTRA_CA_CERTS"))
            lines += [f"COPY {CERTIFICATES.name} {CERTIFICATES}", f"ENV {trusting}"]
        if (pip := Path("/etc/pip.conf")).exists():
            shutil.copy(pip, context)
            lines.append("COPY pip.conf /etc/pip.conf")
        Path(context, "Dockerfile").write_text("\n".join(lines) + "\n")
        docker("build", "-q", "-t", f"{LABEL}-base", context)
    return f"{LABEL}-base"


@functools.cache
def built(dockerfile: str, target: str = "", context: str = ".") -> str:
    """Build an image on `base` and return its id; unchanged inputs cost nothing the second time."""
    words = ["build", "-q", "--build-arg", f"BASE={base()}", "-f", str(ROOT / dockerfile)]
    if target:
        words += ["--target", target]
    return docker(*words, str(ROOT / context)).splitlines()[-1]


def tagged(image_id: str, name: str) -> str:
    """Tag an image by its content: a node must not take yesterday's for today's."""
    tag = f"{name}:{image_id.removeprefix('sha256:')[:12]}"
    docker("tag", image_id, tag)
    return tag


@functools.cache
def shelld_image() -> str:
    """Build and tag the image that brings shelld; FAIRLEAD_TEST_SHELLD_IMAGE names one that is there."""
    named = os.environ.get("FAIRLEAD_TEST_SHELLD_IMAGE")
    return named or tagged(built("deploy/shelld.Dockerfile"), "fairlead-test-shelld")


@contextmanager
def volume() -> Iterator[str]:
    """A volume that everybody may write to, as an `emptyDir` is."""
    name = docker("volume", "create", "--label", LABEL)
    try:
        docker("run", "--rm", "-v", f"{name}:/v", base(), "chmod", "0777", "/v")
        yield name
    finally:
        docker("volume", "rm", "-f", name)


@contextmanager
def container(*words: str) -> Iterator[str]:
    """A container that runs in the background while inside; its log is shown when something fails."""
    name = docker("run", "-d", "--label", LABEL, *words)
    try:
        yield name
    except BaseException:
        print(docker("logs", name, check=False))
        raise
    finally:
        docker("rm", "-f", "-v", name)


requires = pytest.mark.usefixtures("dockerd")
