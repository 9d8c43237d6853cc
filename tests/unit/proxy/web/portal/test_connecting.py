"""Ways to connect, as they are copied."""

from urllib.parse import parse_qs

import pytest

from proxy.userstring import parse
from proxy.web.portal.connecting import Reached, alias_of, ways

HERE = Reached("ssh.example.com", 22)


def test_the_port_is_named_where_it_is_not_that_of_ssh() -> None:
    assert ways(parse("alice+dev"), HERE).command == "ssh alice+dev@ssh.example.com"
    assert "Port" not in ways(parse("alice+dev"), HERE).block
    other = ways(parse("alice+dev"), Reached("ssh.example.com", 2222))
    assert other.command == "ssh -p 2222 alice+dev@ssh.example.com"
    assert "    Port 2222\n" in other.block


@pytest.mark.parametrize(
    ("text", "alias"),
    [
        ("alice+dev", "fairlead-dev"),
        ("alice+repo=org/proj+ref=feature/x", "fairlead-org-proj-feature-x"),
        ("alice+pod=alice-0123456789", "fairlead-alice-0123456789"),
        ("alice+workload=deployment/web+ns=shop", "fairlead-deployment-web"),
        ("alice+my%2Bdev", "fairlead-my-dev"),
    ],
)
def test_an_alias_is_one_plain_word(text: str, alias: str) -> None:
    assert alias_of(parse(text)) == alias


def test_a_link_carries_a_user_string_that_the_login_understands() -> None:
    gateway = ways(parse("alice+repo=org/proj"), HERE).jetbrains
    given = parse_qs(gateway.partition("#")[2])
    assert (given["type"], given["host"], given["port"]) == (["ssh"], ["ssh.example.com"], ["22"])
    assert parse(given["user"][0]) == parse("alice+repo=org/proj")
    assert ways(parse("alice+dev"), HERE).vscode == "vscode://vscode-remote/ssh-remote+fairlead-dev/"
