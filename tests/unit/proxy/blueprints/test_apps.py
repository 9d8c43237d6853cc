from pathlib import Path

import pytest

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.sources import read_directory
from proxy.errors.blueprints import BlueprintInvalid
from proxy.model import TcpTarget, UnixTarget


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
    assert (apps["lab"].title, apps["lab"].share, apps["lab"].listen.target) == (
        "Lab",
        "public",
        TcpTarget("localhost", 8888),
    )
    assert (apps["code"].title, apps["code"].share) == ("", "owner")
    assert apps["code"].listen.target == UnixTarget("/run/c")


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
        ("{lab: {listen: {port: 1}, share: everyone}}", "dev.yaml:1: apps.lab.share", "'owner' or 'public'"),
        ("{lab: {listen: {port: 1}, start: x}}", "dev.yaml:1: apps.lab.start", "there is no such field"),
        ("{lab: {listen: {port: 1}, share: !cel \"'public'\"}}", "dev.yaml:1: apps.lab.share", ""),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, apps: str, where: str, reason: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        read(tmp_path, f"apps: {apps}")
    assert caught.value.where.startswith(where)
    assert reason in caught.value.reason
