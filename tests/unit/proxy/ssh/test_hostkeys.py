"""Where host keys come from; how clients see them is tests/wire/test_hostkeys.py."""

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from proxy.errors import SettingsError
from proxy.ssh.hostkeys import load_or_create, read

NOBODY = 65_534


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that somebody else may read and not write; nobody may write it who is not its owner."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    mine = os.geteuid()
    try:
        yield path
    finally:
        os.seteuid(mine)
        path.chmod(0o755)
        shutil.rmtree(path)


def become_a_reader(directory: Path) -> None:
    for key in directory.iterdir():
        key.chmod(0o644)
    directory.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


def test_keys_that_cannot_be_written_are_taken_as_they_are(directory: Path) -> None:
    made = load_or_create(directory)
    for path in (*directory.glob("*.pub"), directory / "ssh_host_rsa_key"):
        path.unlink()
    become_a_reader(directory)
    assert load_or_create(directory).fingerprints == made.fingerprints[:2]


def test_none_that_could_be_read_or_made_is_an_error(directory: Path) -> None:
    become_a_reader(directory)
    with pytest.raises(SettingsError, match=f"host keys in {directory}: "):
        load_or_create(directory)


def test_a_damaged_key_is_refused_by_name(directory: Path) -> None:
    load_or_create(directory)
    damage_exponent(directory / "ssh_host_rsa_key")
    for load in (load_or_create, read):
        with pytest.raises(SettingsError, match=r"ssh_host_rsa_key is damaged"):
            load(directory)


def damage_exponent(file: Path) -> None:
    """Change one byte of the private exponent of an RSA key; the framing of the file stays whole."""
    key = load_ssh_private_key(file.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    exponent = key.private_numbers().d.to_bytes(384, "big")[-32:]
    first, *lines, last = file.read_text().splitlines()
    content = base64.b64decode("".join(lines))
    assert content.count(exponent) == 1
    damaged = content.replace(exponent, exponent[:-1] + bytes([exponent[-1] ^ 2]))
    file.write_text("\n".join((first, base64.b64encode(damaged).decode(), last, "")))
