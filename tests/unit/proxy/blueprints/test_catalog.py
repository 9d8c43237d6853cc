import os
from pathlib import Path

import pytest

from proxy.blueprints.catalog import CHECK_EVERY_S, DirectoryCatalog
from proxy.blueprints.schema import Blueprint
from proxy.errors.blueprints import BlueprintInvalid


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self) -> None:
        self.now += CHECK_EVERY_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


def names(catalog: DirectoryCatalog) -> list[str]:
    return sorted(catalog.current().definitions)


def sample(catalog: DirectoryCatalog, name: str = "dev") -> Blueprint:
    return catalog.current(wanted=name).definitions[name].sample


def test_reads_yaml_files_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "dev.yaml",
        "data.yml",
        ".dev.yaml.swp",
        ".hidden.yaml",
        "dev.yaml~",
        "notes.txt",
        "x.yummyml",
    ):
        (tmp_path / name).write_text("")
    catalog = DirectoryCatalog(tmp_path)
    assert names(catalog) == ["data", "dev"]
    assert sample(catalog).name == "dev"


def test_a_directory_that_is_missing_holds_nothing(tmp_path: Path) -> None:
    assert names(DirectoryCatalog(tmp_path / "missing")) == []


def test_what_was_written_a_moment_ago_is_found_when_it_is_wanted(tmp_path: Path, clock: Clock) -> None:
    catalog = DirectoryCatalog(tmp_path, clock=clock)
    (tmp_path / "dev.yaml").write_text("")
    assert names(catalog) == []
    assert sample(catalog).name == "dev"


def test_a_broken_set_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "dev.yaml").write_text("x: 1")
    with pytest.raises(BlueprintInvalid, match=r"dev\.yaml:1: x: there is no such field"):
        DirectoryCatalog(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: dev")
    (tmp_path / "dev.yaml").write_text("")
    with pytest.raises(BlueprintInvalid, match=r"dev\.yaml:1: name: dev is the name of a\.yaml already"):
        DirectoryCatalog(tmp_path)


def test_a_change_is_seen_after_a_second_and_not_before(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "dev.yaml").write_text("description: old")
    catalog = DirectoryCatalog(tmp_path, clock=clock)
    (tmp_path / "dev.yaml").write_text("description: newer")
    (tmp_path / "more.yaml").write_text("")
    assert names(catalog) == ["dev"]
    clock.pass_by()
    assert names(catalog) == ["dev", "more"]
    assert sample(catalog).description == "newer"
    (tmp_path / "dev.yaml").unlink()
    clock.pass_by()
    assert names(catalog) == ["more"]


def test_a_file_of_the_same_size_replaced_by_rename_is_seen(tmp_path: Path, clock: Clock) -> None:
    """Editors and Kubernetes' ConfigMaps replace files, and may keep their times."""
    file = tmp_path / "dev.yaml"
    file.write_text("description: a")
    os.utime(file, (1, 1))
    catalog = DirectoryCatalog(tmp_path, clock=clock)
    (tmp_path / "new").write_text("description: b")
    os.utime(tmp_path / "new", (1, 1))
    (tmp_path / "new").replace(file)
    clock.pass_by()
    assert sample(catalog).description == "b"


def test_the_last_good_set_stays_whole_when_the_next_is_broken(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "dev.yaml").write_text("description: good")
    catalog = DirectoryCatalog(tmp_path, clock=clock)
    (tmp_path / "more.yaml").write_text("")
    (tmp_path / "dev.yaml").write_text("x: 1")
    clock.pass_by()
    assert names(catalog) == ["dev"]
    assert sample(catalog).description == "good"
    (tmp_path / "dev.yaml").write_text("description: better")
    clock.pass_by()
    assert names(catalog) == ["dev", "more"]


def test_a_dangling_link_is_a_broken_file(tmp_path: Path, clock: Clock) -> None:
    catalog = DirectoryCatalog(tmp_path, clock=clock)
    (tmp_path / "dev.yaml").symlink_to(tmp_path / "nowhere")
    clock.pass_by()
    assert names(catalog) == []
    with pytest.raises(BlueprintInvalid, match=r"dev\.yaml: No such file"):
        DirectoryCatalog(tmp_path)
