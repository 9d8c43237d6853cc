import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from proxy.blueprints.apps import RESERVED, Slug
from proxy.userstring import UserString, canonical_key, parse
from proxy.web.origins import (
    MAX_LABEL,
    Hashed,
    HostInvalid,
    Misdirected,
    Named,
    Origins,
    Place,
    label_of,
    parse_label,
    place_id,
)

slugs = st.from_regex(r"[a-z][a-z0-9]{1,5}(?:-[a-z0-9]{1,5}){0,2}", fullmatch=True).filter(
    lambda text: 3 <= len(text) <= 20 and text not in RESERVED
)
plain = st.from_regex(r"[a-z0-9]{1,12}(?:-[a-z0-9]{1,12}){0,3}", fullmatch=True)
users = st.one_of(plain, st.from_regex(r"[a-z0-9_](?:[a-z0-9_.-]{0,126}[a-z0-9_-])?", fullmatch=True))
blueprints = st.one_of(plain, st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True))
places = st.builds(
    lambda app, user, blueprint: Place(app, UserString(user, blueprint)), slugs, users, blueprints
)

_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@given(places)
def test_every_place_has_one_dns_label(place: Place) -> None:
    label = label_of(place)
    assert len(label) <= MAX_LABEL
    assert _DNS_LABEL.fullmatch(label)
    assert label[2:4] != "--", "RFC 5891 reserves hyphens in places 3 and 4"
    parsed = parse_label(label)
    if isinstance(parsed, Named):
        assert parsed.place == place
    else:
        assert isinstance(parsed, Hashed)
        assert (parsed.app, parsed.id) == (place.app, place_id(place.workspace))


@given(places, places)
def test_two_places_never_share_a_label(one: Place, other: Place) -> None:
    assert (label_of(one) == label_of(other)) == (one == other)


@given(st.text(string.ascii_lowercase + string.digits + "-", max_size=70))
def test_a_label_that_is_read_as_form_1_is_the_label_of_its_place(text: str) -> None:
    parsed = parse_label(text)
    if isinstance(parsed, Named):
        assert label_of(parsed.place) == text


@pytest.mark.parametrize(
    ("app", "user_string", "label"),
    [
        ("lab", "alice+dev", "lab--dev--alice"),
        ("my-app", "a-b+c-d", "my-app--c-d--a-b"),
        ("lab", "0+1", "lab--1--0"),
    ],
)
def test_labels_of_form_1(app: str, user_string: str, label: str) -> None:
    assert label_of(Place(app, parse(user_string))) == label


@pytest.mark.parametrize(
    "user_string",
    [
        "alice.b+dev",
        "a--b+dev",
        "alice+de_v",
        "alice+Dev",
        "-".join(["alice"] * 10) + "+dev",
        "alice+repo=org/proj+ref=main",
        "alice+pod=ws1",
        "alice+workload=deployment/web+ns=shop",
        "alice",
    ],
)
def test_labels_of_form_2(user_string: str) -> None:
    place = Place("lab", parse(user_string))
    label = label_of(place)
    assert isinstance(parse_label(label), Hashed), label
    assert label.startswith(("lab--alice", "lab--a-b"))
    assert label_of(Place("lab", parse(user_string + ("+user=root" if "=" in user_string else "")))) == label


def test_a_place_is_told_from_others_as_its_workspace_is() -> None:
    """Both have the same name of a workspace, so both have the same label, or neither."""
    one, other = parse("alice+repo=alice/x"), parse("alice+repo=x")
    assert canonical_key(one, "dev") == canonical_key(other, "dev")
    assert place_id(one) == place_id(other)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "lab",
        "lab--dev",
        "vs--dev--alice",
        "lab--dev--alice--x",
        "lab---dev--alice",
        "-lab--dev--alice",
        "lab--dev--",
        "LAB--dev--alice",
        "lab--dev--al_ice",
        "lab--alice-0123456789012",
        "lab--abcdefghijklm",
        "x" * 64,
        "lab--dev--" + "a" * 60,
    ],
)
def test_what_is_no_label(label: str) -> None:
    assert parse_label(label) is None


ORIGINS = Origins("http", "localhost", 8022)


def test_an_origin_is_written_as_browsers_do() -> None:
    place = Place("lab", parse("alice+dev"))
    assert ORIGINS.url(place) == "http://lab--dev--alice.localhost:8022/"
    assert Origins("https", "apps.example.com", 443).url(place) == "https://lab--dev--alice.apps.example.com/"
    assert Origins("http", "apps.example.com", 80).origin("x") == "http://x.apps.example.com"


@pytest.mark.parametrize("field", [b"lab.localhost:8022", b"LAB.LocalHost:8022", b"lab.localhost.:8022"])
def test_a_host_is_read_in_every_spelling_of_it(field: bytes) -> None:
    assert ORIGINS.read(field).label == "lab"
    assert ORIGINS.read(field).name == "lab.localhost"


def test_the_port_of_the_scheme_may_be_left_out() -> None:
    origins = Origins("https", "apps.example.com", 443)
    assert origins.read(b"lab.apps.example.com").label == "lab"
    assert origins.read(b"lab.apps.example.com:443").label == "lab"


@pytest.mark.parametrize(
    "field",
    [
        b"localhost:8022",
        b"lab.localhost",
        b"lab.localhost:80",
        b"a.lab.localhost:8022",
        b"lab.localhost.evil:8022",
        b"lab.evillocalhost:8022",
        b"127.0.0.1:8022",
        b"lab.localhost:08022",
        b"xlocalhost:8022",
    ],
)
def test_another_name_is_misdirected(field: bytes) -> None:
    if field == b"lab.localhost:08022":
        assert ORIGINS.read(field).port == 8022  # the same number
        return
    with pytest.raises(Misdirected):
        ORIGINS.read(field)


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b"[::1]:8022",
        b"alice@lab.localhost:8022",
        b"lab%2elocalhost:8022",
        b"lab.localhost:",
        b"lab.localhost:x",
        b"lab.localhost:8022:1",
        b"l\xc3\xa4b.localhost:8022",
        b"lab..localhost:8022",
        b".localhost:8022",
        b"lab.localhost..:8022",
        b"lab.localhost:8022 ",
        b"lab.localhost,lab.localhost",
        b"lab.localhost/:8022",
        b"lab.localhost\t:8022",
        b"a b.localhost:8022",
        b"lab.localhost:123456",
    ],
)
def test_what_is_no_host_is_refused(field: bytes) -> None:
    with pytest.raises(HostInvalid):
        ORIGINS.read(field)


@pytest.mark.parametrize("text", ["lab", "my-app", "a1-b2-c3", "abcdefghijklmnopqrst"])
def test_slugs(text: str) -> None:
    assert TypeAdapter(Slug).validate_python(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "Lab",
        "1ab",
        "-lab",
        "lab-",
        "my--app",
        "my_app",
        "my.app",
        "läb",
        "abcdefghijklmnopqrstu",
        "terminal",
        "connect",
        "login",
        "la b",
    ],
)
def test_what_is_no_slug(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Slug).validate_python(text)
