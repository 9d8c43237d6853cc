import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.web.cookies import is_ours, set_by_app, without_ours

OURS = [
    "__Host-Http-fairlead",
    "__Host-Http-fairlead-login",
    "__Host-Http-fairlead-pre-a1B2c3D4",
    "fairlead",
    "fairlead-login",
    "fairlead-pre-a1B2c3D4",
]
LOOK_ALIKES = [
    "fairleader",
    "xfairlead",
    "fairlead2",
    "fairlead-theme",
    "fair-lead",
    "fairlead-pre",
    "fairlead.",
    "__Host-fairlead",
    "__Secure-fairlead",
    "__Host-Http-fairlead-x",
    "__Host-Http--fairlead",
    "f-a-i-r-l-e-a-d",
    "my fairlead",
]
BLANKS = [chr(point) for point in range(sys.maxunicode + 1) if chr(point).isspace()]
SPELLINGS = [
    *OURS,
    *(name.upper() for name in OURS),
    *(name.lower() for name in OURS),
    *(name.title() for name in OURS),
    *(f" {name}" for name in OURS[:4]),
    *(f"{name} " for name in OURS[:4]),
    *(f"\t{name}\t" for name in OURS[:4]),
    *(f'"{name}"' for name in OURS[:4]),
]


def test_there_are_enough_spellings() -> None:
    assert len(set(SPELLINGS)) >= 35
    assert len(BLANKS) >= 25


@pytest.mark.parametrize("name", sorted(set(SPELLINGS)))
@pytest.mark.parametrize(
    "field", ["{}=secret", "a=b; {}=secret", "{}=secret; a=b", "a=b;{}=secret;c=d", "{}", "a=b; {}"]
)
def test_no_spelling_of_ours_reaches_an_app(name: str, field: str) -> None:
    left = without_ours(field.format(name).encode())
    assert b"secret" not in left
    assert b"airlead" not in left.lower()
    assert (b"a=b" in left) == ("a=b" in field)
    assert (b"c=d" in left) == ("c=d" in field)


@pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: f"U+{ord(blank):04X}")
@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
def test_no_code_point_that_python_calls_a_space_hides_a_name(blank: str, coding: str) -> None:
    try:
        byte = blank.encode(coding)
    except UnicodeEncodeError:
        return
    for name in (byte + b"fairlead", b"fairlead" + byte, byte + b"__Host-Http-fairlead" + byte):
        assert is_ours(name), name
        assert without_ours(b"a=b;" + name + b"=secret") == b"a=b"


def test_no_other_character_folds_to_a_letter_of_ours() -> None:
    """`without_ours` looks for the ASCII letters only. A ligature folds to two letters."""
    others = (chr(point) for point in range(0x80, sys.maxunicode + 1))
    folding = [character for character in others if character.casefold() in "fairlead"]
    assert folding == []


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_reach_the_app(name: str) -> None:
    field = f"a=b; {name}=kept; c=d".encode()
    assert without_ours(field) == field
    assert set_by_app(f"{name}=kept; Path=/".encode()) == f"{name}=kept; Path=/".encode()


@given(st.lists(st.binary(max_size=20).map(lambda part: part.replace(b";", b"")), max_size=8))
def test_all_other_bytes_stay_as_they_are(pairs: list[bytes]) -> None:
    theirs = [pair for pair in pairs if b"fairlead" not in pair.lower()]
    field = b";".join(theirs)
    assert without_ours(field) == field
    mixed = b";".join([*theirs, b" fairlead=1"])
    assert without_ours(mixed) == field.strip(b" \t")


@pytest.mark.parametrize("name", sorted(set(SPELLINGS)))
def test_an_app_cannot_set_ours(name: str) -> None:
    assert set_by_app(f"{name}=x; Path=/".encode()) is None
    assert set_by_app(name.encode()) is None


@pytest.mark.parametrize(
    ("given_", "passed"),
    [
        ("a=b; Domain=localhost", "a=b"),
        ("a=b; Path=/; domain=.apps.example.com; Secure", "a=b; Path=/; Secure"),
        ("a=b;DOMAIN = x ;HttpOnly", "a=b;HttpOnly"),
        ("a=b; Domain", "a=b"),
        ("a=b; Domain=; x", "a=b; x"),
        ("a=b; Domain=x; Domain=y", "a=b"),
        ("domain=1; Path=/", "domain=1; Path=/"),
        ("a=domain; Path=/domain=x", "a=domain; Path=/domain=x"),
        ("a=b; Domains=x", "a=b; Domains=x"),
        ("a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
    ],
)
def test_a_cookie_of_an_app_stays_on_its_host(given_: str, passed: str) -> None:
    kept = set_by_app(given_.encode())
    assert kept is not None
    assert kept.decode() == passed
