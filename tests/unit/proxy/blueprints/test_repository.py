"""What a repository may say of its workspace, and that it can say nothing else."""

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from proxy.blueprints.expressions import Facts
from proxy.blueprints.narrow import path_within, tcp_within
from proxy.blueprints.reading import Definition
from proxy.blueprints.repository import (
    MAX_FILE_BYTES,
    RepositoryFile,
    image_matches,
    lay_over,
    read_repository_file,
    template_of,
)
from proxy.blueprints.schema import Blueprint
from proxy.errors.blueprints import BlueprintInvalid
from proxy.model import User
from proxy.settings.blueprints import RepositorySettings
from proxy.userstring import UserString
from tests.unit.proxy.blueprints.reading import read

SETTINGS = RepositorySettings(
    base="base", templates=("gpu",), images=("registry.example.com/dev/*", "debian:*")
)
BASE = """
abstract: true
description: ours
image: debian:12
env: {EDITOR: vi, WHO: !cel user.name}
init: [{name: setup, script: ours}]
forward: {tcp: ["*.example.com:443", "10.0.0.0/8:*"], unix: [], listen_tcp: ["localhost:1024-65535"]}
storages: {home: {kind: home, size: 5Gi}}
network: {policy: isolated}
security: {drop_capabilities: [ALL]}
access: {groups: [staff]}
quota: {running: 3}
accounts: [postgres]
limits: {programs: 10}
"""
FACTS = Facts(User("alice", uid=1, groups=("staff",)), "alice-1", "base", UserString("alice", repo="o/p"))
DEFINITION: Definition = read(base=BASE).definitions["base"]
OWN = DEFINITION.resolve(FACTS)


def laid(data: bytes) -> Blueprint:
    document = read_repository_file(data, "o/p/.fairlead.yaml")
    template_of(document, SETTINGS)
    return lay_over(DEFINITION, document, FACTS, SETTINGS)


GOOD = """
template: base
description: theirs
splash: "Welcome.\\nBe kind."
image: registry.example.com/dev/tools:1
env: {EDITOR: vim, CI: "true"}
init: [{name: deps, script: make deps}]
forward: {tcp: ["api.example.com:443", "10.1.0.0/16:5432"], listen_tcp: []}
storages: {cache: {kind: empty, path: ~/.cache, size: 1Gi}, shm: {kind: memory, path: /dev/shm, size: 64Mi}}
apps: {web: {listen: {port: 3000}}}
"""


def test_a_file_adds_to_the_blueprint() -> None:
    blueprint = laid(GOOD.encode())
    assert (blueprint.description, blueprint.image) == ("theirs", "registry.example.com/dev/tools:1")
    assert blueprint.splash == "Welcome.\nBe kind."
    assert blueprint.env == {"EDITOR": "vim", "WHO": "alice", "CI": "true"}
    assert [script.name for script in blueprint.init] == ["setup", "deps"]
    assert blueprint.forward.tcp == ("api.example.com:443", "10.1.0.0/16:5432")
    assert blueprint.forward.listen_tcp == ()
    assert blueprint.forward.unix == ()
    assert sorted(blueprint.storages) == ["cache", "home", "shm"]
    assert set(GOOD.split()) & {f"{field}:" for field in RepositoryFile.model_fields} == {
        f"{field}:" for field in RepositoryFile.model_fields
    }


def test_an_empty_file_changes_nothing() -> None:
    assert laid(b"") == OWN


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("sudo: true", "1: sudo", "this is not for a repository to set"),
        ("\nsecurity: {}", "2: security", "this is not for a repository to set"),
        ("name: x", "1: name", "this is not for a repository to set"),
        ("imgae: x", "1: imgae", "there is no such field"),
        ("image: evil/image", "1: image", "evil/image is not an image that repositories may use"),
        ("image: debian:5000/evil", "1: image", "not an image that repositories may use"),
        ("image: null", "1: image", "text is expected"),
        ("forward: null", "1: forward", "a mapping of fields is expected"),
        ("forward: {tcp: null}", "1: forward.tcp", "a list is expected"),
        ("env: {EDITOR: null}", "1: env.EDITOR", "text is expected"),
        ("env: {LD_PRELOAD: x}", "1: env.LD_PRELOAD", "LD_PRELOAD is not for a repository to set"),
        ("env: {FAIRLEAD_REPO: x}", "1: env.FAIRLEAD_REPO", "not for a repository"),
        ("splash: !cel user.name", "1: splash", "a repository has no expressions"),
        ('splash: "\\e[2J"', "1: splash", "would reach the terminal"),
        ("init: [{name: setup, script: x}]", "1: init[0].name", "a script of the blueprint has that name"),
        ("init: [{name: fairlead-clone, script: x}]", "1: init[0].name", "has that name"),
        ("forward: {tcp: ['*:*']}", "1: forward.tcp[0]", "'*:*' is more than the blueprint permits"),
        ("forward: {unix: [/run/docker.sock]}", "1: forward.unix[0]", "more than the blueprint permits"),
        ("storages: {home: {kind: empty, path: ~/x, size: 1Gi}}", "1: storages.home", "has that name"),
        ("storages: {x: {kind: home}}", "1: storages.x.kind", "'empty' or 'memory'"),
        ("storages: {x: {kind: empty, path: /etc, size: 1Gi}}", "1: storages.x.path", "may mount at"),
        ("storages: {x: {kind: empty, path: ~/../x, size: 1Gi}}", "1: storages.x.path", "may mount at"),
        ("storages: {x: {kind: empty, path: ~/x}}", "1: storages.x.size", "missing"),
        ("storages: {x: {kind: empty, path: ~/x, size: 1Ti}}", "1: storages.x.size", "at most 10Gi"),
        ("template: root", "1: template", "'root' is not offered to repositories; there are: base, gpu"),
        ("a: [", "1", "expected the node content"),
        ("#" * (MAX_FILE_BYTES + 1), "", "larger than"),
    ],
)
def test_what_it_may_not_say_is_told_to_its_owner(text: str, where: str, reason: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        laid(text.encode())
    assert caught.value.where == "o/p/.fairlead.yaml" + (f":{where}" if where else "")
    assert reason in caught.value.reason
    assert caught.value.user_message == str(caught.value)


@pytest.mark.parametrize(
    ("image", "pattern", "matches"),
    [
        ("debian:12", "debian:*", True),
        ("debian:5000/x", "debian:*", False),
        ("r.example/a/b:1", "r.example/*", False),
        ("r.example/a/b:1", "r.example/**", True),
        ("r.example/a:1", "r.example/?:1", True),
        ("rxexample/a:1", "r.example/*", False),
    ],
)
def test_a_star_stays_within_a_part_of_the_path(image: str, pattern: str, matches: bool) -> None:
    assert image_matches(image, pattern) is matches


# One valid value, or several, of every field of a blueprint: a field that is new must be thought of here.
VALUES: dict[str, list[Any]] = {
    "name": ["mine"],
    "description": ["x"],
    "template": ["base", "gpu", "root"],
    "abstract": [True, False],
    "access": [{"users": ["*"]}, {}],
    "quota": [{"total": 1_000}],
    "env": [{"A": "b"}, {"LD_PRELOAD": "x"}, {"EDITOR": "x"}, {"FAIRLEAD_X": "x"}],
    "accept_env": [["*"]],
    "user_rc": [True, False],
    "apps": [{"lab": {"listen": {"port": 8888}, "share": "public"}}, {}],
    "shell": ["/bin/evil"],
    "init": [[{"name": "x", "script": "x"}], [{"name": "setup", "script": "theirs"}]],
    "forward": [
        {"tcp": ["*:*"]},
        {"unix": ["*"]},
        {"tcp": ["a.example.com:443"]},
        {"listen_tcp": ["*:*"]},
        {},
    ],
    "splash": ["hello", "\x1b[2J"],
    "account": ["root"],
    "home": ["/"],
    "accounts": [["root"]],
    "sudo": [True],
    "idle_stop_s": [0],
    "lifetime_s": [0],
    "stop_hold_s": [0],
    "limits": [{"programs": 1_000}],
    "image": ["debian:13", "evil/x"],
    "image_pull_policy": ["Always"],
    "image_pull_secrets": [["s"]],
    "resources": [{"limits": {"nvidia.com/gpu": 8}}],
    "storages": [
        {"x": {"kind": "empty", "path": "~/x", "size": "1Gi"}},
        {"x": {"kind": "existing", "path": "/x", "claim": "hers"}},
        {"home": {"kind": "memory", "path": "/dev/shm", "size": "1Gi"}},
        {"home": {"size": "9Ti"}},
    ],
    "network": [{"policy": "open"}, {"egress_cidrs": [{"cidr": "0.0.0.0/0"}]}],
    "security": [{"run_as_user": 0}, {"add_capabilities": ["SYS_ADMIN"]}, {"drop_capabilities": []}],
    "service_account": ["admin"],
    "record": [[], ["shell"]],
    "node": [{"selector": {"pool": "control"}}],
}
SAFE = frozenset(RepositoryFile.model_fields) - {"template"}
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab*/~.:", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "tcp", "kind"]), inner),
    max_leaves=4,
)
files = st.fixed_dictionaries(
    {},
    optional={field: st.sampled_from(values) | anything for field, values in VALUES.items()},
)
harmless = st.fixed_dictionaries({}, optional={field: st.sampled_from(VALUES[field]) for field in SAFE})


def test_every_field_of_the_schema_is_tried() -> None:
    assert set(VALUES) == set(Blueprint.model_fields)
    for field in set(VALUES) - {"storages"}:  # one of which is no storage but for the one it would change
        for value in VALUES[field]:
            Blueprint.model_validate_json(json.dumps({"name": "x", field: value}))


@given(st.one_of(files, harmless))
def test_no_repository_can_set_a_protected_field(content: dict[str, Any]) -> None:
    try:
        blueprint = laid(json.dumps(content).encode())
    except BlueprintInvalid:
        event("refused")
        return
    event("accepted")
    for field in set(Blueprint.model_fields) - SAFE:
        assert getattr(blueprint, field) == getattr(OWN, field), field
    assert blueprint.image == OWN.image or any(
        image_matches(str(blueprint.image), one) for one in SETTINGS.images
    )
    assert blueprint.init[: len(OWN.init)] == OWN.init
    assert all(blueprint.storages[name] == OWN.storages[name] for name in OWN.storages)
    for name, storage in blueprint.storages.items():
        assert name in OWN.storages or storage.kind in ("empty", "memory")
    for name, value in blueprint.env.items():
        assert OWN.env.get(name) == value or not fnmatchcase(name, "LD_*")
    assert blueprint.splash.isprintable()
    for field, within in (("tcp", tcp_within), ("listen_tcp", tcp_within), ("unix", path_within)):
        own = getattr(OWN.forward, field)
        assert all(within(rule, own) for rule in getattr(blueprint.forward, field))


@pytest.mark.parametrize("field", sorted(set(Blueprint.model_fields) - SAFE - {"template"}))
def test_each_protected_field_is_refused_by_name(field: str) -> None:
    for value in VALUES[field]:
        with pytest.raises(BlueprintInvalid, match="this is not for a repository to set"):
            laid(json.dumps({field: value}).encode())


APPS = """
abstract: true
accounts: [postgres]
apps:
  lab: {listen: {port: 8888}, start: jupyter lab, share: authenticated, env: {A: "1"}}
  admin: {listen: {port: 5050}, start: pgadmin, account: postgres}
"""


def with_apps(data: str) -> Blueprint:
    definition = read(base=APPS).definitions["base"]
    return lay_over(definition, read_repository_file(data.encode(), "o/p/.fairlead.yaml"), FACTS, SETTINGS)


def test_a_repository_has_apps_and_changes_those_of_the_blueprint_as_far_as_it_may() -> None:
    apps = with_apps(
        "apps:\n"
        "  lab: {title: Notebooks, start: make lab, env: {B: '2'}, workdir: ~/p, ready: {path: /api}}\n"
        "  web: {listen: {port: auto}, start: npm run dev, icon: vite}\n"
    ).apps
    lab = apps["lab"]
    assert (lab.title, lab.start, lab.env, lab.workdir) == (
        "Notebooks",
        "make lab",
        {"A": "1", "B": "2"},
        "~/p",
    )
    assert (lab.ready.path, lab.listen.port, lab.share.level) == ("/api", 8888, "authenticated")
    assert (apps["web"].start, apps["web"].icon, apps["web"].share.level) == ("npm run dev", "vite", "owner")
    assert apps["admin"].start == "pgadmin"


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("share: public", "there is no such field"),
        ("share_max: public", "there is no such field"),
        ("wake: visitors", "there is no such field"),
        ("account: postgres", "there is no such field"),
        ("when: boot", "there is no such field"),
        ("restart: always", "there is no such field"),
        ("cors: [lab]", "there is no such field"),
        ("embed: [lab]", "there is no such field"),
        ("host_header: local", "there is no such field"),
        ("identity_headers: true", "there is no such field"),
        ("env: {LD_PRELOAD: /x}", "LD_PRELOAD is not for a repository to set"),
        ("start: null", "cannot be null"),
        ("listen: {port: null, socket: /x}", "cannot be null"),
        ('title: "\\e[31m"', "would reach the terminal"),
    ],
)
def test_a_repository_sets_nothing_else_of_an_app(app: str, reason: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        with_apps(f"apps: {{lab: {{{app}}}}}")
    assert reason in caught.value.reason
    assert caught.value.where.startswith("o/p/.fairlead.yaml:1: apps.lab")


def test_a_repository_runs_nothing_as_an_account_of_the_blueprint() -> None:
    with pytest.raises(BlueprintInvalid, match="runs as an account of its own"):
        with_apps("apps: {admin: {start: make me}}")
