"""Expressions: what they may ask, when they are checked, and that a failure names its place."""

import pytest

from proxy.blueprints.expressions import FIXED, Facts
from proxy.blueprints.schema import Blueprint
from proxy.errors.blueprints import BlueprintInvalid
from proxy.model import User
from proxy.userstring import UserString
from tests.unit.proxy.blueprints.reading import read

ALICE = User("alice", full_name="Alice A.", email="a@example.com", uid=1234, groups=("acme/dev",))


def resolved(
    text: str, user: User = ALICE, origin: UserString | None = None, **metadata: object
) -> Blueprint:
    blueprints = read(metadata, dev=text)
    facts = Facts(user, "alice-1", "dev", origin or UserString(user.name), blueprints.metadata)
    return blueprints.definitions["dev"].resolve(facts)


def test_every_variable_can_be_asked() -> None:
    blueprint = resolved(
        """
        splash: !cel "user.name + ' ' + user.full_name + ' ' + user.email + ' ' + user.provider"
        env:
          WHERE: !cel "workspace.name + ' ' + workspace.blueprint"
          WHAT: !cel "workspace.repo + '@' + workspace.ref"
          WORKLOAD: !cel "workspace.ns + workspace.workload"
          REGION: !cel metadata.region
        accept_env: !cel "user.groups.filter(g, g.contains('/')).map(g, g.split('/')[1])"
        security: {run_as_user: !cel user.uid, run_as_group: !cel user.gid}
        """,
        origin=UserString("alice", repo="o/p", ref="v1"),
        region="eu",
    )
    assert blueprint.splash == "alice Alice A. a@example.com "
    assert blueprint.env == {"WHERE": "alice-1 dev", "WHAT": "o/p@v1", "WORKLOAD": "", "REGION": "eu"}
    assert blueprint.accept_env == ("dev",)
    assert (blueprint.security.run_as_user, blueprint.security.run_as_group) == (1234, 1234)


def test_an_expression_is_worked_out_for_each_person() -> None:
    text = """sudo: !cel "'acme/dev' in user.groups" """
    assert resolved(text).sudo
    assert not resolved(text, User("bob", uid=5)).sudo


def test_null_leaves_a_field_or_an_entry_out() -> None:
    blueprint = resolved(
        """
        image: !cel "user.name == 'bob' ? dyn('x') : null"
        env: {A: !cel "null", B: b}
        accept_env: [A, !cel "null", B]
        """
    )
    assert blueprint.image is None
    assert blueprint.env == {"B": "b"}
    assert blueprint.accept_env == ("A", "B")


def test_what_is_inherited_may_be_an_expression() -> None:
    blueprints = read(
        base="abstract: true\nenv: {WHO: !cel user.name, B: !cel user.email}",
        dev="template: base\nenv: {B: b}",
    )
    facts = Facts(ALICE, "w", "dev", UserString("alice"))
    assert blueprints.definitions["dev"].resolve(facts).env == {"WHO": "alice", "B": "b"}


def test_a_long_expression_is_written_over_lines() -> None:
    assert resolved("splash: !cel |\n  user.name +\n  '!'\n").splash == "alice!"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "splash: !cel user.nmae",
            "dev.yaml:1: splash: expression: undeclared reference to 'user.nmae' (line 1, character 5)",
        ),
        (
            "\nsplash: !cel 'user.name +'",
            "dev.yaml:2: splash: expression: Syntax error: mismatched input '<EOF>' (line 1, character 12)",
        ),
        ("splash: !cel user.uid", "dev.yaml:1: splash: text is expected"),
        ("sudo: !cel user.name", "dev.yaml:1: sudo: true or false is expected"),
        ("env:\n  A: !cel '1 + 1'", "dev.yaml:2: env.A: text is expected"),
        ("env: !cel user.groups", "dev.yaml:1: env: a mapping is expected"),
        ("splash: !cel metadata.region", "dev.yaml:1: splash: expression: not found: region"),
        ("splash: !cel 'user.groups[9]'", "dev.yaml:1: splash: expression: unknown"),
        ("idle_stop_s: !cel \"duration('5s')\"", "dev.yaml:1: idle_stop_s: expression: gives DURATION"),
        ("splash: !cel \"dyn(b'x')\"", "dev.yaml:1: expression: gives bytearray"),
        ("splash: !cel '" + "1+" * 1_500 + "1'", "dev.yaml:1: splash: expression: an expression has at most"),
        ("image: !cel \"'a b'\"", "dev.yaml:1: image: 'a b' is not an image"),
        ("splash: !cel [x]", "dev.yaml:1: splash: the tag !cel is not used in blueprints"),
    ],
)
def test_mistakes_are_found_when_the_file_is_read(text: str, said: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        read(dev=text)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("field", sorted(FIXED))
def test_who_may_have_a_blueprint_is_never_computed(field: str) -> None:
    inner = {"access": "{users: [!cel user.name]}", "quota": "{total: !cel user.uid}"}
    with pytest.raises(BlueprintInvalid):
        read(dev=f"{field}: {inner.get(field, '!cel user.name')}")


def test_a_failure_at_the_time_of_asking_names_its_place() -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        resolved("\nsplash: !cel 'user.groups[0]'", User("bob", uid=5))
    assert caught.value.where == "dev.yaml:2: splash"
    with pytest.raises(BlueprintInvalid) as caught:
        resolved("env: {}\nimage: !cel user.name", User("not an image", uid=5))
    assert str(caught.value).startswith("dev.yaml:2: image: 'not an image' is not an image")


def test_a_number_that_is_not_known_is_never_zero() -> None:
    with pytest.raises(BlueprintInvalid, match=r"security\.run_as_user"):
        resolved("security: {run_as_user: !cel user.uid}", User("old"))
