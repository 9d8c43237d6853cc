"""Files of a folder, with names of any bytes: nothing outside of it, nothing half stored, nothing lost."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shelld.files import folder as folder_module
from shelld.files.folder import Folder, FolderError

STRANGE = [
    b"\xff\xfe",
    b"a\nb",
    b"\x1b[31m",
    b"<script>",
    b"%2e%2e",
    b" ",
    b"\\..\\",
    "漢字".encode(),
    b"x" * 255,
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "home"
    inside.mkdir()
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "home-2").mkdir()
    return inside


@pytest.fixture
def folder(root: Path) -> Folder:
    return Folder(os.fsencode(root))


@pytest.mark.parametrize("name", STRANGE)
def test_a_name_may_hold_any_bytes(folder: Folder, root: Path, name: bytes) -> None:
    folder.store(b"", name, [b"one", b"two"], replaces=False)
    assert [entry.name for entry in folder.list(b"").entries] == [name]
    with open(folder.open(name), "rb") as file:
        assert file.read() == b"onetwo"
    folder.remove(name)
    assert os.listdir(root) == []
    folder.make_folder(b"", name)
    folder.store(name, b"inner", [b"x"], replaces=False)
    assert [entry.name for entry in folder.list(name).entries] == [b"inner"]


@pytest.mark.parametrize("path", [b"..", b"../secret", b"a/../../secret", b"/..", b"sub/..", b"a\0b"])
def test_no_path_leads_out(folder: Folder, path: bytes) -> None:
    for call in (folder.find, folder.list, folder.open, folder.remove):
        with pytest.raises(FolderError):
            call(path)


def test_links_are_followed_inside_and_not_to_the_outside(folder: Folder, root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "file").write_text("inside")
    for name, target in {
        "in": "sub",
        "deep": "sub/file",
        "out": "../secret",
        "absolute": "/etc",
        "sibling": "../home-2",
        "circle": "circle",
        "nowhere": "gone",
    }.items():
        (root / name).symlink_to(target)
    assert folder.is_folder(b"in")
    os.close(folder.open(b"deep"))
    os.close(folder.open(b"in/file"))
    for name in (b"out", b"absolute", b"absolute/passwd", b"sibling"):
        with pytest.raises(FolderError, match="leads out of the folder"):
            folder.find(name)
    with pytest.raises(FolderError, match="leads out"):
        folder.store(b"sibling", b"new", [b"x"], replaces=True)
    for name, number in ((b"circle", errno.ELOOP), (b"nowhere", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(number)):
            folder.find(name)
    listed = {entry.name: entry for entry in folder.list(b"").entries}
    assert [listed[b"in"].link, listed[b"in"].is_folder] == [b"sub", True]
    assert [listed[b"nowhere"].link, listed[b"nowhere"].is_folder] == [b"gone", False]
    folder.remove(b"in")
    assert (root / "sub" / "file").exists()


def test_folders_come_first_then_names_without_regard_to_case(folder: Folder, root: Path) -> None:
    for name in ("b", "A", "c"):
        (root / name).touch()
    (root / "z").mkdir()
    assert [entry.name for entry in folder.list(b"").entries] == [b"z", b"A", b"b", b"c"]


def test_a_huge_folder_is_listed_in_part(folder: Folder, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_ENTRIES", 3)
    for number in range(10):
        (root / str(number)).touch()
    listing = folder.list(b"")
    assert [len(listing.entries), listing.left_out] == [3, 7]


def test_nothing_is_replaced_unless_asked_for(folder: Folder, root: Path) -> None:
    (root / "there").write_text("old")
    read: list[bytes] = []

    def content() -> Iterator[bytes]:
        read.append(b"read")
        yield b"new"

    with pytest.raises(FolderError, match="something of this name already") as refused:
        folder.store(b"", b"there", content(), replaces=False)
    assert [refused.value.status, read, (root / "there").read_text()] == [409, [], "old"]
    (root / "there").chmod(0o751)
    folder.store(b"", b"there", content(), replaces=True)
    assert (root / "there").read_text() == "new"
    assert stat.S_IMODE((root / "there").stat().st_mode) == 0o751


def test_a_name_that_is_taken_during_the_upload_stays_as_it_is(folder: Folder, root: Path) -> None:
    def content() -> Iterator[bytes]:
        yield b"new"
        (root / "there").write_text("faster")

    with pytest.raises(FolderError, match="already"):
        folder.store(b"", b"there", content(), replaces=False)
    assert {file.name: file.read_text() for file in root.iterdir()} == {"there": "faster"}


def test_a_file_system_without_hard_links_keeps_the_same_promise(
    folder: Folder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(folder_module.os, "link", link)
    folder.store(b"", b"first", [b"1"], replaces=False)

    def content() -> Iterator[bytes]:
        (root / "second").write_text("faster")
        yield b"2"

    with pytest.raises(FileExistsError):
        folder.store(b"", b"second", content(), replaces=False)
    assert {file.name: file.read_text() for file in root.iterdir()} == {"first": "1", "second": "faster"}


def test_nothing_is_left_of_an_upload_that_breaks_off(folder: Folder, root: Path) -> None:
    (root / "there").write_text("old")

    def content() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    for name in (b"new", b"there"):
        with pytest.raises(ConnectionResetError):
            folder.store(b"", name, content(), replaces=True)
    assert {file.name: file.read_text() for file in root.iterdir()} == {"there": "old"}


def test_folders_links_and_pipes_are_neither_replaced_nor_read(folder: Folder, root: Path) -> None:
    (root / "folder").mkdir()
    (root / "link").symlink_to("folder")
    os.mkfifo(root / "pipe")
    for name in (b"folder", b"link", b"pipe"):
        with pytest.raises(FolderError, match="no regular file"):
            folder.store(b"", name, [b"x"], replaces=True)
    with pytest.raises(FolderError, match="no regular file"):
        folder.open(b"pipe")  # does not wait for a writer


def test_only_an_empty_folder_is_removed_and_never_the_root(folder: Folder, root: Path) -> None:
    (root / "full" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        folder.remove(b"full")
    folder.remove(b"full/inner")
    folder.remove(b"full")
    for path in (b"", b"/", b"."):
        with pytest.raises(FolderError):
            folder.remove(path)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0", b"x" * 256])
def test_what_is_no_name_is_refused(folder: Folder, name: bytes) -> None:
    with pytest.raises(FolderError, match="a name has 1 to 255 bytes"):
        folder.store(b"", name, [b"x"], replaces=False)
    with pytest.raises(FolderError, match="a name has 1 to 255 bytes"):
        folder.make_folder(b"", name)
