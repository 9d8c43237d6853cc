"""Forward rules: what is permitted, and to which address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelld.forwards import rules


def dial(rule: str, name: str, address: str, port: int) -> bool:
    return rules.may_dial([rules.parse_tcp(rule)], name, address, port)


@pytest.mark.parametrize(
    ("rule", "name", "address", "port", "expected"),
    [
        ("*:*", "anything", "192.0.2.1", 1, True),
        ("*:443", "anything", "192.0.2.1", 80, False),
        ("localhost:*", "LOCALHOST.", "127.0.0.1", 80, True),
        ("localhost:*", "rebound.example", "127.0.0.1", 80, False),
        ("*.internal:8000-8080", "db.internal", "10.0.0.1", 8080, True),
        ("*.internal:8000-8080", "db.internal", "10.0.0.1", 8081, False),
        ("10.0.0.0/8:*", "whatever.name", "10.255.0.1", 9, True),
        ("10.0.0.0/8:*", "10.looks.like.it", "11.0.0.1", 9, False),
        ("10.0.0.0/8:*", "mapped", "::ffff:10.0.0.1", 9, True),
        ("127.0.0.1:22", "localhost", "127.0.0.1", 22, True),
        ("[::1]:22", "localhost", "::1", 22, True),
        ("[fd00::/8]:22", "v6", "fd12::1", 22, True),
        ("[fe80::/10]:22", "link", "fe80::1%eth0", 22, True),
        ("[::1]:22", "localhost", "127.0.0.1", 22, False),
    ],
)
def test_dial(rule: str, name: str, address: str, port: int, *, expected: bool) -> None:
    assert dial(rule, name, address, port) is expected


def test_no_rule_permits_nothing() -> None:
    assert not rules.may_dial([], "localhost", "127.0.0.1", 80)
    assert not rules.may_bind([], "localhost", 80)
    assert not rules.may_use_path([], "/run/x")


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", ":80", "host:x", "host:90-80", "host:70000", "1.2.3.4/99:1", "a::b:1x"]
)
def test_bad_rule_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="holds"):
        rules.parse_tcp(text)


@pytest.mark.parametrize(
    ("rule", "host", "port", "expected"),
    [
        ("localhost:*", "127.0.0.1", 8080, True),
        ("localhost:*", "::1", 0, True),
        ("localhost:*", "", 8080, False),
        ("localhost:*", "*", 8080, False),
        ("localhost:*", "0.0.0.0", 8080, False),
        ("localhost:8000-9000", "localhost", 7000, False),
        ("*:*", "", 8080, True),
        ("*:8080", "0.0.0.0", 8081, False),
        ("192.0.2.0/24:*", "192.0.2.7", 80, True),
        ("192.0.2.0/24:*", "192.0.3.7", 80, False),
        ("0.0.0.0/0:*", "", 80, False),
    ],
)
def test_bind(rule: str, host: str, port: int, *, expected: bool) -> None:
    assert rules.may_bind([rules.parse_tcp(rule)], host, port) is expected


def test_path_is_judged_where_it_leads() -> None:
    assert rules.may_use_path(["/run/user/*"], "/run/user/1000/bus")
    assert not rules.may_use_path(["/run/user/*"], "/run/user/../docker.sock")
    assert not rules.may_use_path(["/run/user/*"], "/run/docker.sock")


@given(st.text(max_size=40))
def test_parsing_fails_in_one_way_only(text: str) -> None:
    try:
        rule = rules.parse_tcp(text)
    except ValueError:
        return
    assert 0 <= rule.low <= rule.high <= 65535
