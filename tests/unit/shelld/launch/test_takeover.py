"""A home that was handed over belongs to its new account, down to the last file, and nothing else does."""

import os
import subprocess
from pathlib import Path

import pytest

from shelld.launch.account import Account
from shelld.launch.takeover import take_home

FORMER, NEW, OTHER = 40_001, 40_002, 40_003

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def account(home: Path) -> Account:
    return Account("bob", NEW, NEW, (NEW,), str(home), "/bin/sh")


def owners(home: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in [home, *home.rglob("*")]:
        entry = path.lstat()
        found[str(path.relative_to(home))] = (entry.st_uid, entry.st_gid)
    return found


@as_root
def test_the_files_of_the_former_account_are_the_new_one_s(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    (home / "deep" / "er").mkdir(parents=True)
    outside.write_text("not in the home")
    for name in ("secret", "deep/er/file"):
        (home / name).write_text(name)
        (home / name).chmod(0o600)
    (home / "link").symlink_to(outside)
    for path in (home, *home.rglob("*"), outside):
        os.chown(path, FORMER, FORMER, follow_symlinks=False)
    (home / "of root").write_text("")
    (home / "of another").write_text("")
    os.chown(home / "of another", OTHER, FORMER)
    take_home(account(home))
    mine = (NEW, NEW)
    assert owners(home) == {
        ".": mine,
        "secret": mine,
        "deep": mine,
        "deep/er": mine,
        "deep/er/file": mine,
        "link": mine,
        "of root": (0, 0),
        "of another": (OTHER, FORMER),
    }
    assert (outside.stat().st_uid, outside.read_text()) == (FORMER, "not in the home")
    assert (home / "secret").stat().st_mode & 0o777 == 0o600


@as_root
def test_a_home_that_is_the_account_s_already_is_not_walked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.chown(tmp_path / "file", FORMER, FORMER)
    for owner in (NEW, 0):
        os.chown(tmp_path, owner, owner)
        take_home(account(tmp_path))
        assert owners(tmp_path) == {".": (owner, owner), "file": (FORMER, FORMER)}


@as_root
def test_directories_may_be_nested_as_deeply_as_a_user_likes(tmp_path: Path) -> None:
    deepest = home = str(tmp_path)
    for _ in range(1_500):
        deepest += "/d"
        os.mkdir(deepest)
    try:
        os.chown(deepest, FORMER, FORMER)
        os.chown(home, FORMER, FORMER)
        take_home(account(tmp_path))
        assert os.stat(deepest).st_uid == NEW
    finally:
        subprocess.run(["rm", "-r", f"{home}/d"], check=True)  # pytest's own way is recursive
