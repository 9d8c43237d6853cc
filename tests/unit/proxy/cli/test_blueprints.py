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


def test_what_a_level_of_pod_security_forbids_is_named(fairlead: Run, directory: Path) -> None:
    (directory / "base.yaml").write_text(
        "abstract: true\nsecurity:\n  add_capabilities: [CHOWN, SYS_ADMIN]\n"
    )
    (directory / "dev.yaml").write_text("template: base\nsudo: true\n")
    (directory / "gpu.yaml").write_text("security: {run_as_user: 1000, drop_capabilities: [ALL]}\n")
    assert fairlead("blueprint", "check").returncode == 0

    def told(level: str) -> set[tuple[str, str]]:
        done = fairlead("blueprint", "check", "--pod-security", level, "--json")
        assert done.returncode == 1
        rows = [row for row in json.loads(done.stdout) if not row["ok"]]
        assert {Path(row["file"]).name for row in rows} == {"dev.yaml"}, "gpu is as restricted wants it"
        return {(row["where"], row["reason"]) for row in rows}

    ((where, reason),) = told("baseline")
    assert where == "base.yaml:3: security.add_capabilities[1]"
    assert "baseline allows none but AUDIT_WRITE, CHOWN" in reason
    assert told("restricted") == {
        ("base.yaml:3: security.add_capabilities[0]", "restricted allows none but NET_BIND_SERVICE"),
        ("base.yaml:3: security.add_capabilities[1]", "restricted allows none but NET_BIND_SERVICE"),
        (
            "base.yaml:2: security.run_as_user",
            "restricted wants a user other than root, such as 1000",
        ),
        ("base.yaml:2: security.drop_capabilities", "restricted wants [ALL]"),
        ("dev.yaml:2: sudo", "restricted wants false"),
    }
    done = fairlead("blueprint", "check", "--pod-security", "strict")
    assert done.returncode == 2
    assert "'strict' is none of baseline, restricted" in done.stderr


def test_the_objects_of_a_cluster_are_rendered(fairlead: Run, directory: Path) -> None:
    done = fairlead("blueprint", "render", "alice", "--json", FAIRLEAD_WORKSPACE__BACKEND="kubernetes")
    objects = {part["kind"]: part for part in json.loads(done.stdout)}
    assert {"StatefulSet", "Service", "ConfigMap", "Secret", "NetworkPolicy"} <= set(objects)
    containers = objects["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "debian:12"
    assert not objects["Secret"]["data"]
