"""Bytes of commands and paths as text, in both programs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proxy.octets
import shelld.octets

BOTH = pytest.mark.parametrize("octets", [proxy.octets, shelld.octets], ids=["proxy", "shelld"])


@BOTH
@given(data=st.binary())
def test_every_byte_comes_back(octets: Any, data: bytes) -> None:
    assert octets.bytes_of(octets.text_of(data)) == data


@BOTH
@given(data=st.binary())
def test_what_is_shown_can_be_written_as_utf8(octets: Any, data: bytes) -> None:
    octets.shown(octets.text_of(data)).encode()


@BOTH
@pytest.mark.parametrize(
    ("data", "shown"),
    [(b"caf\xe9", r"caf\xe9"), ("café€".encode(), "café€"), (b"\xff\x80", r"\xff\x80"), (b"", "")],
)
def test_only_what_is_not_utf8_is_written_out(octets: Any, data: bytes, shown: str) -> None:
    assert octets.shown(octets.text_of(data)) == shown


@given(data=st.binary())
def test_text_is_utf8_when_its_bytes_are(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not proxy.octets.is_utf8(proxy.octets.text_of(data))
    else:
        assert proxy.octets.is_utf8(proxy.octets.text_of(data))
