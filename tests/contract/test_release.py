"""`make release`: the artifacts of a commit, and the reasons for which there are none."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import release
from deploy.release import ReleaseError

ROOT = Path(__file__).parents[2]
VERSION = release.version_of(ROOT)


def git(directory: Path, *words: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=directory, check=True, capture_output=True, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of its own with the files of this one, and a section of the version in CHANGELOG.md."""
    directory = tmp_path / "checkout"
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "-z",
            *release.PACKAGES,
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "CHANGELOG.md",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes((ROOT / name).read_bytes())
    (directory / "CHANGELOG.md").write_text(f"# Changes\n\n## {VERSION}\n\n- A line.\n\n## 0.0.1\n\n- Old.\n")
    git(directory, "init", "-q")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "all")
    return directory


def test_a_release_has_what_was_committed_with_notes_and_checksums(checkout: Path, tmp_path: Path) -> None:
    output = tmp_path / "dist"
    words = [sys.executable, "-m", "deploy.release", "--output", str(output), "--source", str(checkout)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in output.iterdir() if file.name != ".gitignore"} == {
        f"fairlead-{VERSION}-py3-none-any.whl",
        f"fairlead-{VERSION}.tar.gz",
        "NOTES.md",
        "SHA256SUMS",
    }
    assert (output / "NOTES.md").read_text() == "- A line.\n"
    for line in (output / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == digest
    with pytest.raises(ReleaseError, match="is not empty"):
        release.make(output, checkout)


def test_a_tree_with_a_change_is_not_released(checkout: Path, tmp_path: Path) -> None:
    (checkout / "proxy" / "left_over.py").write_text("")
    with pytest.raises(ReleaseError, match=r"the tree is not clean: proxy/left_over\.py"):
        release.make(tmp_path / "dist", checkout)


def test_a_version_without_a_section_in_the_changes_is_not_released(checkout: Path, tmp_path: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("# Changes\n\n## Unreleased\n\n- A line.\n")
    git(checkout, "commit", "-qam", "changes")
    with pytest.raises(ReleaseError, match=f"no section `## {VERSION}`"):
        release.make(tmp_path / "dist", checkout)


def test_a_wheel_that_lacks_or_adds_a_file_is_refused(checkout: Path, tmp_path: Path) -> None:
    output = tmp_path / "dist"
    wheel = next(file for file in release.make(output, checkout) if file.suffix == ".whl")
    release.check_wheel(wheel, checkout, VERSION)
    (checkout / "proxy" / "aio.py").rename(checkout / "proxy" / "other.py")
    with pytest.raises(ReleaseError, match=r"lacks proxy/other\.py"):
        release.check_wheel(wheel, checkout, VERSION)
    (checkout / "proxy" / "other.py").unlink()
    with pytest.raises(ReleaseError, match=r"has proxy/aio\.py, which is not committed"):
        release.check_wheel(wheel, checkout, VERSION)
