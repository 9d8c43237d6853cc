import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.workspaces.backend import Stop
from proxy.workspaces.kubernetes import labels


@given(st.text())
def test_any_text_becomes_a_label(text: str) -> None:
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", labels.label_value(text))
    assert 0 < len(labels.label_value(text)) <= 63


def test_what_can_be_a_label_is_one_and_different_texts_stay_different() -> None:
    assert labels.label_value("alice") == "alice"
    assert len({labels.label_value(text) for text in ("a/b", "a:b", "a-b", "ä" * 80, "ä" * 81, "")}) == 6


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "..", "a" * 53])
def test_what_cannot_name_a_workspace(name: str) -> None:
    assert not labels.is_object_name(name)


def test_a_stop_is_noted_read_and_taken_away() -> None:
    stop = Stop("idle", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "nobody was there")
    noted = labels.stop_annotations(stop)
    assert labels.stop_of({"metadata": {"annotations": noted}}) == stop
    assert labels.stop_of({"metadata": {}}) is None
    assert set(labels.stop_annotations(None)) == set(noted)
    assert not any(labels.stop_annotations(None).values())
