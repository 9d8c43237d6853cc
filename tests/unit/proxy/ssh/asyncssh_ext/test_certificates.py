from pathlib import Path

import asyncssh
import pytest

from proxy.errors import SettingsError
from proxy.ssh.asyncssh_ext.certificates import read_authorities


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("ssh-rsa", {"key_size": 1024}, "1024 bits is too weak"),
        ("ssh-dss", {}, "DSA keys are too weak"),
        ("ssh-ed448", {}, "no key algorithm"),
    ],
)
def test_the_key_of_an_authority_is_as_strong_as_a_user_s(
    tmp_path: Path, kind: str, options: dict[str, int], reason: str
) -> None:
    file = tmp_path / "ca.pub"
    asyncssh.generate_private_key(kind, **options).write_public_key(file)
    with pytest.raises(SettingsError, match=rf"identity.trusted_user_ca_keys: {file}: .*{reason}"):
        read_authorities([file])


def test_strong_authorities_are_read(tmp_path: Path) -> None:
    keys = [asyncssh.generate_private_key(kind) for kind in ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256")]
    file = tmp_path / "ca.pub"
    file.write_text("".join(key.export_public_key().decode() for key in keys))
    assert read_authorities([file]) == {key.public_data for key in keys}
