"""The pure parts; the rest is tests/contract/test_local_backend.py."""

import errno
import os
from pathlib import Path

import pytest

from proxy.blueprints.schema import DEFAULT_ACCEPT_ENV, Blueprint, InitScript
from proxy.model import User, WorkspaceName
from proxy.settings.workspace import WorkspaceSettings
from proxy.userstring import UserString
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.local.backend import _failed_by_system, _own_account, local_config
from proxy.workspaces.local.namespaces import Separation
from proxy.workspaces.local.state import Places

PLACES = Places(Path("/state/workspaces/ws-1"), Path("/run/fl/12"))


def config(blueprint: Blueprint, separation: Separation) -> dict[str, object]:
    request = WorkspaceRequest(WorkspaceName("ws-1"), User("alice"), blueprint, UserString("alice"))
    return local_config(request, PLACES, separation, WorkspaceSettings(idle_stop_s=60))


def test_shelld_is_told_what_the_blueprint_says() -> None:
    blueprint = Blueprint(
        name="dev",
        env={"A": "b"},
        accept_env=("GIT_*",),
        shell="/bin/sh",
        init=(InitScript(name="x", script="true"),),
        accounts=("postgres",),
        idle_stop_s=5,
    )
    assert config(blueprint, Separation("bwrap", "/usr/bin/bwrap")) == {
        "workspace": "ws-1",
        "user": "alice",
        "account": {**_own_account(), "home": "/state/workspaces/ws-1/home"},
        "create_account": False,
        "container_env": False,
        "sudo": False,
        "accounts": ["postgres"],
        "shell": "/bin/sh",
        "env": {"A": "b"},
        "accept_env": [*DEFAULT_ACCEPT_ENV, "GIT_*"],
        "init": [{"name": "x", "script": "true", "when": "once"}],
        "forward": {"tcp": ["*:*"], "unix": ["*"], "listen_tcp": ["localhost:*"], "listen_unix": ["*"]},
        "runtime_dir": "/run/fl/12",
        "hostname": "ws-1",
        "idle_stop_s": 5,
        "stop_note": "/state/workspaces/ws-1/stopped.json",
        "limits": {"programs": 512, "connections": 4_096, "listeners": 64},
    }


def test_what_the_blueprint_leaves_open_is_the_installations() -> None:
    told = config(Blueprint(name="dev"), Separation("none"))
    assert (told["idle_stop_s"], told["hostname"], told["shell"]) == (60, None, None)
    assert config(Blueprint(name="dev", idle_stop_s=0), Separation("none"))["idle_stop_s"] == 0


def test_user_rc_is_said_only_where_it_is_off() -> None:
    """An older shelld refuses a configuration with a field that it does not know."""
    assert "user_rc" not in config(Blueprint(name="dev"), Separation("none"))
    assert config(Blueprint(name="dev", user_rc=False), Separation("none"))["user_rc"] is False


def test_a_uid_without_passwd_entry_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_294_967_000)
    assert _own_account() == {"uid": 4_294_967_000, "gid": os.getegid(), "name": None, "shell": None}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "its disk is full"),
        (errno.EDQUOT, "its disk is full"),
        (errno.EACCES, "permission denied"),
        (errno.EAGAIN, "resource temporarily unavailable"),
    ],
)
def test_a_refusal_of_the_system_is_said_without_paths(number: int, said: str) -> None:
    failure = _failed_by_system(WorkspaceName("ws-1"), OSError(number, os.strerror(number), "/state/secret"))
    assert failure.user_message == f"the workspace could not be started: {said}"
    assert "/state/secret" in str(failure)
