"""The chain: whole it holds; whatever is changed, left out, put in or cut off is found, and where."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import SettingsError
from proxy.recording import signing
from proxy.recording.chain import Chain, Verifier, line_splitter
from proxy.recording.lines import event_line
from proxy.recording.signing import Keyring, SigningKey, load_or_create


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return load_or_create(tmp_path_factory.mktemp("key") / "key")


def sealed(key: SigningKey, blocks: int = 3, recording: str = "r1") -> list[bytes]:
    chain = Chain(recording, key)
    return [
        chain.seal(b"".join(event_line(at, "o", f"block {at} line {i}\n") for i in range(3)), at)
        for at in range(blocks)
    ]


def verify(key: SigningKey, body: bytes, recording: str = "r1") -> Verifier:
    verifier = Verifier(recording, Keyring([key.public]), key.public.fingerprint)
    feed = line_splitter(verifier.feed, 1_000)
    feed(body)
    feed(b"")
    return verifier


def test_what_was_sealed_holds(key: SigningKey) -> None:
    body = b"".join(sealed(key))
    verifier = verify(key, body)
    assert verifier.broken is None
    assert (verifier.blocks, verifier.size, verifier.open_bytes) == (3, len(body), 0)


@given(st.data())
def test_no_byte_can_be_changed_unseen(key: SigningKey, data: st.DataObject) -> None:
    body = bytearray(b"".join(sealed(key)))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    verifier = verify(key, bytes(body))
    assert verifier.broken is not None or verifier.open_bytes, at


def test_a_block_left_out_is_found_where_it_was(key: SigningKey) -> None:
    first, _second, third = sealed(key)
    verifier = verify(key, first + third)
    assert verifier.broken
    assert (verifier.broken.block, verifier.blocks) == (2, 1)


def test_blocks_in_another_order_are_found(key: SigningKey) -> None:
    first, second, third = sealed(key)
    assert verify(key, first + third + second).broken


def test_a_line_put_in_is_found(key: SigningKey) -> None:
    first, second, third = sealed(key)
    verifier = verify(key, first + event_line(1, "o", "forged") + second + third)
    assert verifier.broken
    assert verifier.broken.block == 2


def test_a_cut_leaves_a_shorter_chain(key: SigningKey) -> None:
    first, second, third = sealed(key)
    verifier = verify(key, first + second + third[:-10])
    assert verifier.broken is None
    assert verifier.blocks == 2
    assert verifier.open_bytes == len(third) - 10


def test_a_chain_made_anew_lacks_our_signature(key: SigningKey, tmp_path: Path) -> None:
    forged = b"".join(sealed(load_or_create(tmp_path / "theirs")))
    verifier = verify(key, forged)
    assert verifier.broken
    assert "signature" in verifier.broken.reason


def test_a_block_of_another_recording_is_found(key: SigningKey) -> None:
    assert verify(key, b"".join(sealed(key, recording="r2"))).broken


def test_a_line_without_end_is_held_in_bounded_memory(key: SigningKey) -> None:
    sizes: list[int] = []
    feed = line_splitter(lambda line: sizes.append(len(line)), 1_000)
    for _ in range(100):
        feed(bytes(700))
    assert max(sizes) <= 1_700


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "key"
    made = load_or_create(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_or_create(file).public.fingerprint == made.public.fingerprint
    assert [path.name for path in file.parent.iterdir()] == ["key"]


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_holds_no_key_is_said_to(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match="Ed25519"):
        load_or_create(file)
    with pytest.raises(SettingsError, match="Ed25519"):
        signing.load_public(file)
