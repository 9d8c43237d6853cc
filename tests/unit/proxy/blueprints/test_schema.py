from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.blueprints.reading import read_set
from proxy.blueprints.schema import DEFAULT_ACCEPT_ENV, Blueprint, Forward, InitScript, Limits
from proxy.blueprints.sources import MAX_FILE_BYTES, read_files
from proxy.errors.blueprints import BlueprintInvalid
from tests.unit.proxy.blueprints.reading import parse

FULL = """
name: full
description: everything
env: {EDITOR: vim, EMPTY: ""}
accept_env: [GIT_*]
shell: /bin/zsh
init:
  - name: tools
    script: |
      make tools
  - {name: hello, script: echo hello, when: every}
forward:
  tcp: ["localhost:*", "*.example.com:443", "10.0.0.0/8:1-1023", "[2001:db8::/32]:22", "[::1]:80"]
  unix: [/run/docker.sock]
  listen_tcp: []
  listen_unix: ["/tmp/*"]
splash: hello
accounts: [postgres]
idle_stop_s: 0
limits: {programs: 3}
"""


def test_every_field_is_read() -> None:
    assert parse(FULL) == Blueprint(
        name="full",
        description="everything",
        env={"EDITOR": "vim", "EMPTY": ""},
        accept_env=("GIT_*",),
        shell="/bin/zsh",
        init=(
            InitScript(name="tools", script="make tools\n"),
            InitScript(name="hello", script="echo hello", when="every"),
        ),
        forward=Forward(
            tcp=("localhost:*", "*.example.com:443", "10.0.0.0/8:1-1023", "[2001:db8::/32]:22", "[::1]:80"),
            unix=("/run/docker.sock",),
            listen_tcp=(),
            listen_unix=("/tmp/*",),
        ),
        splash="hello",
        accounts=("postgres",),
        idle_stop_s=0,
        limits=Limits(programs=3),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_is_a_blueprint_of_defaults(text: str) -> None:
    assert parse(text) == Blueprint(name="dev")
    assert parse(text).all_accept_env == DEFAULT_ACCEPT_ENV


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("name: dev\npicture: x\n", "dev.yaml:2: picture", "there is no such field"),
        ("forward:\n  tcp: []\n  udp: []\n", "dev.yaml:3: forward.udp", "there is no such field"),
        ("env:\n  A: x\n  B: 1\n", "dev.yaml:3: env.B", "text is expected; put it in quotes"),
        ("env:\n  A: yes\n", "dev.yaml:2: env.A", "put it in quotes"),
        ('env:\n  A: "a\\0b"\n', "dev.yaml:2: env.A", "NUL"),
        ("env:\n  1A: x\n", "dev.yaml:2: env.1A", "not of the form"),
        ("env: [A]\n", "dev.yaml:1: env", "a mapping is expected"),
        ("init:\n- script: x\n", "dev.yaml:2: init[0].name", "missing"),
        ("init:\n- {name: a, script: x, when: never}\n", "dev.yaml:2: init[0].when", "'once' or 'every'"),
        ("init:\n- {name: a/b, script: x}\n", "dev.yaml:2: init[0].name", "not of the form"),
        (
            "init:\n- {name: a, script: x}\n- {name: a, script: y}\n",
            "dev.yaml:3: init[1].name",
            "another script",
        ),
        (
            "forward:\n  tcp:\n  - localhost:1\n  - localhost\n",
            "dev.yaml:4: forward.tcp[1]",
            "a rule is host:port",
        ),
        ("forward: {tcp: ['a:70000']}\n", "dev.yaml:1: forward.tcp[0]", "above 65535"),
        ("forward: {tcp: ['a:2-1']}\n", "dev.yaml:1: forward.tcp[0]", "out of order"),
        ("forward: {tcp: ['10.0.0.0/40:1']}\n", "dev.yaml:1: forward.tcp[0]", "neither a name nor a network"),
        ("forward: {unix: [relative]}\n", "dev.yaml:1: forward.unix[0]", "not of the form"),
        ("shell: zsh\n", "dev.yaml:1: shell", "not of the form"),
        ("accounts: [0]\n", "dev.yaml:1: accounts[0]", "text is expected"),
        ("accounts: ['a b']\n", "dev.yaml:1: accounts[0]", "not of the form"),
        ("idle_stop_s: -1\n", "dev.yaml:1: idle_stop_s", "greater than or equal to 0"),
        ("idle_stop_s: .nan\n", "dev.yaml:1: idle_stop_s", ""),
        ("idle_stop_s: '5'\n", "dev.yaml:1: idle_stop_s", "number"),
        ("limits: {programs: 0}\n", "dev.yaml:1: limits.programs", "greater than or equal to 1"),
        ("name: Dev\n", "dev.yaml:1: name", "not of the form"),
    ],
)
def test_an_error_names_file_line_and_path(text: str, where: str, reason: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        parse(text)
    assert caught.value.where == where
    assert reason in caught.value.reason
    assert "dev.yaml" not in caught.value.user_message


def test_every_problem_of_a_file_is_named_at_once() -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        parse("shell: zsh\npicture: x\n")
    assert "dev.yaml:1: shell" in str(caught.value)
    assert "dev.yaml:2: picture" in str(caught.value)


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    def load(name: str) -> list[str]:
        return list(read_set(read_files([tmp_path / name]), {}).definitions)

    with pytest.raises(BlueprintInvalid, match=r"x\.yaml: No such file"):
        load("x.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(BlueprintInvalid, match=r"big\.yaml: larger than"):
        load("big.yaml")
    (tmp_path / "ok.yaml").write_text("")
    assert load("ok.yaml") == ["ok"]


@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!%|>'\"\n #,?1.\t", max_size=80).map(str.encode))
def test_no_content_gets_anything_but_an_answer(data: bytes) -> None:
    try:
        parse(data)
    except BlueprintInvalid:
        return
