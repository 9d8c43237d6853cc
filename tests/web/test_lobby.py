"""The lobby over SSH: commands, their output and exit statuses, and what is no command."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.harness import Fairlead


@pytest.fixture(scope="module")
def fairlead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    one = Fairlead(tmp_path_factory.mktemp("lobby"))
    one.prepare()
    try:
        one.start()
        yield one
    finally:
        one.close()


def lobby(fairlead: Fairlead, command: str, *options: str, data: bytes = b"") -> tuple[int, str, str]:
    done = fairlead.ssh(command, "-l", "alice+lobby", *options, data=data)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_help_lists_the_commands(fairlead: Fairlead) -> None:
    status, out, err = lobby(fairlead, "help")
    assert (status, err) == (0, "")
    assert {"help", "whoami", "web"} <= {
        line.split()[0] for line in out.splitlines() if line.startswith("  ")
    }


def test_whoami_names_user_and_key_also_as_json(fairlead: Fairlead) -> None:
    assert "alice" in lobby(fairlead, "whoami")[1]
    status, out, _ = lobby(fairlead, "whoami --json")
    said = json.loads(out)
    assert status == 0
    assert said["user"] == "alice"
    assert said["fingerprint"].startswith("SHA256:")
    assert said["client_address"] == "127.0.0.1"


@pytest.mark.parametrize("command", ["whoami", "'whoami'", "who\\ami", '"who"ami'])
def test_words_are_split_as_a_posix_shell_does(fairlead: Fairlead, command: str) -> None:
    assert lobby(fairlead, command)[0] == 0


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("nothing-like-this", "there is no command 'nothing-like-this' in the lobby"),
        ("whoami bob", "whoami takes no arguments"),
        ("whoami 'bob", "the command cannot be read"),
        ("true; id", "there is no command 'true;' in the lobby"),
    ],
)
def test_what_is_no_command_is_refused_with_a_sentence(
    fairlead: Fairlead, command: str, sentence: str
) -> None:
    status, out, err = lobby(fairlead, command)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.startswith("fairlead: ")


def test_web_says_that_nothing_is_served_where_that_is_so(fairlead: Fairlead) -> None:
    status, out, err = lobby(fairlead, "web")
    assert (status, out) == (1, "")
    assert "browsers cannot sign in here" in err


def test_a_shell_prints_the_help_and_ends(fairlead: Fairlead) -> None:
    done = fairlead.ssh("", "-l", "alice+lobby", "-tt", data=b"")
    assert done.returncode == 0
    assert b"whoami" in done.stdout
    assert b"\r\n" in done.stdout


def test_the_lobby_is_no_workspace(fairlead: Fairlead) -> None:
    for subsystem in ("sftp", "workspace-start"):
        done = fairlead.ssh(subsystem, "-l", "alice+lobby", "-s")
        assert done.returncode == 254
        assert b"the lobby is no workspace" in done.stderr
    assert not list((fairlead.home / "workspaces").glob("*"))


def test_no_blueprint_is_called_lobby(fairlead: Fairlead, tmp_path: Path) -> None:
    from proxy.blueprints.catalog import DirectoryCatalog
    from proxy.errors.blueprints import BlueprintInvalid

    (tmp_path / "lobby.yaml").write_text("description: mine\n")
    with pytest.raises(BlueprintInvalid, match="'lobby' is the place of Fairlead's own commands"):
        DirectoryCatalog(tmp_path)
