"""The pure parts of the bundle's recipe; `tests/images` runs the whole."""

from pathlib import Path

import pytest

from deploy.bundle.recipe import PACKAGES, BundleError, locked, needed_by

ROOT = Path(__file__).parents[3]

LISTING = """\
\tlinux-vdso.so.1 (0x00007ffe5b5f2000)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f1c0a000000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f1c0b000000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c0c000000)
"""


def test_a_lock_file_is_cut_to_the_packages_asked_for() -> None:
    lock = "one==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\ntwo==2 \\\n    --hash=sha256:ba\n"
    assert locked(lock, ["two"]) == "two==2 \\\n    --hash=sha256:ba\n"


def test_a_package_that_is_not_locked_is_an_error() -> None:
    with pytest.raises(BundleError, match="three"):
        locked("one==1\n", ["one", "three"])


def test_the_lock_file_of_this_repository_pins_everything_that_the_bundle_holds() -> None:
    kept = locked((ROOT / "requirements.lock").read_text(), PACKAGES)
    assert kept.count("==") == len(PACKAGES)
    assert kept.count("--hash=sha256:") > len(PACKAGES)


def test_ldd_names_libraries_and_the_loader_but_not_what_the_kernel_maps() -> None:
    assert needed_by(LISTING, "python3") == [
        Path("/lib/x86_64-linux-gnu/libm.so.6"),
        Path("/lib/x86_64-linux-gnu/libz.so.1"),
        Path("/lib64/ld-linux-x86-64.so.2"),
    ]


def test_a_static_program_needs_nothing() -> None:
    assert needed_by("\tstatically linked\n", "busybox") == []


def test_a_library_that_is_nowhere_is_named() -> None:
    with pytest.raises(BundleError, match=r"sftp-server needs libcrypto\.so\.3"):
        needed_by("\tlibcrypto.so.3 => not found\n", "sftp-server")
