"""Which cookies are ours, judged by bytes."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.cookies import CookieNames, parse, trim

HERE = CookieNames("login", is_secure=False)
SECURE = CookieNames("login", is_secure=True)
VALUE = "v" * 43
STEM = "__Host-Http-fairlead-login"


def test_names_have_the_prefix_over_https_and_none_over_http() -> None:
    assert SECURE.name() == "__Host-Http-fairlead-login"
    assert SECURE.name("visit-01234567") == "__Host-Http-fairlead-login-visit-01234567"
    assert HERE.name() == "fairlead-login"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (f"fairlead-login={VALUE}", VALUE),
        (f"a=b;fairlead-login={VALUE};c=d", VALUE),
        (f" \t fairlead-login \t= \t{VALUE}\t ", VALUE),
        (f"fairlead-login={VALUE}; fairlead-login={VALUE}", ""),
        (f"fairlead-login={VALUE}; fairlead-login=", ""),
        (f"fairlead-login=={VALUE}", ""),
        (f"=fairlead-login={VALUE}", ""),
        (f"fairlead-login-x={VALUE}", ""),
        (f"Fairlead-login={VALUE}", ""),
        (f'fairlead-login="{VALUE}"', ""),
        (f"fairlead-login={VALUE}\x0b", ""),
        ("fairlead-login", ""),
        ("fairlead-login=short", ""),
        (f"fairlead-login={'v' * 101}", ""),
        ("", ""),
        (";;=;", ""),
    ],
)
def test_a_value_is_read_once_and_exactly(field: str, value: str) -> None:
    assert HERE.value([field.encode()]) == value


def test_cookies_of_two_fields_count_together() -> None:
    assert HERE.value([b"a=b", f"fairlead-login={VALUE}".encode()]) == VALUE
    assert HERE.value([f"fairlead-login={VALUE}".encode()] * 2) == ""


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_nothing_that_python_calls_a_space_makes_a_name_ours(encoding: str) -> None:
    blanks = [
        chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace() and chr(code) not in " \t"
    ]
    assert len(blanks) > 20
    for blank in blanks:
        try:
            raw = blank.encode(encoding)
        except UnicodeEncodeError:
            continue
        for name in (raw + STEM.encode(), STEM.encode() + raw, raw + STEM.encode() + b"-visit-1" + raw):
            field = name + b"=" + VALUE.encode()
            assert SECURE.value([field]) == ""
            assert SECURE.own([field]) == []
            assert SECURE.imitation([field]) == name


@pytest.mark.parametrize(
    "name",
    [
        STEM.lower(),
        STEM.upper(),
        "__host-Http-fairlead-login-visit-01234567",
        "\u200b" + STEM,
        STEM.replace("a", "\u200da", 1),
        STEM.replace("H", "\uff28", 1),
        "__Ho\u017ft-Http-fairlead-login",
        STEM + "\u0301",
        "\ufeff" + STEM,
        STEM + "-Visit-01234567",
        "\u00ad" + STEM,
    ],
)
def test_a_name_that_is_ours_only_when_folded_is_an_imitation(name: str) -> None:
    assert SECURE.imitation([f"a=b; {name}={VALUE}".encode()]) is not None


@pytest.mark.parametrize(
    "name",
    [
        STEM,
        f"{STEM}-visit-01234567",
        f" \t{STEM}\t ",
        "fairlead-login",
        "__Host-fairlead-login",
        "_xsrf",
        "session",
        f"{STEM}x",
        f"x{STEM}",
        "ünïcode",
        "",
    ],
)
def test_ours_and_those_of_other_sites_are_none(name: str) -> None:
    assert SECURE.imitation([f"{name}={VALUE}".encode()]) is None


def test_only_ours_are_handed_to_another_replica() -> None:
    fields = [f"a=b; {STEM}={VALUE}; \xff=\xfe; {STEM}-visit-1={VALUE}; {STEM}-x=".encode("latin-1")]
    assert SECURE.slots(fields) == ["", "visit-1", "x"]
    assert SECURE.own(fields) == [(STEM, VALUE), (f"{STEM}-visit-1", VALUE)]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(field: bytes) -> None:
    for names in (HERE, SECURE):
        names.imitation([field])
        assert names.value([field]) == ""
        assert names.own([field]) == []
    assert all(trim(name) == name for name, _ in parse([field]))
