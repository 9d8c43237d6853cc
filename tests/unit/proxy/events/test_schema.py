"""Events as CloudEvents: shape, bounds, and what cannot be said."""

import json
import re
import time
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.events import cloudevents, schema, subjects

DOCUMENT = Path(__file__).parents[4] / "docs" / "events.md"


def rendered(event: schema.Event) -> Any:
    return json.loads(cloudevents.encode(event, type_="fairlead.x", proxy_id="p1"))


def test_ids_are_uuid7_unique_and_sort_by_time() -> None:
    first = schema.new_id()
    time.sleep(0.002)
    rest = [schema.new_id() for _ in range(1_000)]
    assert len(set(rest)) == 1_000
    assert all(first < later for later in rest)
    assert {(UUID(one).version, UUID(one).variant) for one in rest} == {(7, "specified in RFC 4122")}


def test_time_is_utc_in_milliseconds() -> None:
    moment = datetime(2026, 1, 1, 1, 0, 0, 1_999, tzinfo=timezone(timedelta(hours=2)))
    assert rendered(schema.UserLocked(time=moment))["time"] == "2025-12-31T23:00:00.001Z"


def test_nobody_known_means_no_subject() -> None:
    assert "subject" not in rendered(schema.AuthFailed())


def test_what_a_stranger_chose_is_bounded_and_printable() -> None:
    data = rendered(
        schema.AuthFailed(
            user="root\x1b[2J\r\n\u202eevil\udcff" + "x" * 1_000,
            client_version="\0" * 10_000,
            fingerprints=("SHA256:abc",) * 500,
        )
    )["data"]
    assert data["user"].startswith("root\ufffd[2J\ufffd\ufffd\ufffdevil\ufffdxxx")
    assert len(data["user"]) == cloudevents.MAX_TEXT
    assert data["user"].endswith("…")
    assert data["client_version"] == "\ufffd" * (cloudevents.MAX_TEXT - 1) + "…"
    assert len(data["fingerprints"]) == cloudevents.MAX_ITEMS


def test_reasons_and_methods_are_words_and_fingerprints_are_fingerprints() -> None:
    data = rendered(
        schema.AuthFailed(
            reasons=("key_unknown", "token is ghp_16C7e42F292c6912E7710c838347Ae178B4a", "WDJB-MJHT", ""),
            methods=("publickey", "pass word"),
            fingerprints=("SHA256:ok+/", "MD5:00:ff", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        )
    )["data"]
    assert data["reasons"] == ["key_unknown", "other", "other", "other"]
    assert data["methods"] == ["publickey", "other"]
    assert data["fingerprints"] == ["SHA256:ok+/", "MD5:00:ff", ""]


def test_no_field_could_hold_a_secret() -> None:
    names = {item.name for payload in subjects.TABLE.values() for item in fields(payload)}
    assert not [name for name in names if re.search("code|token|secret|password|private|seed|cookie", name)]


@given(st.text(), st.text(), st.lists(st.text()), st.integers())
def test_whatever_is_said_is_one_line_of_ascii_json(
    user: str, version: str, items: list[str], port: int
) -> None:
    event = schema.AuthFailed(
        user=user, client_version=version, reasons=tuple(items), fingerprints=tuple(items), client_port=port
    )
    content = cloudevents.encode(event, type_="fairlead.auth.failed", proxy_id="p1")
    assert content.isascii()
    assert b"\n" not in content
    assert len(content) < 64 * 1_024
    read = cloudevents.decode(content)
    assert read is not None
    assert (read.id, read.type, read.source) == (event.id, "fairlead.auth.failed", "/fairlead/proxy/p1")
    assert read.subject == read.data["user"] == cloudevents.printable(user)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"specversion":"2.0","id":"1","type":"t"}',
        b'{"specversion":"1.0","id":1,"type":"t"}',
        b'{"specversion":"1.0","id":"1","type":"t","data":[]}',
        b'{"specversion":"1.0","id":"1"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_event_of_ours_is_none(content: bytes) -> None:
    assert cloudevents.decode(content) is None


@given(st.binary())
def test_no_bytes_break_the_reader(content: bytes) -> None:
    assert cloudevents.decode(content) is None


def test_the_document_tells_of_every_subject_and_field() -> None:
    text = DOCUMENT.read_text("utf-8")
    sections = re.findall(r"^### `(fairlead\.[\w.]+)`\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    common = {"user", "proxy_id"}
    wanted = {
        subject: {item.name for item in fields(payload)} - {"id", "time"} - common
        for subject, payload in subjects.TABLE.items()
    }
    told = {
        subject: set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) - common
        for subject, section in sections
    }
    assert told == wanted
