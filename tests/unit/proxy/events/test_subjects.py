"""The table of subjects, and NATS' wildcards."""

import inspect

import pytest

from proxy.events import schema, subjects


def test_every_event_has_one_subject_and_every_constant_a_row() -> None:
    leaves = {
        one
        for _, one in inspect.getmembers(schema, inspect.isclass)
        if issubclass(one, schema.Event) and one is not schema.Event and not one.__name__.startswith("_")
    }
    assert set(subjects.TABLE.values()) == leaves
    assert len(subjects.TABLE) == len(leaves)
    spelled = {
        value
        for name, value in vars(subjects).items()
        if isinstance(value, str) and value.startswith("fairlead.") and not name.startswith(("_", "ALL"))
    }
    assert spelled == set(subjects.TABLE)
    assert all(subjects.subject_of(payload()) == subject for subject, payload in subjects.TABLE.items())
    assert all(subjects.matches(subjects.ALL, subject) for subject in subjects.TABLE)


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c.d", True),
        ("a.>", "a", False),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
        (">", "a", True),
        ("a.B", "a.b", False),
    ],
)
def test_matching(pattern: str, subject: str, fits: bool) -> None:
    assert subjects.matches(pattern, subject) is fits


def test_the_prefix_stands_for_the_first_word_only() -> None:
    assert subjects.to_wire("fairlead.user.*", "acme.bastion") == "acme.bastion.user.*"
    assert subjects.from_wire("acme.bastion.user.locked", "acme.bastion") == "fairlead.user.locked"
