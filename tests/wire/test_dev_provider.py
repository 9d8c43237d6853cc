"""Where the development provider starts: `fairlead serve` itself, and a client of an unknown user."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.wire import forked
from tests.wire.browser import decide
from tests.wire.harness import Fairlead
from tests.wire.newcomer import Attempt, make_key
from tests.wire.peers import until

OPTION = "--dev-anyone-may-be-any-user"
DEV = {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind": "dev"}]'}
DEV_FOR_OTHERS = {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind": "dev", "host": "0.0.0.0"}]'}
STANDS_IN = {"FAIRLEAD_FRONT_DOOR__DEV_ON_LOOPBACK": "true"}
BALANCED = {"FAIRLEAD_PROXY_PROTOCOL": json.dumps({"trusted": ["127.0.0.1"], "header": "optional"})}


def serve(directory: Path, environment: dict[str, str], *options: str) -> "subprocess.CompletedProcess[str]":
    return Fairlead(directory, extra_env=environment).run("serve", *options)


@pytest.mark.parametrize(
    ("environment", "options", "named"),
    [
        ({**DEV, **BALANCED}, [], "front_door.providers"),
        ({**DEV, **BALANCED}, [OPTION], "front_door.providers"),
        (BALANCED, [OPTION], "front_door.dev_anyone_may_be_any_user"),
        (DEV, ["--listen", "*:0"], "listen"),
        (DEV_FOR_OTHERS, [], "front_door.providers.0.host"),
    ],
)
def test_a_proxy_that_would_let_anyone_become_any_user_does_not_start(
    tmp_path: Path, environment: dict[str, str], options: list[str], named: str
) -> None:
    done = serve(tmp_path, environment, *options)
    assert (done.returncode, done.stdout) == (78, "")
    assert re.fullmatch(rf"fairlead: {re.escape(named)}: the development provider [^\n]*\n", done.stderr)
    assert "anyone may become any user" in done.stderr
    assert not (tmp_path / "home").exists()


def test_the_help_says_what_the_option_does() -> None:
    for command in ("run", "serve"):
        done = forked.fairlead(command, "--help", env={**os.environ, "COLUMNS": "80"})
        said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stdout).split())
        assert OPTION in said
        assert "anyone who reaches its page may become any user" in said


@contextmanager
def standing(directory: Path, environment: dict[str, str]) -> Iterator[Fairlead]:
    server = Fairlead(directory, extra_env=environment)
    blueprints = server.home / "blueprints"
    blueprints.mkdir(parents=True)
    (blueprints / "dev.yaml").write_text("name: dev\n")
    make_key(server.key)
    server.configure_client()
    try:
        server.start()
        yield server
    finally:
        server.close()


def stranger(server: Fairlead) -> Attempt:
    return Attempt([*server.command("ssh", "-o", "LogLevel=INFO"), "-l", "somebody+dev", "fl", "echo in"])


def test_behind_a_load_balancer_on_this_machine_no_new_user_comes_in(tmp_path: Path) -> None:
    """The proxy listens on loopback, where a load balancer brings others to it."""
    with standing(tmp_path, {**STANDS_IN, **BALANCED}) as server:
        with stranger(server) as attempt:
            said = attempt.refused()
            assert "open " not in said
        assert "no development provider while proxy_protocol.trusted is set" in server.log
        assert "development identity provider" not in server.log


def test_without_a_load_balancer_the_same_proxy_lets_a_stranger_approve(tmp_path: Path) -> None:
    with standing(tmp_path, STANDS_IN) as server:
        with stranger(server) as attempt:
            shown = attempt.shown()
            assert urlsplit(shown.url).hostname == "login.localhost"
            decide(shown)
            attempt.entered()
        until(lambda: "development identity provider" in server.log, "it says what it is")
        assert '"beyond_this_machine": false' in server.log


def test_with_the_flag_it_starts_for_others_and_says_so(tmp_path: Path) -> None:
    flag = {"FAIRLEAD_FRONT_DOOR__DEV_ANYONE_MAY_BE_ANY_USER": "true"}
    with standing(tmp_path, {**DEV_FOR_OTHERS, **flag}) as server:
        with stranger(server) as attempt:
            decide(attempt.shown())
            attempt.entered()
        assert '"beyond_this_machine": true' in server.log
