"""`ssh` into pods that did not exist, whatever their image is made of."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import KINDS, PLAIN, Cluster, ClusterFairlead, image, workspace
from tests.wire.terminal import Terminal

pytestmark = pytest.mark.cluster


def blueprints() -> dict[str, str]:
    found = {"dev": "description: glibc, by the default image\n"}
    for kind in KINDS:
        found[kind] = f"image: {image(kind)}\nimage_pull_policy: Never\n"
        found[f"{kind}-plain"] = found[kind] + PLAIN
    return found


BLUEPRINTS = blueprints
EVERY = [name for kind in KINDS for name in (kind, f"{kind}-plain")]
WITH_SHELL = [name for name in EVERY if not name.startswith("nothing")]


def sftp(fairlead: ClusterFairlead, user_string: str, *commands: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*fairlead.command("sftp", "-q", "-b", "-", "-o", f"User={user_string}"), "fl"],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_static_program_runs(fairlead: ClusterFairlead, name: str) -> None:
    done = fairlead.ssh("/probe", "-l", f"alice+{name}", timeout_s=120)
    assert done.returncode == 7, done.stderr  # which is how it ends
    assert done.stdout


@pytest.mark.parametrize("name", EVERY)
def test_files_go_there_and_come_back(fairlead: ClusterFairlead, tmp_path: Path, name: str) -> None:
    (tmp_path / "there").write_bytes(bytes(range(256)) * 4_000)
    done = sftp(fairlead, f"alice+{name}", f"put {tmp_path}/there file", f"get file {tmp_path}/back", "ls -l")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


@pytest.mark.parametrize("name", WITH_SHELL)
def test_a_shell_has_a_terminal_and_a_clean_environment(
    fairlead: ClusterFairlead, tmp_path: Path, name: str
) -> None:
    done = fairlead.ssh("echo $0; cat; env; exit 7", "-l", f"alice+{name}", data=b"piped\n", timeout_s=120)
    assert done.returncode == 7
    assert b"piped\n" in done.stdout
    ours = (b"PYTHONHOME=/opt", b"/opt/fairlead", b"LD_LIBRARY_PATH=/opt")
    assert [word for word in ours if word in done.stdout] == []
    with Terminal([*fairlead.command("ssh", "-tt"), "-l", f"alice+{name}", "fl"]) as terminal:
        terminal.ready()
        assert terminal.run("tty").strip().startswith("/dev/pts/")
        terminal.resize(101, 31)
        terminal.send("while [ \"$(stty size)\" != '31 101' ]; do sleep 0.1; done; echo fol''lowed\r")
        terminal.expect("followed")


@pytest.mark.parametrize("name", ["nothing", "nothing-plain"])
def test_a_workspace_without_shell_says_so(fairlead: ClusterFairlead, name: str) -> None:
    done = fairlead.ssh("", "-l", f"alice+{name}", timeout_s=120)
    assert done.returncode == 127
    assert b"the workspace has no shell" in done.stderr


def test_the_account_owns_its_home(fairlead: ClusterFairlead) -> None:
    command = 'id -u; stat -c "%u %a" "$HOME"; cd; touch mine && echo ok'
    done = fairlead.ssh(command, "-l", "alice+glibc", timeout_s=120)
    mine, owner, mode, ok = done.stdout.decode().split()
    assert (ok, owner, mode) == ("ok", mine, "700")


@pytest.mark.parametrize("name", ["glibc-plain", "busybox-plain", "musl-plain"])
def test_a_home_belongs_to_the_group_where_nobody_may_change_owners(
    fairlead: ClusterFairlead, name: str
) -> None:
    command = 'id -u; stat -c %g "$HOME"; cd; touch mine && stat -c %u mine'
    done = fairlead.ssh(command, "-l", f"alice+{name}", timeout_s=120)
    assert done.stdout.split() == [b"1000"] * 3


def test_every_form_of_the_user_string_reaches_a_pod(fairlead: ClusterFairlead, cluster: Cluster) -> None:
    """The repository form is test_repository's, workloads are test_workloads'."""
    for user_string, blueprint in (
        ("alice", "dev"),
        ("alice+glibc", "glibc"),
        ("b64-YWxpY2UrYnVzeWJveA", "busybox"),
    ):
        done = fairlead.ssh("hostname", "-l", user_string, timeout_s=120)
        name = workspace(f"alice+{blueprint}")
        assert done.stdout.decode().strip() == f"{name}-0"
        named = fairlead.ssh("hostname", "-l", f"alice+pod={name}", timeout_s=120)
        assert named.stdout == done.stdout
        assert cluster.pod_of(f"alice+{blueprint}").status.phase == "Running"
    absent = fairlead.ssh("true", "-l", "alice+pod=not-there")
    assert absent.returncode == 255
    assert b"there is no workspace 'not-there' of alice" in absent.stderr
