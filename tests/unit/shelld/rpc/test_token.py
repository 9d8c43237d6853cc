"""Tokens: what is let through, and why not."""

import base64
import hashlib
import hmac
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelld.errors import Unauthenticated
from shelld.rpc.token import MAX_KEYS, Caller, read_keys, verify

KEY = b"k" * 32
NOW = 1_800_000_000


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def sign(header: object, claims: object, key: bytes = KEY) -> str:
    body = f"{part(header)}.{part(claims)}"
    signature = hmac.new(key, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def token(header: object = None, **claims: Any) -> str:
    whole = {"sub": "alice", "aud": "ws1", "iat": NOW, "exp": NOW + 300, **claims}
    return sign(
        header or {"alg": "HS256"}, {name: value for name, value in whole.items() if value is not None}
    )


def check(text: str, user: str = "alice") -> Caller:
    return verify(text, keys=(os.urandom(32), KEY), workspace="ws1", user=user, now_s=NOW)


def test_good_tokens() -> None:
    assert check(token()) == Caller("alice", "")
    assert check(token(acct="dev")) == Caller("alice", "dev")
    assert check(token(aud=["other", "ws1"])) == Caller("alice", "")
    assert check(token(sub="bob"), user="") == Caller("bob", "")
    assert check(token(iat=NOW + 59, exp=NOW + 600)).user == "alice"
    assert check(token(iat=NOW - 350, exp=NOW - 59)).user == "alice"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed"),
        ("a.b", "malformed"),
        ("a.b.c.d", "malformed"),
        ("!.!.!", "malformed"),
        ("x" * 5000, "too long"),
        ("ä.b.c", "ASCII"),
        (token()[:-2] + "AA", "signature"),
        (sign({"alg": "HS256"}, {"sub": "alice"}, key=b"x" * 32), "signature"),
        (sign({"alg": "none"}, {}), "algorithm"),
        (sign({"alg": "HS512"}, {}), "algorithm"),
        (sign({"alg": "HS256", "crit": ["exp"]}, {}), "algorithm"),
        (sign([], {}), "malformed"),
        (sign({"alg": "HS256"}, []), "malformed"),
        (token(exp=None), "iat and exp"),
        (token(iat=None), "iat and exp"),
        (token(exp="soon"), "iat and exp"),
        (token(exp=True), "iat and exp"),
        (token(exp=NOW - 61, iat=NOW - 100), "expired"),
        (token(iat=NOW + 61, exp=NOW + 300), "future"),
        (token(exp=NOW + 601), "too long"),
        (token(aud="ws2"), "another workspace"),
        (token(aud=None), "another workspace"),
        (token(aud={"ws1": 1}), "another workspace"),
        (token(sub=""), "without a user"),
        (token(sub=["alice"]), "without a user"),
        (token(acct=7), "without a user"),
        (token(sub="mallory"), "another user"),
    ],
)
def test_bad_tokens(text: str, reason: str) -> None:
    with pytest.raises(Unauthenticated, match=reason):
        check(text)


@given(st.text(max_size=200))
def test_noise_is_refused_in_one_way_only(text: str) -> None:
    with pytest.raises(Unauthenticated):
        check(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5))
def test_signed_noise_is_refused_in_one_way_only(claims: object) -> None:
    with pytest.raises(Unauthenticated):
        check(sign({"alg": "HS256"}, {"sub": claims, "aud": claims, "iat": claims, "exp": claims}))


def test_keys() -> None:
    raw = bytes(range(200, 240))
    other = bytes(range(100, 140))
    assert read_keys(base64.b64encode(raw) + b"\n") == (raw,)
    assert read_keys(base64.urlsafe_b64encode(raw)) == (raw,)
    assert read_keys(base64.b64encode(raw) + b"\n" + base64.b64encode(other)) == (raw, other)
    assert read_keys(raw) == (raw,)
    for short in (b"", b"short", b"short\nshorter"):
        with pytest.raises(ValueError, match="at least 32"):
            read_keys(short)
    with pytest.raises(ValueError, match="more than"):
        read_keys((base64.b64encode(raw) + b"\n") * (MAX_KEYS + 1))
