"""What a blueprint takes over, and where a mistake in it is said to stand."""

import pytest

from proxy.blueprints.inherit import LISTS, Join, join_of
from proxy.blueprints.schema import Blueprint
from proxy.errors.blueprints import BlueprintInvalid
from tests.unit.proxy.blueprints.reading import read

BASE = """
abstract: true
description: base
image: debian:12
env: {EDITOR: vi, PAGER: less}
accept_env: [GIT_*]
init:
  - {name: one, script: base one}
  - {name: two, script: base two}
forward: {tcp: ["*:22"], listen_tcp: []}
accounts: [postgres, redis]
storages: {home: {kind: home, size: 5Gi, access_modes: [ReadWriteOnce]}, tmp: {kind: empty, path: /scratch}}
security: {drop_capabilities: [NET_RAW], add_capabilities: [SYS_PTRACE]}
access: {groups: [staff]}
"""


def child(text: str, base: str = BASE) -> Blueprint:
    return read(base=base, dev=f"template: base\n{text}").definitions["dev"].sample


def test_what_a_child_does_not_say_is_its_template_s() -> None:
    blueprint = child("")
    assert (blueprint.name, blueprint.template, blueprint.abstract) == ("dev", "base", False)
    assert (blueprint.image, blueprint.description) == ("debian:12", "base")
    assert blueprint.access.groups == ("staff",)


def test_a_scalar_of_the_child_wins_and_mappings_are_joined() -> None:
    blueprint = child("image: alpine\nenv: {EDITOR: vim, TZ: UTC}\nstorages: {home: {size: 9Gi}}")
    assert blueprint.image == "alpine"
    assert blueprint.env == {"EDITOR": "vim", "PAGER": "less", "TZ": "UTC"}
    assert blueprint.storages["home"].size == "9Gi"
    assert blueprint.storages["tmp"].path == "/scratch"


def test_null_takes_away_what_was_inherited() -> None:
    blueprint = child("image: null\nenv: {PAGER: null}\nstorages: {tmp: null}")
    assert blueprint.image is None
    assert blueprint.env == {"EDITOR": "vi"}
    assert list(blueprint.storages) == ["home"]


def test_what_is_recorded_can_only_grow() -> None:
    """Whoever writes a child may be the one whom it would record."""
    for text in ("", "record: null", "record: []"):
        assert child(text, base="record: [shell]").record == ("shell",)
    assert child("record: [sftp]", base="record: [shell]").record == ("shell", "sftp")


def test_lists_are_appended() -> None:
    blueprint = child("accept_env: [MINE]\nsecurity: {drop_capabilities: [MKNOD]}")
    assert blueprint.accept_env == ("GIT_*", "MINE")
    assert blueprint.security.drop_capabilities == ("NET_RAW", "MKNOD")


def test_init_scripts_are_replaced_by_name_where_they_stand() -> None:
    blueprint = child("init: [{name: new, script: x}, {name: one, script: mine}]")
    assert [(script.name, script.script) for script in blueprint.init] == [
        ("one", "mine"),
        ("two", "base two"),
        ("new", "x"),
    ]


def test_lists_that_grant_something_are_replaced() -> None:
    blueprint = child(
        "forward: {tcp: ['localhost:*']}\naccounts: [redis]\naccess: {groups: [dba]}\n"
        "security: {add_capabilities: []}\nstorages: {home: {access_modes: [ReadWriteMany]}}"
    )
    assert blueprint.forward.tcp == ("localhost:*",)
    assert blueprint.forward.listen_tcp == ()
    assert blueprint.accounts == ("redis",)
    assert blueprint.access.groups == ("dba",)
    assert blueprint.security.add_capabilities == ()
    assert blueprint.storages["home"].access_modes == ("ReadWriteMany",)


def test_a_template_may_have_a_template() -> None:
    blueprints = read(
        a="abstract: true\nenv: {A: a, B: a, C: a}",
        b="template: a\nabstract: true\nenv: {B: b, C: b}",
        c="template: b\nenv: {C: c}",
    )
    assert blueprints.definitions["c"].sample.env == {"A": "a", "B": "b", "C": "c"}


def test_every_exception_of_the_table_names_a_list_of_the_schema() -> None:
    for path, join in LISTS.items():
        kind: object = Blueprint
        for part in path.split("."):
            if part == "*":
                kind = kind.__args__[1]  # type: ignore[attr-defined]
                continue
            kind = kind.model_fields[part].annotation  # type: ignore[attr-defined]
        assert "tuple" in str(kind), path
        assert join_of(tuple(path.split("."))) is join
    assert join_of(("node", "tolerations")) is Join.APPEND


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"dev": "template: gone"}, "dev.yaml:1: template: there is no blueprint 'gone' to inherit from"),
        ({"dev": "template: dev"}, "dev.yaml:1: template: inherits from itself: dev → dev"),
        (
            {"a": "\ntemplate: b", "b": "template: a"},
            "a.yaml:2: template: inherits from itself: a → b → a; "
            "b.yaml:1: template: inherits from itself: b → a → b",
        ),
        ({"dev": "template: [x]"}, "dev.yaml:1: template: text is expected; put it in quotes"),
        # The mistake stands in the template, and nowhere else.
        (
            {"base": "env:\n  A: 1", "dev": "template: base\nenv: {B: b}"},
            "base.yaml:2: env.A: text is expected; put it in quotes",
        ),
        # What only shows in the child: the appended entry is the child's own.
        (
            {"base": "forward: {}\naccept_env: [A]", "dev": "template: base\naccept_env:\n- B\n- 1x"},
            "dev.yaml:4: accept_env[2]: '1x' is not of the form that is expected here",
        ),
        # An inherited value that does not go with the child's: said where the one to change stands.
        (
            {"base": "sudo: true", "dev": "template: base\nsecurity: {run_as_user: 1000}"},
            "base.yaml:1: sudo: this needs root, and security.run_as_user is not 0",
        ),
        (
            {"base": "env: [", "dev": "template: base"},
            "base.yaml:1: expected the node content, but found '<stream end>'; dev.yaml:1: template: "
            "base cannot be used: base.yaml:1: expected the node content, but found '<stream end>'",
        ),
        ({"dev": "env: {A: null}"}, "dev.yaml:1: env.A: text is expected; put it in quotes"),
    ],
)
def test_a_mistake_is_said_once_and_where_it_stands(files: dict[str, str], said: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        read(**files)
    assert str(caught.value).startswith(said)
