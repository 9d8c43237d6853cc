"""Installation and command line of each client, in a cache outside the repository, once for its sources."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOREIGN = Path(__file__).parent
ROOT = FOREIGN.parents[2]
INSTALL_DEADLINE_S = 420
"""For everything that one client needs; a cold build of the Go packages is the longest."""


class NotInstalledError(Exception):
    """Why a client could not be installed."""


@dataclass(frozen=True)
class Kind:
    """A language: the tools that it needs, the sources that an installation is made from, and how."""

    name: str
    tools: tuple[str, ...]
    sources: tuple[str, ...]
    install: Callable[[Path], None]

    def missing(self) -> list[str]:
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def installed(self) -> Path:
        """Return the directory of the installation, made if it is not there; raises `NotInstalledError`."""
        total = hashlib.sha256()
        for name in self.sources:
            total.update((FOREIGN / name).read_bytes())
        directory = cache() / f"{self.name}-{total.hexdigest()[:16]}"
        with held(directory.with_suffix(".lock")):
            if not directory.exists():
                self._make(directory)
        return directory

    def _make(self, directory: Path) -> None:
        """Install beside the directory first, so that what was cut short does not count."""
        fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f"{self.name}-new-"))
        try:
            self.install(fresh)
            fresh.rename(directory)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def cache() -> Path:
    """Return the directory of all installations, of this user."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made = base / "fairlead-test-clients"
    made.mkdir(parents=True, exist_ok=True)
    return made


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Keep other test processes from installing the same meanwhile."""
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def call(*command: str | Path, cwd: Path, **env: str) -> None:
    """Run one step of an installation; raises `NotInstalledError` with its last words."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_DEADLINE_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise NotInstalledError(f"{command[0]} was not done after {INSTALL_DEADLINE_S} s") from exc
    if done.returncode != 0:
        raise NotInstalledError(f"{command[0]} failed: {(done.stdout + done.stderr)[-600:]}")


def _node(directory: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOREIGN / "node" / name, directory)
    # The optional parts are compiled; the library is complete without them.
    call("npm", "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", cwd=directory)


def _go(directory: Path) -> None:
    call(
        "go",
        "build",
        "-mod=readonly",
        "-o",
        directory / "client",
        ".",
        cwd=FOREIGN / "go",
        GOTOOLCHAIN="local",
    )


def _java(directory: Path) -> None:
    shutil.copy(FOREIGN / "java" / "pom.xml", directory)
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={directory}/lib")
    call("mvn", "-q", "-B", *goal, cwd=directory)
    sources = sorted((FOREIGN / "java").glob("*.java"))
    call("javac", "-d", directory / "classes", "-cp", f"{directory}/lib/*", *sources, cwd=directory)


def _python(directory: Path) -> None:
    call(sys.executable, "-m", "venv", directory / "venv", cwd=directory)
    pip = (directory / "venv" / "bin" / "python", "-m", "pip", "install", "--only-binary=:all:")
    call(*pip, "-r", FOREIGN / "python" / "requirements.txt", cwd=directory)


def _nothing(_directory: Path) -> None:
    """Leave it at the libraries of the tests' own environment."""


NODE = Kind("node", ("node", "npm"), ("node/package.json", "node/package-lock.json"), _node)
GO = Kind("go", ("go",), ("go/go.mod", "go/go.sum", "go/main.go"), _go)
JAVA = Kind(
    "java",
    ("java", "javac", "mvn"),
    ("java/pom.xml", "java/Rows.java", "java/Sshj.java", "java/Mina.java"),
    _java,
)
PYTHON = Kind("python", (), ("python/requirements.txt",), _python)
OWN = Kind("own", (), (), _nothing)


@dataclass(frozen=True)
class Client:
    """One library and the program that uses it."""

    name: str
    kind: Kind
    program: str
    pinned: tuple[str, str]
    """The file that pins the version, and the words in front of it there."""

    def version(self) -> str:
        file, before = self.pinned
        _, _, rest = (FOREIGN / file).read_text().partition(before)
        return rest.split()[0].strip('",').split("<")[0]

    def command(self) -> list[str]:
        """Return how to call it, without its arguments; raises `NotInstalledError`."""
        directory = self.kind.installed()
        if self.kind is NODE:
            return ["env", f"NODE_PATH={directory}/node_modules", "node", str(FOREIGN / self.program)]
        if self.kind is GO:
            return [str(directory / "client")]
        if self.kind is JAVA:
            # Small and quick to start; the default takes a thread for each processor.
            path = f"{directory}/classes:{directory}/lib/*"
            return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", path, self.program]
        python = sys.executable if self.kind is OWN else f"{directory}/venv/bin/python"
        return ["env", f"PYTHONPATH={ROOT}", python, "-m", f"tests.wire.foreign.python.{self.program}"]


LOCK = "../../../requirements-dev.lock"
CLIENTS = (
    Client("npm ssh2", NODE, "node/client.js", ("node/package.json", '"ssh2": ')),
    Client("Go x/crypto/ssh", GO, "", ("go/go.mod", "golang.org/x/crypto ")),
    Client("sshj", JAVA, "Sshj", ("java/pom.xml", "<artifactId>sshj</artifactId>\n      <version>")),
    Client(
        "Apache MINA SSHD",
        JAVA,
        "Mina",
        ("java/pom.xml", "<artifactId>sshd-sftp</artifactId>\n      <version>"),
    ),
    Client("libssh (ssh-python)", PYTHON, "with_libssh", ("python/requirements.txt", "ssh-python==")),
    Client("libssh2 (ssh2-python)", PYTHON, "with_libssh2", ("python/requirements.txt", "ssh2-python==")),
    Client("Twisted Conch", PYTHON, "with_conch", ("python/requirements.txt", "twisted==")),
    Client("Paramiko", OWN, "with_paramiko", (LOCK, "\nparamiko==")),
)
