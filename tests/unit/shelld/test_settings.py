"""Settings: everything that is wrong, at once."""

import pytest

from shelld.errors import SettingsError
from shelld.settings import ForwardSettings, InitScript, Settings, parse


def load(raw: object) -> Settings:
    return parse(raw, listen="unix:///run/s", tls=None, log_level="info")


def test_only_the_workspace_is_needed() -> None:
    settings = load({"workspace": "ws1"})
    assert settings.workspace == "ws1"
    assert settings.forward == ForwardSettings()
    assert settings.grace_s == 5.0


def test_everything_set() -> None:
    settings = load(
        {
            "workspace": "ws1",
            "user": "alice",
            "account": {
                "name": "dev",
                "uid": 1000,
                "gid": 1000,
                "groups": [1000, 27],
                "home": "/home/dev",
                "shell": "/bin/zsh",
            },
            "accounts": ["root"],
            "shell": "/bin/bash",
            "env": {"A": "b"},
            "accept_env": ["LANG"],
            "init": [{"name": "a", "script": "true", "when": "every"}],
            "forward": {"tcp": ["*:22"], "unix": [], "listen_tcp": ["*:*"], "listen_unix": ["/tmp/*"]},
            "runtime_dir": "/run",
            "hostname": "h",
            "grace_s": 1,
            "idle_stop_s": 60,
            "limits": {"programs": 1, "connections": 2, "listeners": 3},
            "dial_timeout_s": 1,
            "accept_timeout_s": 2,
            "sftp_server": "internal-sftp",
            "init_wait_s": 3,
            "init_timeout_s": 4,
        }
    )
    assert settings.account.groups == (1000, 27)
    assert settings.init == (InitScript("a", "true", "every"),)
    assert settings.limits.listeners == 3
    assert settings.forward.listen_unix == ("/tmp/*",)
    assert settings.sftp_server == "internal-sftp"


def test_null_is_the_default() -> None:
    settings = load(
        {"workspace": "ws1", "account": None, "shell": None, "hostname": None, "limits": None, "init": None}
    )
    assert settings.account.name is None
    assert settings.limits.programs == 512


def test_all_problems_in_one_message() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            {
                "grace_s": -1,
                "limits": {"programs": True, "what": 1},
                "env": {"A=B": "x"},
                "shell": "relative",
                "forward": {"tcp": ["80"]},
                "init": [{"when": "never"}, "x", {"name": "../up"}],
                "accounts": "root",
                "account": {"uid": -4, "groups": [1, "x"]},
                "unknown": 1,
            }
        )
    words = str(caught.value)
    for part in (
        "workspace",
        "grace_s",
        "limits.programs",
        "limits.what",
        "env",
        "shell",
        "forward.tcp",
        "init[0].when",
        "init[1]",
        "init[2].name",
        "accounts",
        "account.uid",
        "account.groups",
        "unknown is not a setting",
    ):
        assert part in words, part


@pytest.mark.parametrize("raw", [None, [], "x", 3])
def test_anything_but_an_object_is_told(raw: object) -> None:
    with pytest.raises(SettingsError, match="JSON object"):
        load(raw)


def test_the_environment_of_the_process_is_taken_only_where_it_is_a_container_s() -> None:
    def taken(raw: dict[str, object]) -> object:
        return parse(raw, listen="unix:///s", tls=None, log_level="info", environ={"A": "b"}).container_env

    assert taken({"workspace": "ws1"}) == {}
    assert taken({"workspace": "ws1", "container_env": True}) == {"A": "b"}
