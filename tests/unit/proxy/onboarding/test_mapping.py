from typing import Any

import pytest

from proxy.errors import SettingsError
from proxy.errors.login import ProviderMisconfigured
from proxy.onboarding.mapping import ClaimMapping, MappedFields
from proxy.settings.onboarding import MappingSettings

CLAIMS: dict[str, Any] = {
    "preferred_username": "Alice",
    "name": "Alice Liddell",
    "email": "alice@corp.example",
    "email_verified": True,
    "groups": ["acme", "acme/platform"],
    "employee": 4711,
}


def mapping(**expressions: str) -> ClaimMapping:
    return ClaimMapping("idp", "oidc", MappingSettings(**expressions))


def test_defaults_of_openid() -> None:
    assert mapping().apply(CLAIMS) == MappedFields(
        "alice", "Alice Liddell", "alice@corp.example", ("acme", "acme/platform"), None, None
    )


def test_what_is_missing_is_empty() -> None:
    assert mapping().apply({"preferred_username": "bob"}) == MappedFields("bob", "", "", (), None, None)


def test_nulls_are_empty() -> None:
    claims = {"preferred_username": "bob", "name": None, "email": None, "groups": None}
    assert mapping().apply(claims) == MappedFields("bob", "", "", (), None, None)


@pytest.mark.parametrize("verified", [False, None, "false", 1, "yes"])
def test_an_unverified_address_is_none(verified: object) -> None:
    assert mapping().apply({**CLAIMS, "email_verified": verified}).email == ""


@pytest.mark.parametrize(
    ("field", "expression", "expected"),
    [
        ("name", "claims.email.split('@')[0]", "alice"),
        ("name", "claims.preferred_username.lowerAscii().replace('.', '-')", "alice"),
        ("name", "has(claims.nick) ? claims.nick : claims.preferred_username", "alice"),
        ("uid", "100000 + claims.employee", 104_711),
        ("uid", "claims.employee > 5000 ? claims.employee : 5000", 5000),
        ("groups", "claims.groups.filter(g, !g.contains('/'))", ("acme",)),
        ("groups", "claims.groups.map(g, 'x-' + g)", ("x-acme", "x-acme/platform")),
        ("groups", "'one'", None),
        ("keys", "['ssh-ed25519 AAAA']", ("ssh-ed25519 AAAA",)),
        ("full_name", "claims.name + ' (' + claims.preferred_username + ')'", "Alice Liddell (Alice)"),
    ],
)
def test_expressions(field: str, expression: str, expected: object) -> None:
    if expected is None:
        with pytest.raises(SettingsError, match=r"mapping\.groups of provider idp: gives STRING"):
            mapping(**{field: expression})
        return
    assert getattr(mapping(**{field: expression}).apply(CLAIMS), field) == expected


@pytest.mark.parametrize(
    ("field", "expression"),
    [
        ("name", "claims.preferred_username ++"),
        ("name", "user.name"),
        ("name", "claims.name.nonsense()"),
        ("name", "1 + 1"),
        ("uid", "'x'"),
        ("groups", "true"),
        ("email", "claims.email == 'x'"),
        ("name", "(" * 500 + "'a'" + ")" * 500),
    ],
)
def test_a_bad_expression_is_named_at_start(field: str, expression: str) -> None:
    with pytest.raises(SettingsError, match=rf"mapping\.{field} of provider idp"):
        mapping(**{field: expression})


def test_every_bad_expression_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        mapping(name="1", email="2")
    assert "mapping.name" in str(caught.value)
    assert "mapping.email" in str(caught.value)


@pytest.mark.parametrize(
    ("expressions", "claims"),
    [
        ({}, {}),
        ({}, {"preferred_username": 5}),
        ({}, {"preferred_username": "x" * 2_000}),
        ({}, {"preferred_username": "a", "groups": [1]}),
        ({}, {"preferred_username": "a", "groups": ["g"] * 2_001}),
        ({}, {"preferred_username": "a", "groups": {"b": 1}}),
        ({"uid": "claims.uid"}, {"preferred_username": "a", "uid": 0}),
        ({"uid": "claims.uid"}, {"preferred_username": "a", "uid": 2**31}),
        ({"uid": "claims.uid"}, {"preferred_username": "a", "uid": "hush-5"}),
        ({"name": "claims.hush + claims.n"}, {"hush": "hush-hush", "n": 1}),
        ({"name": "claims.m[claims.hush]"}, {"hush": "hush-hush", "m": {}}),
        ({"keys": "claims.keys"}, {"preferred_username": "a", "keys": ["x" * 20_000]}),
    ],
)
def test_claims_that_do_not_fit_name_the_setting_and_no_value(
    expressions: dict[str, str], claims: dict[str, Any]
) -> None:
    with pytest.raises(ProviderMisconfigured) as caught:
        mapping(**expressions).apply(claims)
    assert "mapping." in str(caught.value)
    assert "hush-" not in str(caught.value)
    assert "mapping" not in caught.value.user_message


def test_a_runaway_expression_ends() -> None:
    ten = "[0,1,2,3,4,5,6,7,8,9]"
    loops = "".join(f"{ten}.all({name}, " for name in "abcdefgh") + "true" + ")" * 8
    with pytest.raises((ProviderMisconfigured, SettingsError)):
        mapping(name=f"{loops} ? 'a' : 'b'").apply(CLAIMS)


def test_a_regular_expression_runs_in_linear_time() -> None:
    claims = {"preferred_username": "a" * 900}
    assert mapping(name="claims.preferred_username.matches('(a*)*b') ? 'y' : 'n'").apply(claims).name == "n"


def test_a_full_name_reaches_no_terminal_raw() -> None:
    claims = {"preferred_username": "a", "name": "Eve\x1b[2J\u202e\n"}
    assert mapping().apply(claims).full_name == "Eve[2J"


def test_a_single_text_counts_as_a_list_of_one() -> None:
    assert mapping().apply({"preferred_username": "a", "groups": "acme"}).groups == ("acme",)
