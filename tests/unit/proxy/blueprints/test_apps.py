from pathlib import Path

import pytest

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.sharing import OWNER_ONLY, Share
from proxy.blueprints.sources import read_directory
from proxy.errors.blueprints import BlueprintInvalid
from proxy.model import AppSpec, AppTarget, TcpTarget, UnixTarget


def read(tmp_path: Path, text: str) -> Catalog:
    (tmp_path / "dev.yaml").write_text(text)
    return Catalog(read_directory(tmp_path), {})


def test_apps_say_where_they_listen_and_who_may_open_them(tmp_path: Path) -> None:
    text = (
        "apps:\n"
        "  lab: {title: Lab, listen: {port: 8888}, share: public}\n"
        "  code: {listen: {socket: /run/c}}\n"
    )
    apps = read(tmp_path, text).current().definitions["dev"].sample.apps
    assert (apps["lab"].title, apps["lab"].share.level, apps["lab"].target("lab")) == (
        "Lab",
        "public",
        TcpTarget("localhost", 8888),
    )
    assert (apps["code"].title, apps["code"].share.share) == ("", OWNER_ONLY)
    assert (apps["code"].share_max, apps["code"].wake) == ("owner", "owner")
    assert apps["code"].target("code") == UnixTarget("/run/c")


@pytest.mark.parametrize(
    ("apps", "where", "reason"),
    [
        ("{ab: {listen: {port: 1}}}", "dev.yaml:1: apps", "is not 3 to 20 lower-case letters"),
        ("{Lab: {listen: {port: 1}}}", "dev.yaml:1: apps", "is not 3 to 20 lower-case letters"),
        ("{login: {listen: {port: 1}}}", "dev.yaml:1: apps", "'login' is kept for Fairlead's own pages"),
        ("{lab: {}}", "dev.yaml:1: apps.lab", "this field is missing"),
        ("{lab: {listen: {}}}", "dev.yaml:1: apps.lab.listen", "give either port or socket"),
        (
            "{lab: {listen: {port: 1, socket: /x}}}",
            "dev.yaml:1: apps.lab.listen",
            "give either port or socket",
        ),
        ("{lab: {listen: {port: 0}}}", "dev.yaml:1: apps.lab.listen.port", "greater than or equal to 1"),
        ("{lab: {listen: {port: '1'}}}", "dev.yaml:1: apps.lab.listen.port", "integer"),
        ("{lab: {listen: {socket: x}}}", "dev.yaml:1: apps.lab.listen.socket", "not of the form"),
        (
            f"{{lab: {{listen: {{socket: /{'x' * 107}}}}}}}",
            "dev.yaml:1: apps.lab.listen.socket",
            "at most 107 bytes",
        ),
        ("{lab: {listen: {port: 1}, run: x}}", "dev.yaml:1: apps.lab.run", "there is no such field"),
        ("{home: {built_in: shell}}", "dev.yaml:1: apps.home.built_in", "'files'"),
        ("{home: {built_in: files, start: x}}", "dev.yaml:1: apps.home.start", "a built-in app has its own"),
        (
            "{home: {built_in: files, listen: {port: 80}}}",
            "dev.yaml:1: apps.home.listen",
            "a built-in app has its own",
        ),
        ("{home: {built_in: files, share: public}}", "dev.yaml:1: apps.home.share", "is its owner's"),
        (
            "{home: {start: '@files', listen: {socket: auto}}}",
            "dev.yaml:1: apps.home.start",
            "a command does not begin with @",
        ),
        ("{lab: {listen: {port: auto}}}", "dev.yaml:1: apps.lab.listen", "auto needs `start`"),
        (
            "{lab: {listen: {port: 1}, restart: always}}",
            "dev.yaml:1: apps.lab.restart",
            "this has a meaning only with `start`",
        ),
        (
            "{lab: {listen: {port: 1}, start: x, account: eve}}",
            "dev.yaml:1: apps.lab.account",
            "eve is none of `accounts`",
        ),
        (
            "{lab: {listen: {port: 1}, start: x, ready: {path: api}}}",
            "dev.yaml:1: apps.lab.ready.path",
            "not of the form",
        ),
        (
            "{lab: {listen: {port: 1}, start: x, workdir: src}}",
            "dev.yaml:1: apps.lab.workdir",
            "not of the form",
        ),
        ("{lab: {listen: {port: 1}, cors: [no-app]}}", "dev.yaml:1: apps.lab.cors", "has no app no-app"),
        ("{lab: {listen: {port: 1}, cors: ['*']}}", "dev.yaml:1: apps.lab.cors", "is not 3 to 20"),
        ("{lab: {listen: {port: 1}, embed: ['*']}}", "dev.yaml:1: apps.lab.embed", "neither an app"),
        (
            "{lab: {listen: {port: 1}, embed: ['https://a b']}}",
            "dev.yaml:1: apps.lab.embed",
            "neither an app",
        ),
        ("{lab: {listen: {port: 1}, host_header: x}}", "dev.yaml:1: apps.lab.host_header", "'local'"),
        ("{lab: {listen: {port: 1}, icon: 'http://x/y'}}", "dev.yaml:1: apps.lab.icon", "neither the name"),
        (
            "{lab: {listen: {port: 1}, share: everyone}}",
            "dev.yaml:1: apps.lab.share",
            "'owner', 'authenticated' or 'public'",
        ),
        ("{lab: {listen: {port: 1}, share: {users: bob}}}", "dev.yaml:1: apps.lab.share.users", ""),
        ("{lab: {listen: {port: 1}, share: {level: all}}}", "dev.yaml:1: apps.lab.share.level", "'public'"),
        ("{lab: {listen: {port: 1}, share_max: all}}", "dev.yaml:1: apps.lab.share_max", "'groups'"),
        ("{lab: {listen: {port: 1}, wake: all}}", "dev.yaml:1: apps.lab.wake", "'visitors'"),
        ("{lab: {listen: {port: 1}, share: !cel \"'public'\"}}", "dev.yaml:1: apps.lab.share", ""),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, apps: str, where: str, reason: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        read(tmp_path, f"apps: {apps}")
    assert caught.value.where.startswith(where)
    assert reason in caught.value.reason


def test_an_app_with_start_is_described_to_shelld_and_dialled_by_its_name(tmp_path: Path) -> None:
    text = (
        "accounts: [svc]\n"
        "apps:\n"
        "  lab:\n"
        "    listen: {socket: auto}\n"
        "    start: jupyter lab\n"
        "    when: boot\n"
        "    restart: always\n"
        "    ready: {path: /api, within_s: 5}\n"
        "    env: {A: b}\n"
        "    account: svc\n"
        "    workdir: ~/work\n"
    )
    app = read(tmp_path, text).current().definitions["dev"].sample.apps["lab"]
    assert app.target("lab") == AppTarget("lab", "svc")
    assert app.spec("lab") == AppSpec(
        slug="lab",
        start="jupyter lab",
        env={"A": "b"},
        account="svc",
        workdir="~/work",
        port=None,
        socket="",
        restart="always",
        ready_path="/api",
        within_s=5,
    )


def test_a_port_of_its_own_choice_is_zero_for_shelld(tmp_path: Path) -> None:
    text = "apps: {lab: {listen: {port: auto}, start: x}, code: {listen: {port: 9}, start: x}}"
    apps = read(tmp_path, text).current().definitions["dev"].sample.apps
    assert (apps["lab"].spec("lab").port, apps["code"].spec("code").port) == (0, 9)
    assert apps["lab"].spec("lab").digest != apps["code"].spec("code").digest


def test_a_built_in_app_needs_neither_command_nor_address_and_may_have_any_name(tmp_path: Path) -> None:
    text = "apps:\n  files: {built_in: files}\n  work: {built_in: files, workdir: ~/work, title: Work}\n"
    apps = read(tmp_path, text).current().definitions["dev"].sample.apps
    assert apps["files"].target("files") == AppTarget("files")
    spec = apps["work"].spec("work")
    assert (spec.start, spec.socket, spec.port, spec.workdir) == ("@files", "", None, "~/work")
    assert type(apps["work"]).model_validate(apps["work"].model_dump()) == apps["work"]


def test_a_share_names_users_and_groups_and_is_written_out_as_it_was_given(tmp_path: Path) -> None:
    text = (
        "apps:\n"
        "  lab: {listen: {port: 1}, share: {users: [bob], groups: [/Team]}, share_max: groups}\n"
        "  all: {listen: {port: 2}, share: authenticated, wake: visitors}\n"
    )
    apps = read(tmp_path, text).current().definitions["dev"].sample.apps
    assert apps["lab"].share.share == Share("owner", users=("bob",), groups=("/Team",))
    assert apps["all"].share.share == Share("authenticated")
    assert (apps["lab"].share_max, apps["all"].wake) == ("groups", "visitors")
    assert apps["all"].model_dump(mode="json")["share"] == "authenticated"
    assert apps["lab"].model_dump(mode="json")["share"] == {
        "level": "owner",
        "users": ["bob"],
        "groups": ["/Team"],
    }


def test_a_child_replaces_the_users_of_a_share_and_never_adds_to_them(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "abstract: true\napps: {lab: {listen: {port: 1}, share: {users: [bob, carol], groups: [all]}}}"
    )
    text = "template: base\napps: {lab: {share: {users: [bob], groups: []}}}"
    apps = read(tmp_path, text).current().definitions["dev"].sample.apps
    assert apps["lab"].share.share == Share(users=("bob",))
