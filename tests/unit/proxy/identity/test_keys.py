import base64
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors.stores import KeyInvalid
from proxy.identity.keys import check_blob, parse_public_key, parse_public_keys
from proxy.model import fingerprint


def _line(private: object, comment: str = "me@here") -> str:
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return f"{public.decode()} {comment}".strip()


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _encoded(algorithm: str, *parts: bytes) -> str:
    blob = b"".join(_string(part) for part in (algorithm.encode(), *parts))
    return f"{algorithm} {base64.b64encode(blob).decode()}"


ED25519 = _line(ed25519.Ed25519PrivateKey.generate())
PUBLIC = ec.generate_private_key(ec.SECP256R1()).public_key()
POINT = PUBLIC.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
COMPRESSED = PUBLIC.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


@pytest.mark.parametrize(
    "line",
    [
        ED25519,
        _line(rsa.generate_private_key(65_537, 2_048)),
        _line(ec.generate_private_key(ec.SECP256R1())),
        _line(ec.generate_private_key(ec.SECP384R1())),
        _line(ec.generate_private_key(ec.SECP521R1())),
        _encoded("sk-ssh-ed25519@openssh.com", b"\x01" * 32, b"ssh:") + " token",
        _encoded("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT, b"ssh:") + " token",
    ],
)
def test_reads_what_ssh_keygen_writes(line: str) -> None:
    key = parse_public_key(line)
    assert str(key) == line
    assert key.algorithm == line.split()[0]
    assert key.fingerprint == fingerprint(key.blob)


def test_the_fingerprint_is_what_ssh_keygen_prints(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(ED25519 + "\n")
    said = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[1] == parse_public_key(ED25519).fingerprint


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            ed25519.Ed25519PrivateKey.generate()
            .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            .decode(),
            "this is a private key",
        ),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "this is a private key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\n", "ssh-keygen -i"),
        ("-----BEGIN PUBLIC KEY-----\n", "ssh-keygen -i"),
        (_encoded("ssh-ed25519-cert-v01@openssh.com", b"x"), "certificate"),
        (_encoded("ssh-dss", b"\x01"), "DSA keys are too weak"),
        (_line(rsa.generate_private_key(65_537, 1_024)), "1024 bits is too weak"),
        (_encoded("ssh-rsa", b"\x01\x00\x01", b"\x01" + b"\x00" * 2_048 + b"\x01"), "too large"),
        (_encoded("ssh-rsa", b"\x01", b"\x01" + b"\x00" * 256 + b"\x01"), "damaged"),
        (_encoded("ssh-rsa", b"\x01\x00\x01", b"\xff" * 257), "damaged"),
        (_encoded("ssh-rsa", b"\x00\x01\x00\x01", b"\x01" + b"\x00" * 256 + b"\x01"), "needless leading"),
        (_encoded("ecdsa-sha2-nistp256", b"nistp256", COMPRESSED), "compressed"),
        ('from="10.0.0.1" ' + ED25519, "options"),
        ("restrict " + ED25519, "options"),
        ("ssh-foo AAAA", "no key algorithm"),
        ("", "no key algorithm"),
        ("ssh-ed25519", "cut short"),
        ("ssh-ed25519 A", "not base64"),
        ("ssh-ed25519 " + ED25519.split()[1][:-6] + "ü", "not base64"),
        (ED25519[:60], "cut"),
        ("ssh-rsa " + ED25519.split()[1], "does not hold what its line says"),
        (_encoded("ssh-ed25519", b"\x01" * 31), "damaged"),
        (_encoded("ssh-ed25519", b"\x01" * 32, b"more"), "after its end"),
        (_encoded("sk-ssh-ed25519@openssh.com", b"\x01" * 32), "cut short"),
        (_encoded("ecdsa-sha2-nistp256", b"nistp384", POINT), "another curve"),
        (_encoded("ecdsa-sha2-nistp256", b"nistp256", POINT[:-1] + b"\x00\x00"), "damaged"),
        ("ssh-ed25519 " + "A" * 20_000, "longer than"),
    ],
)
def test_refuses_with_a_sentence(line: str, reason: str) -> None:
    with pytest.raises(KeyInvalid, match=reason):
        parse_public_key(line)


def test_a_file_may_hold_several_keys_and_comments() -> None:
    other = _line(ed25519.Ed25519PrivateKey.generate(), "")
    text = f"# mine\n\n{ED25519}\r\n  {other}  \n"
    assert [str(key) for key in parse_public_keys(text)] == [ED25519, other]


def test_an_error_in_a_file_names_the_line() -> None:
    with pytest.raises(KeyInvalid, match="line 3: "):
        parse_public_keys(f"{ED25519}\n\nssh-foo AAAA\n")


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_a_file_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(KeyInvalid, match="no public key"):
        parse_public_keys(text)


def test_a_comment_cannot_carry_control_characters() -> None:
    """A comment is shown in the operator's terminal."""
    assert parse_public_key(ED25519.rsplit(" ", 1)[0] + " a\x1b[2Jb").comment == "a[2Jb"


@given(st.binary(max_size=200))
def test_no_blob_gets_anything_but_an_answer(blob: bytes) -> None:
    for algorithm in ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"):
        for data in (blob, _string(algorithm.encode()) + blob):
            try:
                check_blob(algorithm, data)
            except KeyInvalid:
                continue


@given(st.text(max_size=300))
def test_no_text_gets_anything_but_an_answer(text: str) -> None:
    for line in (text, f"ssh-ed25519 {text}"):
        try:
            parse_public_key(line)
        except KeyInvalid:
            continue
