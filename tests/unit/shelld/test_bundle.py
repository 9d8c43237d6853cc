"""The layout of the bundle as shelld sees it, and how it is copied."""

import os
from pathlib import Path

import pytest

from shelld.bundle import Bundle, find, install


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    root = tmp_path / "image"
    for directory in ("lib/python3.11", "bin", "libexec", "app/shelld"):
        (root / directory).mkdir(parents=True)
    for program in ("lib/ld.so", "bin/python3", "libexec/sftp-server"):
        (root / program).write_bytes(b"\x7fELF")
        (root / program).chmod(0o755)
    (root / "app/shelld/bundle.py").write_text("")
    (root / "app/shelld/bundle.py").chmod(0o644)
    return Bundle(root)


def test_a_shelld_of_a_checkout_is_part_of_no_bundle() -> None:
    assert find() is None


def test_a_shelld_below_app_finds_its_bundle(made: Bundle) -> None:
    assert find(made.root / "app" / "shelld" / "bundle.py") == made


def test_a_program_is_started_by_the_bundle_s_loader(made: Bundle) -> None:
    assert made.run(made.sftp_server) == [
        f"{made.root}/lib/ld.so",
        "--library-path",
        f"{made.root}/lib",
        f"{made.root}/libexec/sftp-server",
    ]
    assert made.run(made.sftp_server, preload=[made.nss_wrapper])[3:5] == ["--preload", str(made.nss_wrapper)]


def test_a_copy_is_whole_and_open_to_every_account_whatever_the_umask(made: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "pod"
    target.mkdir()
    before = os.umask(0o077)
    try:
        install(made.root, target)
    finally:
        os.umask(before)
    assert {path.relative_to(target) for path in target.rglob("*")} == {
        path.relative_to(made.root) for path in made.root.rglob("*")
    }
    assert (target / "bin/python3").stat().st_mode & 0o777 == 0o755
    assert (target / "app/shelld/bundle.py").stat().st_mode & 0o777 == 0o644
    assert (target / "lib/python3.11").stat().st_mode & 0o777 == 0o755


def test_a_copy_that_was_interrupted_is_made_again(made: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "pod"
    (target / "lib").mkdir(parents=True)
    (target / "lib/ld.so").write_bytes(b"half")
    (target / "lib/ld.so").chmod(0o400)
    install(made.root, target)
    assert (target / "lib/ld.so").read_bytes() == b"\x7fELF"
