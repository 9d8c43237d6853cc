"""Files of users: three forms of one content, and every problem said at once."""

from datetime import UTC, datetime

import pytest

from proxy.cli.user_file import parse_moment, read_users
from proxy.errors.stores import IdentityError
from proxy.identity.directory import UserEntry
from proxy.identity.keys import parse_public_key
from tests.fakes.provider import new_key

FIRST, SECOND = (parse_public_key(f"{new_key()} {comment}") for comment in ("laptop", "desk"))
ALICE = {
    "full_name": "Alice Ö.",
    "email": "a@example.com",
    "uid": 4_711,
    "expires_at": datetime(2031, 12, 31, tzinfo=UTC),
    "locked": False,
    "keys": (FIRST, SECOND),
}

YAML = f"""
users:
  - name: alice
    full_name: Alice Ö.
    email: a@example.com
    uid: 4711
    expires_at: 2031-12-31
    locked: false
    keys: ["{FIRST}", "{SECOND}"]
  - name: bob
"""
JSON = f"""[
  {{"name": "alice", "full_name": "Alice Ö.", "email": "a@example.com", "uid": 4711,
    "expires_at": "2031-12-31T00:00:00Z", "locked": false, "keys": ["{FIRST}", "{SECOND}"]}},
  {{"name": "bob"}}
]"""
CSV = f"""name,full_name,email,uid,expires_at,locked,key
alice,Alice Ö.,a@example.com,4711,2031-12-31,false,{FIRST}
alice,,,,,,{SECOND}

bob,,,,,,
"""


@pytest.mark.parametrize(
    ("file", "text", "first", "second"),
    [
        ("u.yaml", YAML, "user 1", "user 2"),
        ("-", YAML, "user 1", "user 2"),
        ("u.json", JSON, "user 1", "user 2"),
        ("U.CSV", CSV, "line 2", "line 5"),
    ],
)
def test_three_forms_of_one_content(file: str, text: str, first: str, second: str) -> None:
    entries, problems = read_users(file, text)
    assert problems == []
    assert entries == [UserEntry(first, "alice", **ALICE), UserEntry(second, "bob")]  # type: ignore[arg-type]


def test_every_problem_is_said_at_once() -> None:
    entries, problems = read_users(
        "u.yaml",
        f"""
- name: Alice
- name: bob
  uid: 0
  keys: [ssh-dss AAAA, "{FIRST}"]
- full_name: nobody
- name: carol
  expires_at: soon
  shell: /bin/zsh
- name: dave
- name: dave
- just text
""",
    )
    assert [entry.name for entry in entries] == ["dave"]
    assert problems == [
        "u.yaml: user 1 (Alice): name: 'Alice' cannot be a user name: ssh would be read as user 'alice'",
        "u.yaml: user 2 (bob): uid: must be at least 1, not 0",
        "u.yaml: user 2 (bob): keys.1: DSA keys are too weak; make another with: ssh-keygen -t ed25519",
        "u.yaml: user 3: name: is missing",
        "u.yaml: user 4 (carol): expires_at: 'soon' is no date such as 2031-12-31 or 2031-12-31T18:00",
        "u.yaml: user 4 (carol): shell: there is no such field",
        "u.yaml: user 6: dave stands at user 5 already",
        "u.yaml: user 7: a user is a mapping of fields",
    ]


def test_a_further_row_of_csv_only_adds_keys() -> None:
    text = f"name,email,key\nalice,a@example.com,\nalice,b@example.com,{FIRST}\nalice,,\n"
    entries, problems = read_users("u.csv", text)
    assert [entry.keys for entry in entries] == [()]
    assert problems == [
        "u.csv: line 3: alice stands at line 2 already",
        "u.csv: line 4: alice stands at line 2 already",
    ]


@pytest.mark.parametrize(
    ("file", "text", "form", "said"),
    [
        ("u.yaml", "a: [", "", "u.yaml: while parsing"),
        ("u.yaml", "a: 1", "", "expected a list of users"),
        ("u.yaml", "", "", "expected a list of users"),
        ("u.json", "[", "", "u.json: Expecting value"),
        ("u.json", "[" * 100_000, "", "u.json: "),
        ("u.csv", "user,key\n", "", "its first line names no column 'name'"),
        ("u.csv", 'name\n"a', "", "unexpected end of data"),
        ("u.csv", "", "", "its first line names no column 'name'"),
        ("u.csv", "", "toml", "'toml' is none of yaml, json, csv"),
    ],
)
def test_what_is_no_such_file_is_one_sentence(file: str, text: str, form: str, said: str) -> None:
    with pytest.raises(IdentityError) as caught:
        read_users(file, text, form)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["name,key\nalice,a,b,c\n", "name,name\na,b\n"])
def test_odd_csv_is_a_problem_or_an_entry_but_no_crash(text: str) -> None:
    entries, problems = read_users("u.csv", text)
    assert entries or problems


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2031-12-31", datetime(2031, 12, 31, tzinfo=UTC)),
        ("2031-12-31T18:00", datetime(2031, 12, 31, 18, tzinfo=UTC)),
        ("2031-12-31T18:00+02:00", datetime(2031, 12, 31, 16, tzinfo=UTC)),
    ],
)
def test_a_moment(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment
