import pytest

from proxy.blueprints.document import read_document
from proxy.errors.blueprints import BlueprintInvalid


@pytest.mark.parametrize(
    ("data", "where", "reason"),
    [
        (b"- 1\n", "x.yaml:1", "a blueprint is a mapping"),
        (b"text", "x.yaml:1", "a blueprint is a mapping"),
        (b"\n\na: \xff\n", "x.yaml:3", "not UTF-8"),
        (b"a: 1\nb: [\n", "x.yaml:3", "expected the node content"),
        (b"a: 1\n b: 2\n", "x.yaml:2", "mapping values are not allowed"),
        (b"a: 1\nb: \x07\n", "x.yaml:2", "special characters"),
        (b"a: 1\nb:\n  c: 1\n  c: 2\n", "x.yaml:4: b.c", "given twice"),
        (b"a:\n- {1: 2}\n", "x.yaml:2: a[0]", "a name is expected"),
        (b"a: 1\n? [x]\n: 2\n", "x.yaml:2", "a name is expected"),
        (b"a: 1\n---\nb: 2\n", "x.yaml:2", "but found another document"),
        (b"a: !!python/object/apply:os.system [id]\n", "x.yaml:1: a", "the tag"),
        (b"a: !!binary aGk=\n", "x.yaml:1: a", "the tag"),
        (b"a: !mine x\n", "x.yaml:1: a", "the tag"),
        (b"a: *none\n", "x.yaml:1", "undefined alias"),
        (b'a: "\\ud800"\n', "x.yaml:1: a", "surrogate"),
        (b"a: &a [*a]\n", "x.yaml", "nested too deeply"),
        (b"[" * 5_000, "x.yaml", "nested too deeply"),
    ],
)
def test_refuses_with_a_place(data: bytes, where: str, reason: str) -> None:
    with pytest.raises(BlueprintInvalid) as caught:
        read_document(data, "x.yaml")
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_anchors_in_anchors_cannot_grow_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(BlueprintInvalid, match="anchors in anchors"):
        read_document("\n".join(lines).encode(), "x.yaml")


def test_plain_values_keep_their_lines() -> None:
    document = read_document(b"a: 1\nb:\n- x\n- {c: 2020-01-01}\nd: &d [1.5, true, null]\ne: *d\n", "x.yaml")
    assert document.content == {
        "a": 1,
        "b": ["x", {"c": "2020-01-01"}],
        "d": [1.5, True, None],
        "e": [1.5, True, None],
    }
    assert document.where(("b", 1, "c")) == "x.yaml:4: b[1].c"
    assert document.where(("b", 1, "missing", "more")) == "x.yaml:4: b[1].missing.more"
    assert document.where(()) == "x.yaml:1"
