"""The files of the terminal page, and the manifest of its emulator."""

import json
import re
from pathlib import Path

from proxy.web.terminal.assets import EMULATOR, load


def test_without_one_file_of_the_emulator_there_is_no_page(tmp_path: Path) -> None:
    script, style = tmp_path / "a.js", tmp_path / "a.css"
    script.write_text("1")
    assert load({"a.js": script}, {"a.css": style}) is None
    style.write_text("a {}")
    found = load({"a.js": script}, {"a.css": style})
    assert found is not None
    assert found.files == {"a.js": b"1", "a.css": b"a {}"}


def test_the_address_of_the_files_changes_with_their_contents(tmp_path: Path) -> None:
    script = tmp_path / "a.js"
    versions = set()
    for text in ("1", "2", "1"):
        script.write_text(text)
        found = load({"a.js": script}, {})
        assert found is not None
        versions.add(found.version)
    assert len(versions) == 2


def test_the_emulator_is_pinned_by_hash_and_its_lock_names_no_registry() -> None:
    manifest = json.loads((EMULATOR / "package.json").read_text())
    text = (EMULATOR / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert "http" not in text
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in manifest["dependencies"].values())
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-"), name
    assert {f"node_modules/{name}" for name in manifest["dependencies"]} <= set(packages)
