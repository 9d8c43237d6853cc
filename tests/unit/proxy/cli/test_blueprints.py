"""`fairlead blueprint`: what is listed, and what a login would make."""

import json
from pathlib import Path

import pytest
import yaml

from tests.unit.proxy.commandline import Run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "home" / "blueprints"
    made.mkdir(parents=True)
    (made / "base.yaml").write_text("abstract: true\nimage: debian:12\nenv: {WHO: !cel user.name}\n")
    (made / "dev.yaml").write_text("template: base\ndescription: a shell\n")
    (made / "gpu.yaml").write_text("access: {groups: [ml]}\n")
    return made


def test_what_may_be_asked_for_is_listed(fairlead: Run, directory: Path) -> None:
    assert fairlead("blueprint", "list").stdout == "dev\tyes\ta shell\ngpu\t\t\n"
    assert fairlead("blueprint", "list", "--all").stdout.startswith("base\t")
    row = json.loads(fairlead("blueprint", "list", "--json").stdout)[0]
    assert (row["name"], row["default"], row["template"], row["file"]) == ("dev", True, "base", "dev.yaml")
    assert row["computed"] == ["env.WHO"]


def test_a_blueprint_is_rendered_for_a_person(fairlead: Run, directory: Path) -> None:
    shown = yaml.safe_load(fairlead("blueprint", "render", "alice").stdout)
    assert shown == {
        "name": "dev",
        "template": "base",
        "description": "a shell",
        "image": "debian:12",
        "env": {"WHO": "alice"},
    }
    done = fairlead("blueprint", "render", "alice+gpu")
    assert (done.returncode, done.stderr) == (1, "fairlead: there is no blueprint 'gpu'; there are: dev\n")
    assert "name: gpu" in fairlead("blueprint", "render", "alice+gpu", "--group", "ml").stdout
    assert "name the blueprint" in fairlead("blueprint", "render", "alice+pod=x").stderr


def test_the_objects_of_a_cluster_are_rendered(fairlead: Run, directory: Path) -> None:
    done = fairlead("blueprint", "render", "alice", "--json", FAIRLEAD_WORKSPACE__BACKEND="kubernetes")
    objects = {part["kind"]: part for part in json.loads(done.stdout)}
    assert {"StatefulSet", "Service", "ConfigMap", "Secret", "NetworkPolicy"} <= set(objects)
    containers = objects["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "debian:12"
    assert not objects["Secret"]["data"]
