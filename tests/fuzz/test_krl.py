"""Lists of revoked keys from anywhere: an answer or WireInvalid, and nothing else can happen."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.krl import parse
from proxy.identity.sshwire import WireInvalid
from proxy.model import CertificateProof, KeyProof
from tests.unit.proxy.identity.test_krl import HEADER, section, string

CREDENTIALS = [
    KeyProof(b"key"),
    CertificateProof(b"key", authority=b"authority", serial=7, key_id="id"),
    CertificateProof(b"key", authority=b"authority", serial=2**64 - 1),
]

numbers = st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8, "big"))
blobs = st.binary(max_size=40)
inner = st.one_of(
    st.lists(numbers, max_size=5).map(lambda found: section(0x20, *found)),
    st.tuples(numbers, numbers).map(lambda found: section(0x21, *found)),
    st.tuples(numbers, blobs.map(string)).map(lambda found: section(0x22, *found)),
    st.lists(blobs.map(string), max_size=5).map(lambda found: section(0x23, *found)),
    st.tuples(st.integers(0, 255), blobs).map(lambda found: section(*found)),
)
sections = st.one_of(
    st.lists(inner, max_size=5).map(lambda found: section(1, string(b""), string(b""), *found)),
    st.tuples(st.integers(0, 255), blobs).map(lambda found: section(*found)),
    st.tuples(st.sampled_from([2, 3, 5]), st.lists(blobs.map(string), max_size=3)).map(
        lambda found: section(found[0], *found[1])
    ),
)


def answer(data: bytes) -> None:
    try:
        found = parse(data)
    except WireInvalid:
        return
    for credential in CREDENTIALS:
        assert found.revokes(credential) in (True, False)


@given(st.lists(sections, max_size=6))
def test_a_krl_of_any_sections_gets_an_answer(found: list[bytes]) -> None:
    answer(HEADER + b"".join(found))


@given(st.binary(max_size=400))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    for whole in (data, HEADER + data, b"ssh-ed25519 " + data):
        answer(whole)


@given(st.lists(sections, min_size=1, max_size=4), st.data())
def test_a_krl_that_is_cut_or_damaged_gets_an_answer(found: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(HEADER + b"".join(found))
    answer(bytes(data[: draw.draw(st.integers(0, len(data)))]))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] = draw.draw(st.integers(0, 255))
    answer(bytes(data))
