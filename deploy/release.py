"""Releases: an sdist and a wheel of one commit, checked, with notes from CHANGELOG.md and checksums.

`python -m deploy.release --output DIR`, which is `make release`. The tree must be clean, and CHANGELOG.md
must have a section of the version that `shelld/__init__.py` names. What is built comes from the commit,
and not from the directory: a file that is not committed cannot get in.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

PACKAGES = ("proxy", "shelld", "protos")
_COMMAND_S = 600


class ReleaseError(Exception):
    """A reason, in one sentence, why nothing is released."""


def make(output: Path, root: Path) -> list[Path]:
    """Build and check a release of the commit that is checked out in `root`; return the files written.

    Raises: ReleaseError.
    """
    if output.exists() and any(output.iterdir()):
        raise ReleaseError(f"{output} is not empty")
    if changed := _run(["git", "status", "--porcelain"], root):
        raise ReleaseError(f"the tree is not clean: {changed.split(maxsplit=1)[1].splitlines()[0]}")
    with tempfile.TemporaryDirectory(prefix="fairlead-release-") as directory:
        tree = Path(directory) / "tree"
        _export(root, tree)
        version = version_of(tree)
        notes = notes_of((tree / "CHANGELOG.md").read_text(), version)
        uv = str(Path(sys.executable).with_name("uv"))
        build = [uv, "build", "--quiet", "--no-build-isolation", "--python", sys.executable]
        _run([*build, "--out-dir", str(output)], tree)
        wheel, sdist = _only(output, "*.whl"), _only(output, "*.tar.gz")
        check_wheel(wheel, tree, version)
        check_sdist(sdist, tree)
        check_runs(wheel, version)
    (output / "NOTES.md").write_text(notes)
    files = [wheel, sdist, output / "NOTES.md"]
    sums = output / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in files))
    return [*files, sums]


def version_of(tree: Path) -> str:
    """Return the version of a tree. Raises: ReleaseError."""
    found = re.search(r'(?m)^__version__ = "([^"]+)"$', (tree / "shelld" / "__init__.py").read_text())
    if found is None:
        raise ReleaseError("shelld/__init__.py names no version")
    return found[1]


def notes_of(changes: str, version: str) -> str:
    """Return the text of a version's section of CHANGELOG.md. Raises: ReleaseError if there is none."""
    found = re.search(rf"(?ms)^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", changes)
    if found is None or not found[1].strip():
        raise ReleaseError(
            f"CHANGELOG.md has no section `## {version}`: rename `## Unreleased`, or set __version__ in"
            " shelld/__init__.py"
        )
    return found[1].strip() + "\n"


def check_wheel(wheel: Path, tree: Path, version: str) -> None:
    """Compare a wheel with the tree: it has each file of our packages, and no other. Raises: ReleaseError."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        meta = f"fairlead-{version}.dist-info"
        if f"{meta}/METADATA" not in names:
            raise ReleaseError(f"{wheel.name} is not version {version}")
        if not any(name.startswith(meta) and name.endswith("/LICENSE") for name in names):
            raise ReleaseError(f"{wheel.name} has no LICENSE")
        _compare(wheel.name, {name for name in names if not name.startswith(meta)}, _ours(tree))


def check_sdist(sdist: Path, tree: Path) -> None:
    """Compare an sdist with the tree: it holds our packages and what describes them. Raises: ReleaseError."""
    with tarfile.open(sdist) as archive:
        names = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    wanted = _ours(tree) | {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"}
    if missing := sorted(wanted - names):
        raise ReleaseError(f"{sdist.name} lacks {missing[0]}")


_START = """
import sys
sys.path.insert(0, {wheel!r})
import proxy, shelld.app
assert all(one.__file__.startswith({wheel!r}) for one in (proxy, shelld))
sys.argv = ["fairlead", "--version"]
from proxy.__main__ import main
main()
"""


def check_runs(wheel: Path, version: str) -> None:
    """Import both programs from the wheel, with the libraries of this interpreter. Raises: ReleaseError."""
    said = _run([sys.executable, "-P", "-c", _START.format(wheel=str(wheel))], Path("/")).strip()
    if said != f"fairlead {version}":
        raise ReleaseError(f"{wheel.name} says {said!r} of its version")


def _ours(tree: Path) -> set[str]:
    return {
        str(file.relative_to(tree))
        for package in PACKAGES
        for file in (tree / package).rglob("*")
        if file.is_file()
    }


def _compare(name: str, found: set[str], wanted: set[str]) -> None:
    if missing := sorted(wanted - found):
        raise ReleaseError(f"{name} lacks {missing[0]}")
    if more := sorted(found - wanted):
        raise ReleaseError(f"{name} has {more[0]}, which is not committed")


def _export(root: Path, tree: Path) -> None:
    """Write the files of the commit."""
    tree.mkdir()
    packed = subprocess.run(
        ["git", "archive", "--format=tar", "HEAD"],
        cwd=root,
        capture_output=True,
        timeout=_COMMAND_S,
        check=False,
    )
    if packed.returncode:
        raise ReleaseError(f"git archive: {packed.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(tree, filter="data")


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise ReleaseError(f"{directory} has {len(found)} files like {pattern}, and not one")
    return found[0]


def _run(words: Sequence[str], directory: Path) -> str:
    done = subprocess.run(
        words, cwd=directory, capture_output=True, text=True, timeout=_COMMAND_S, check=False
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(words[:3])}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def main() -> None:
    """Make a release and list its files; exits 1 with a sentence if there is a reason against it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description=main.__doc__)
    parser.add_argument("--output", required=True, type=Path, help="an empty or new directory")
    parser.add_argument("--source", type=Path, default=Path(), help="a checkout of Fairlead")
    arguments = parser.parse_args()
    try:
        files = make(arguments.output.absolute(), arguments.source.absolute())
    except ReleaseError as error:
        sys.exit(f"release: {error}")
    sys.stdout.write("".join(f"{file}\n" for file in files))


if __name__ == "__main__":
    main()
