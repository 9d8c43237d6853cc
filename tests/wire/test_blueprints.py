"""What people meet of blueprints: refusals, ceilings, a set that is swapped, and repositories."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.provider import Say
from tests.wire.conftest import MakeFairlead
from tests.wire.forge import Forge, open_forge
from tests.wire.harness import Fairlead, needs

BLUEPRINTS = {
    "gpu": "access: {groups: [ml]}\n",
    "base": "abstract: true\nenv: {WHO: !cel user.name}\n",
    "own": 'template: base\nenv: {WHERE: !cel "workspace.blueprint + metadata.suffix"}\n',
}
SETTINGS = {"FAIRLEAD_BLUEPRINT__METADATA": json.dumps({"suffix": "!"})}


@pytest.fixture
def forge() -> Iterator[Forge]:
    with open_forge([]) as forge:
        yield forge


def test_a_blueprint_of_others_is_refused_like_one_that_is_not_there(fairlead: Fairlead) -> None:
    said = {}
    for name in ("gpu", "nope"):
        done = fairlead.ssh("true", "-l", f"alice+{name}")
        assert done.returncode == 254
        said[name] = done.stderr.decode().partition(" (reference")[0].replace(name, "…")
    assert said["gpu"] == said["nope"] == "fairlead: there is no blueprint '…'; there are: dev, own"
    template = fairlead.ssh("true", "-l", "alice+base")
    assert (template.returncode, b"only a template for others" in template.stderr) == (254, True)


def test_what_is_inherited_and_worked_out_reaches_the_program(fairlead: Fairlead) -> None:
    done = fairlead.ssh('echo "$WHO $WHERE"', "-l", "alice+own")
    assert done.stdout == b"alice own!\n"


def test_a_new_set_is_used_whole_and_a_broken_one_not_at_all(fairlead: Fairlead) -> None:
    directory = fairlead.home / "blueprints"
    (directory / "fresh.yaml").write_text("env: {A: one}\n")
    assert fairlead.ssh("echo $A", "-l", "alice+fresh").stdout == b"one\n"
    (directory / "broken.yaml").write_text("env: {A: 1}\n")
    assert fairlead.ssh("true", "-l", "alice+broken").returncode == 254
    assert "broken.yaml:1: env.A" in fairlead.log
    assert fairlead.ssh("echo $A", "-l", "alice+fresh").stdout == b"one\n"
    (directory / "broken.yaml").unlink()


def test_a_ceiling_is_said_with_what_is_in_the_way(make_fairlead: MakeFairlead) -> None:
    fairlead = make_fairlead(
        {"FAIRLEAD_BLUEPRINT__RULES": '[{"users": ["alice"], "max_running": 1}]'}, {"data": ""}
    )
    assert fairlead.ssh("true").returncode == 0
    name = fairlead.workspace().name
    done = fairlead.ssh("true", "-l", "alice+data")
    assert done.returncode == 254
    assert f"you may have 1 workspace running and have {name} (dev); stop one".encode() in done.stderr
    assert fairlead.ssh("true").returncode == 0
    fairlead.cli("workspace", "stop", name)
    assert fairlead.ssh("true", "-l", "alice+data").returncode == 0


def serve_repository(forge: Forge, directory: Path, file: str) -> None:
    """Serve acme/shop: its file by the API, and the rest to git by the protocol that needs no program."""
    work, bare = directory / "work", directory / "shop.git"
    git = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    (work / "README").write_text("the shop\n")
    subprocess.run([*git, "add", "README"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    for path in bare.rglob("*"):
        if path.is_file():
            forge.server.on(f"/acme/shop.git/{path.relative_to(bare)}", Say(path.read_bytes()))
    forge.server.on(
        "/api/v4/projects/acme%2Fshop/repository/files/.fairlead.yaml/raw?ref=HEAD", Say(file.encode())
    )


@needs("git")
def test_a_repository_s_workspace_has_its_file_and_its_clone(
    make_fairlead: MakeFairlead, forge: Forge, tmp_path: Path
) -> None:
    serve_repository(
        forge, tmp_path, "env: {CI: 'true'}\ninit: [{name: build, script: 'cp ~/shop/README ~/built'}]\n"
    )
    fairlead = make_fairlead(
        {
            "FAIRLEAD_FRONT_DOOR__PROVIDERS": json.dumps([forge.provider]),
            "FAIRLEAD_BLUEPRINT__REPOSITORY__BASE": "repository",
            "FAIRLEAD_BLUEPRINT__REPOSITORY__PROVIDER": "gitlab",
        },
        {"repository": "abstract: true\nsplash: ours\n"},
    )
    done = fairlead.ssh('echo "$FAIRLEAD_REPO $CI"; cat shop/README built', "-l", "alice+repo=acme/shop")
    assert done.stdout == b"acme/shop true\nthe shop\nthe shop\n"
    missing = fairlead.ssh("true", "-l", "alice+repo=acme/none")
    assert missing.returncode == 254
    assert b"there is no repository acme/none at gitlab, or it is private" in missing.stderr
    forge.server.on(
        "/api/v4/projects/acme%2Fevil/repository/files/.fairlead.yaml/raw?ref=HEAD", Say(b"sudo: true")
    )
    evil = fairlead.ssh("true", "-l", "alice+repo=acme/evil")
    assert evil.returncode == 255
    assert b"acme/evil/.fairlead.yaml:1: sudo: this is not for a repository to set" in evil.stderr
