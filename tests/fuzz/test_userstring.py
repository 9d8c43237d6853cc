"""No text, however strange, gets anything but a value or UserStringInvalid out of the parser."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors.login import UserStringInvalid
from proxy.userstring import (
    KEYS,
    MAX_CHARACTERS,
    UserString,
    canonical_key,
    format_user_string,
    parse,
    workspace_name,
    wrap,
)

# Mostly made of what the grammar is made of, since plain noise dies at the first character.
_PIECES = st.one_of(
    st.sampled_from(
        ["+", "~", "=", "%", "%2B", "%3D", "%7E", "%40", "%2F", "/", "..", "-", "b64-", "base64-"]
    ),
    st.sampled_from([f"+{key}=" for key in KEYS]),
    st.sampled_from(["alice", "dev", "main", "deployment/web", "Org/Proj", "ws-1"]),
    st.text(max_size=8),
)
_TEXTS = st.one_of(st.text(max_size=200), st.lists(_PIECES, max_size=20).map("".join))
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def _check(text: str) -> None:
    try:
        value = parse(text)
    except UserStringInvalid as exc:
        refused = exc
    else:
        _check_value(value)
        return
    assert 0 <= refused.position <= len(refused.text)
    assert refused.user_message


def _check_value(value: UserString) -> None:
    written = format_user_string(value)
    assert parse(written) == value
    assert parse(wrap(written) if not written.startswith("b64-") else written) == value
    assert canonical_key(value, "dev")
    name = workspace_name(value, "dev")
    if not value.pod:
        assert _LABEL.fullmatch(name)
        assert len(name) <= 51


@given(_TEXTS)
def test_reads_or_refuses(text: str) -> None:
    _check(text)


@given(_TEXTS)
def test_reads_or_refuses_what_is_wrapped(text: str) -> None:
    _check(wrap(text))


_names = st.from_regex(r"[a-z0-9_]([a-z0-9_.-]{0,10}[a-z0-9_-])?", fullmatch=True)
_words = st.text(
    st.characters(min_codepoint=33, exclude_categories=("C", "Z")), min_size=1, max_size=10
).filter(lambda text: text.isprintable() and not text.startswith("-") and ".." not in text)
_accounts = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}", fullmatch=True) | st.just("")
_dns = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?", fullmatch=True)
_repos = st.from_regex(r"[A-Za-z0-9_][\w-]{0,10}/[A-Za-z0-9_][\w-]{0,10}", fullmatch=True).filter(str.isascii)
_values = st.one_of(
    st.builds(UserString, user=_names, blueprint=_words | st.just(""), account=_accounts),
    st.builds(UserString, user=_names, pod=_dns, account=_accounts),
    st.builds(UserString, user=_names, repo=_repos, ref=_words | st.just(""), account=_accounts),
    st.builds(
        UserString,
        user=_names,
        blueprint=_words | st.just(""),
        workload=_dns.map(lambda name: f"statefulset/{name}"),
        ns=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True),
    ),
)


@given(_values)
def test_what_is_written_is_read_back(value: UserString) -> None:
    written = format_user_string(value)
    if len(written) <= MAX_CHARACTERS or written.startswith("b64-"):
        assert parse(written) == value


@pytest.mark.slow
@given(_TEXTS)
def test_reads_or_refuses_at_length(text: str) -> None:
    """The same as above with as many examples as the profile `deep` asks for."""
    _check(text)
    _check(wrap(text))
