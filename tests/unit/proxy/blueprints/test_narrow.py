"""A rule that is called narrower permits nothing more, by shelld's own judgement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.blueprints.narrow import path_within, tcp_within
from shelld.forwards import rules as shelld

NETWORKS = ["10.1.2.3", "10.0.0.0/8", "10.1.0.0/16", "127.0.0.1", "[::1]", "[2001:db8::/32]"]
HOSTS = ["*", "localhost", "db.internal", "*.internal", "DB.internal", "d?", "[ab]*", *NETWORKS]
PORTS = ["*", "22", "1-1023", "443", "1024-65535"]
tcp = st.builds(lambda host, port: f"{host}:{port}", st.sampled_from(HOSTS), st.sampled_from(PORTS))
NAMES = ["localhost", "db.internal", "x.internal", "evil.example", "10.1.2.3", "da", "127.0.0.1", ""]
ADDRESSES = ["10.1.2.3", "10.200.0.1", "127.0.0.1", "192.0.2.1", "::1", "2001:db8::5"]


@given(
    tcp,
    st.lists(tcp, max_size=3),
    st.sampled_from(NAMES),
    st.sampled_from(ADDRESSES),
    st.sampled_from([0, 22, 80, 443, 1024]),
)
def test_a_narrower_rule_permits_no_address_more(
    rule: str, rules: list[str], name: str, address: str, port: int
) -> None:
    if not tcp_within(rule, rules):
        return
    inner, outer = [shelld.parse_tcp(rule)], [shelld.parse_tcp(one) for one in rules]
    assert not shelld.may_dial(inner, name, address, port) or shelld.may_dial(outer, name, address, port)
    assert not shelld.may_bind(inner, name, port) or shelld.may_bind(outer, name, port)


GLOBS = [
    "*",
    "/run/*",
    "/run/docker.sock",
    "/run/x/y",
    "/run/../etc/x",
    "/tmp/*.sock",
    "/tmp/a.sock",
    "/tmp/?",
]
PATHS = ["/run/docker.sock", "/run/x/y", "/etc/x", "/tmp/a.sock", "/tmp/../run/docker.sock", "/tmp/b"]


@given(st.sampled_from(GLOBS), st.lists(st.sampled_from(GLOBS), max_size=3), st.sampled_from(PATHS))
def test_a_narrower_glob_permits_no_path_more(glob: str, globs: list[str], path: str) -> None:
    if path_within(glob, globs):
        assert not shelld.may_use_path([glob], path) or shelld.may_use_path(globs, path)


@pytest.mark.parametrize(
    ("rule", "rules"),
    [
        ("db:22", ["*:*"]),
        ("db:22", ["other:1", "db:1-1023"]),
        ("x.internal:443", ["*.internal:443"]),
        ("10.1.0.0/16:22", ["10.0.0.0/8:*"]),
        ("10.1.2.3:22", ["10.0.0.0/8:*"]),
        ("*.internal:1", ["*.internal:*"]),
    ],
)
def test_what_is_plainly_narrower_is(rule: str, rules: list[str]) -> None:
    assert tcp_within(rule, rules)


def test_paths_that_are_plainly_within_are() -> None:
    assert path_within("/run/docker.sock", ["/run/*"])
    assert path_within("/run/*", ["/run/*"])
    assert path_within("/tmp/*", ["*"])
