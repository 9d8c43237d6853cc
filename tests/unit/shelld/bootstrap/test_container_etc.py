"""Accounts written without useradd: what the files hold afterwards, and whom programs run as."""

import os
import subprocess
from pathlib import Path

import pytest

from shelld.bootstrap.container_etc import Entry, decide, group_with, passwd_with, prepare, shadow_with, write
from shelld.settings import AccountSettings, Settings

DEBIAN = "root:x:0:0:root:/root:/bin/bash\ndev:x:1000:1000:Dev:/home/dev:/bin/zsh\n"
ALICE = Entry("alice", 1000, 1000, "/home/alice", "/bin/sh")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others can only be themselves")


def test_a_new_account_comes_last_but_before_another_of_its_number() -> None:
    assert passwd_with("root:x:0:0::/root:/bin/sh\n", ALICE).splitlines()[-1] == str(ALICE)
    assert passwd_with(DEBIAN, ALICE).splitlines()[1:] == [str(ALICE), DEBIAN.splitlines()[1]]


def test_writing_twice_changes_nothing() -> None:
    for edit in (passwd_with, group_with, shadow_with):
        once = edit("x:*:77:\n", ALICE)
        assert edit(once, ALICE) == once


def test_a_last_line_without_its_end_is_not_glued_to_the_next() -> None:
    assert group_with("wheel:x:10:", ALICE) == "wheel:x:10:\nalice:x:1000:\n"
    assert shadow_with("root:*:19000", ALICE) == "root:*:19000\nalice:*:::::::\n"


def test_a_group_of_that_number_is_kept_and_one_of_that_name_is_not_taken() -> None:
    assert group_with("dev:x:1000:\n", ALICE) == "dev:x:1000:\n"
    assert group_with("alice:x:50:\n", ALICE) == "alice:x:50:\nalice-1000:x:1000:\n"


def test_lines_that_are_no_accounts_stay_as_they_are() -> None:
    odd = "# a comment\n+::::::\nbroken\n"
    assert passwd_with(odd, ALICE) == odd + f"{ALICE}\n"


@as_root
def test_the_image_s_account_of_that_name_is_taken_as_it_is() -> None:
    assert decide(AccountSettings("dev"), None, DEBIAN) == Entry(
        "dev", 1000, 1000, "/home/dev", "/bin/zsh", comment="Dev"
    )


@as_root
def test_what_is_asked_for_wins_over_the_image() -> None:
    entry = decide(AccountSettings("dev", uid=2000, home="/home/else"), "/bin/fish", DEBIAN)
    assert (entry.uid, entry.gid, entry.home, entry.shell) == (2000, 2000, "/home/else", "/bin/fish")
    assert "dev:x:1000" not in passwd_with(DEBIAN, entry)


@as_root
def test_a_name_without_a_number_never_means_root() -> None:
    assert decide(AccountSettings("alice"), None, "").uid == 1000


@as_root
def test_the_files_of_an_image_get_the_account_and_the_settings_say_who_it_is(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(DEBIAN)
    (tmp_path / "shadow").write_text("root:*:19000:0:99999:7:::\n")
    (tmp_path / "shadow").chmod(0o640)
    given = Settings("ws1", "tcp://[::]:1", account=AccountSettings("alice"), create_account=True)
    decided = prepare(given, tmp_path).account
    assert (decided.uid, decided.gid, decided.home) == (1000, 1000, "/home/alice")
    assert "alice:x:1000:1000::/home/alice:" in (tmp_path / "passwd").read_text()
    assert (tmp_path / "group").read_text() == "alice:x:1000:\n"
    assert "alice:*:" in (tmp_path / "shadow").read_text()
    assert (tmp_path / "shadow").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["group", "passwd", "shadow"]


@as_root
def test_an_image_without_any_file_gets_root_too(tmp_path: Path) -> None:
    prepare(Settings("ws1", "tcp://[::]:1", account=AccountSettings("alice"), create_account=True), tmp_path)
    assert (tmp_path / "passwd").read_text().startswith("root:x:0:0:")


def test_nothing_is_touched_unless_it_is_asked_for(tmp_path: Path) -> None:
    given = Settings("ws1", "unix:///s", account=AccountSettings("alice"))
    assert prepare(given, tmp_path) is given
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_would_forge_a_line_is_written_nowhere(tmp_path: Path) -> None:
    for account in (
        AccountSettings("a:x:0:0"),
        AccountSettings("alice", home="/home\nroot2:x:0:0::/:/bin/sh"),
    ):
        prepare(Settings("ws1", "tcp://[::]:1", account=account, create_account=True, sudo=True), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text("old")
    path.chmod(0o604)
    with path.open() as reader:
        write(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o604


@as_root
def test_login_shells_keep_the_path_of_the_image_where_there_are_profiles(tmp_path: Path) -> None:
    given = Settings(
        "ws1",
        "tcp://[::]:1",
        account=AccountSettings("alice"),
        create_account=True,
        container_env={"PATH": "/opt/it's/bin:/bin"},
    )
    prepare(given, tmp_path)
    assert not (tmp_path / "profile.d").exists()
    (tmp_path / "profile.d").mkdir()
    prepare(given, tmp_path)
    script = f". {tmp_path}/profile.d/fairlead.sh; echo $PATH"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "/opt/it's/bin:/bin\n"
