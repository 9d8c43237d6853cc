from pathlib import Path

import pytest

from proxy.addresses import split_address
from proxy.errors import EXIT_CONFIG, SettingsError
from proxy.settings import Settings, load


def test_nothing_given_gives_defaults() -> None:
    settings = load({})
    assert settings == Settings()
    assert settings.state_dir == Path.cwd() / ".fairlead"
    assert settings.database_url == f"sqlite+aiosqlite:///{settings.state_dir}/fairlead.db"
    assert settings.blueprint_dir == settings.state_dir / "blueprints"
    assert settings.host_key_dir == settings.state_dir / "host_keys"


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "fairlead.yaml"
    file.write_text(
        "listen: 127.0.0.1:1\nproxy_id: from-file\nrelay: {buffer_bytes: 2048, window_bytes: 4096}\n"
        "ssh: {ciphers: [aes128-gcm@openssh.com]}\n"
    )
    environ = {
        "FAIRLEAD_CONFIG": str(file),
        "FAIRLEAD_LISTEN": "127.0.0.1:2",
        "FAIRLEAD_RELAY__BUFFER_BYTES": "8192",
        "FAIRLEAD_BLUEPRINT__DEFAULT": "data",
        "HOME": "/ignored",
    }
    settings = load(environ, overrides={"listen": "127.0.0.1:3"})
    assert settings.listen == "127.0.0.1:3"
    assert settings.proxy_id == "from-file"
    assert (settings.relay.buffer_bytes, settings.relay.window_bytes) == (8_192, 4_096)
    assert settings.blueprint.default == "data"
    assert settings.ssh.ciphers == ("aes128-gcm@openssh.com",)


def test_a_shutdown_keeps_the_deadline_of_its_platform() -> None:
    """Live sessions have what is left of it, or less where an operator says so."""
    assert load({}).shutdown_grace_s == 5
    deadline = {"FAIRLEAD_SHUTDOWN__DEADLINE_S": "600", "FAIRLEAD_HEALTH__DRAIN_S": "10"}
    given = load(deadline)
    closing_s = given.recording.close_timeout_s + given.events.close_timeout_s
    assert 500 < given.shutdown_grace_s < 600 - 10 - closing_s
    assert load({**deadline, "FAIRLEAD_SHUTDOWN__GRACE_S": "20"}).shutdown_grace_s == 20
    assert load({**deadline, "FAIRLEAD_SHUTDOWN__GRACE_S": "5000"}).shutdown_grace_s == given.shutdown_grace_s
    with pytest.raises(SettingsError, match=r"shutdown\.deadline_s: .* take 48 s of it"):
        load({**deadline, "FAIRLEAD_SHUTDOWN__DEADLINE_S": "40"})


def test_a_list_in_the_environment_is_json() -> None:
    settings = load({"FAIRLEAD_SSH__CIPHERS": '["aes256-gcm@openssh.com"]'})
    assert settings.ssh.ciphers == ("aes256-gcm@openssh.com",)


def test_home_is_absolute_and_knows_the_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert load({"FAIRLEAD_HOME": "~/fl"}).state_dir == Path("/somewhere/fl")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"FAIRLEAD_LISTEN": "nonsense"}, ["FAIRLEAD_LISTEN: 'nonsense' is not host:port"]),
        ({"FAIRLEAD_RELAY__BUFFER_BYTES": "many"}, ["FAIRLEAD_RELAY__BUFFER_BYTES: "]),
        ({"FAIRLEAD_RELAY__BUFFER_BYTES": "1"}, ["FAIRLEAD_RELAY__BUFFER_BYTES: "]),
        ({"FAIRLEAD_NO_SUCH": "1"}, ["FAIRLEAD_NO_SUCH: there is no such setting"]),
        ({"FAIRLEAD_RELAY__NO_SUCH": "1"}, ["FAIRLEAD_RELAY__NO_SUCH: there is no such setting"]),
        ({"FAIRLEAD_PROXY_ID": "Not A Label"}, ["FAIRLEAD_PROXY_ID: "]),
        *(
            ({"FAIRLEAD_SSH__VERSION": version}, ["FAIRLEAD_SSH__VERSION: ", "must be printable ASCII"])
            for version in ("", " x", "x ", "a-b", "caf\xe9", "x\r\ny", "x" * 201)
        ),
        ({"FAIRLEAD_LOGIN__TIMEOUT_S": "10"}, ["login", "key_exchange_timeout_s must not exceed timeout_s"]),
        ({"FAIRLEAD_HOME": "x", "FAIRLEAD_HOME__SUB": "y"}, ["HOME"]),
        (
            {"FAIRLEAD_LISTEN": "x", "FAIRLEAD_LOG__LEVEL": "loud"},
            ["FAIRLEAD_LISTEN: ", "; FAIRLEAD_LOG__LEVEL: "],
        ),
        ({"FAIRLEAD_CONFIG": "/nowhere.yaml"}, ["/nowhere.yaml"]),
    ],
)
def test_every_problem_is_named_with_its_path(environ: dict[str, str], said: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    for part in said:
        assert part in str(caught.value)
    assert caught.value.exit_status == EXIT_CONFIG


def test_a_problem_of_a_file_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("relay: {no_such: 1}\n")
    with pytest.raises(SettingsError, match=r"^relay\.no_such: there is no such setting$"):
        load({}, tmp_path / "x.yaml")


@pytest.mark.parametrize("content", [b"- 1", b"text", b"a: [", b"\xff\xfe", b"listen: [1]"])
def test_a_file_that_cannot_be_used_is_said(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError):
        load({}, file)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# nothing\n")
    assert load({}, file) == Settings()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:22", ("127.0.0.1", 22)),
        ("host.example:0", ("host.example", 0)),
        ("[::1]:2222", ("::1", 2222)),
        ("*:22", ("", 22)),
        (":22", ("", 22)),
    ],
)
def test_an_address_is_split(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "22", "host", "host:", "host:port", "host:65536", "::1:22", "host:-1", "h:٢"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        split_address(text)
