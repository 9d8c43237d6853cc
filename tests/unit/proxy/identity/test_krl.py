"""Lists of revoked keys, judged beside `ssh-keygen -Q`, which decides as `sshd` does."""

import base64
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from proxy.identity.krl import MAX_LIST_BYTES, parse, plain_key
from proxy.identity.sshwire import WireInvalid
from proxy.model import CertificateProof, KeyProof
from proxy.ssh.asyncssh_ext.certificates import decode, proof_of

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="not found here: ssh-keygen")

MAGIC = b"SSHKRL\n\0"
HEADER = MAGIC + (1).to_bytes(4, "big") + bytes(24) + bytes(4) + bytes(4)


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def section(kind: int, *parts: bytes) -> bytes:
    return bytes([kind]) + string(b"".join(parts))


def serials(*parts: bytes, authority: bytes = b"") -> bytes:
    """Return a KRL with these certificate sections."""
    return HEADER + section(1, string(authority), string(b""), *parts)


@dataclass(frozen=True)
class Keys:
    """A folder of keys and certificates that ssh-keygen made."""

    folder: Path
    files: tuple[Path, ...]
    """Public keys and certificates."""

    def credential(self, file: Path) -> KeyProof | CertificateProof:
        blob = base64.b64decode(file.read_text().split()[1])
        certificate = decode(blob)
        return KeyProof(blob) if certificate is None else proof_of(certificate)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    kinds = {
        "ca": ("ed25519",),
        "other_ca": ("ecdsa",),
        "ed": ("ed25519",),
        "ec": ("ecdsa", "-b", "521"),
        "rsa": ("rsa", "-b", "2048"),
    }
    for name, kind in kinds.items():
        run("ssh-keygen", "-q", "-N", "", "-f", folder / name, "-t", *kind)
    for number, (name, ca) in enumerate(
        [("ed", "ca"), ("ec", "other_ca"), ("rsa", "ca"), ("ed", "other_ca"), ("ec", "ca"), ("rsa", "ca")]
    ):
        copied = folder / f"cert{number}"
        shutil.copy(folder / f"{name}.pub", f"{copied}.pub")
        run(
            "ssh-keygen", "-q", "-s", folder / ca, "-I", f"id {number % 4}", "-z", number * 3, f"{copied}.pub"
        )
    return Keys(folder, tuple(sorted(folder.glob("*.pub"))))


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def asked_of_ssh_keygen(revoked: Path, keys: Keys) -> dict[str, bool]:
    """Return what `ssh-keygen -Q` says of every key."""
    words = ["ssh-keygen", "-Q", "-f", str(revoked), *map(str, keys.files)]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    said = {line.split(" ", 1)[0]: line.endswith("REVOKED") for line in lines}
    assert len(said) == len(keys.files), lines
    return said


def asked_of_us(revoked: Path, keys: Keys) -> dict[str, bool]:
    found = parse(revoked.read_bytes())
    return {str(file): found.revokes(keys.credential(file)) for file in keys.files}


SPECS = [
    "serial: 3\n",
    "serial: 1-4\nserial: 9\n",
    "".join(f"serial: {number}\n" for number in range(1, 4_000, 3)),
    "".join(f"serial: {number}\n" for number in (6, 7, 8, 10, 11, 2**33, 2**64 - 1)),
    "serial: 1-18446744073709551615\n",
    "id: id 0\nid: id 3\n",
    "serial: 9\nid: id 1\n",
    "key: {ed}",
    "{ec}{rsa}",
    "sha1: {ed}sha256: {rsa}",
    "{ca}",
    "sha256: {other_ca}",
    "",
]


@pytest.mark.parametrize("authority", ["ca", "other_ca", "none"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec[:30].strip().replace("\n", " ") or "empty")
def test_a_krl_of_ssh_keygen_revokes_what_ssh_keygen_says(
    keys: Keys, tmp_path: Path, spec: str, authority: str
) -> None:
    named = {
        name: (keys.folder / f"{name}.pub").read_text() for name in ("ca", "other_ca", "ed", "ec", "rsa")
    }
    (tmp_path / "spec").write_text(spec.format(**named))
    ca = "none" if authority == "none" else keys.folder / f"{authority}.pub"
    run("ssh-keygen", "-q", "-k", "-f", tmp_path / "krl", "-s", ca, tmp_path / "spec")
    assert asked_of_us(tmp_path / "krl", keys) == asked_of_ssh_keygen(tmp_path / "krl", keys)


def test_a_krl_that_was_added_to_revokes_all_of_it(keys: Keys, tmp_path: Path) -> None:
    krl, spec = tmp_path / "krl", tmp_path / "spec"
    for number, (text, ca) in enumerate([("serial: 3\n", "other_ca"), ("id: id 2\n", "ca"), ("", "none")]):
        spec.write_text(text)
        update = ("-u",) if number else ()
        ca_file = ca if ca == "none" else keys.folder / f"{ca}.pub"
        words = ("ssh-keygen", "-q", "-k", *update, "-f", krl, "-s", ca_file, "-z", number + 1, spec)
        run(*words, *([keys.folder / "rsa.pub"] if ca == "none" else []))
    said = asked_of_us(krl, keys)
    assert said == asked_of_ssh_keygen(krl, keys)
    assert 0 < sum(said.values()) < len(said)


@pytest.mark.parametrize(
    ("names", "revoked"),
    [
        (["ed"], {"ed", "cert0", "cert3", "cert0-cert", "cert3-cert"}),
        (["other_ca"], {"other_ca", "cert1-cert", "cert3-cert"}),
        (
            ["cert1-cert", "rsa"],
            {"ec", "rsa", *(f"cert{n}{end}" for n in (1, 2, 4, 5) for end in ("", "-cert"))},
        ),
        ([], set()),
    ],
)
def test_a_plain_list_revokes_keys_their_certificates_and_those_of_authorities(
    keys: Keys, tmp_path: Path, names: list[str], revoked: set[str]
) -> None:
    """The same for one key and for its authority is asked of a real sshd in tests/wire."""
    lines = [(keys.folder / f"{name}.pub").read_text() for name in names]
    (tmp_path / "list").write_text("# a comment\n\n\t " + "".join(lines))
    said = asked_of_us(tmp_path / "list", keys)
    assert {Path(file).stem for file, is_revoked in said.items() if is_revoked} == revoked


def test_one_bit_of_a_bitmap_revokes_one_serial_number(tmp_path: Path) -> None:
    chosen = random.Random(7)
    revoked = {chosen.randrange(1, 40_000) for _ in range(3_000)}
    (tmp_path / "spec").write_text("".join(f"serial: {number}\n" for number in revoked))
    run("ssh-keygen", "-q", "-k", "-f", tmp_path / "krl", "-s", "none", tmp_path / "spec")
    found = parse((tmp_path / "krl").read_bytes())
    said = {n for n in range(1, 40_100) if found.revokes(CertificateProof(b"k", authority=b"a", serial=n))}
    assert said == revoked


def test_a_serial_number_of_zero_is_none(tmp_path: Path) -> None:
    found = parse(serials(section(0x21, (1).to_bytes(8, "big"), b"\xff" * 8)))
    assert found.revokes(CertificateProof(b"k", authority=b"a", serial=1))
    assert not found.revokes(CertificateProof(b"k", authority=b"a", serial=0))
    assert not found.revokes(KeyProof(b"k"))  # no certificate


def test_extensions_that_are_not_critical_and_signatures_are_skipped() -> None:
    extension = section(255, string(b"new@example.org"), b"\0", string(b"content"))
    inner = section(0x39, string(b"new@example.org"), b"\0", string(b"content"))
    signed = section(4, b"a key") + string(b"a signature")
    one = section(0x20, (5).to_bytes(8, "big"))
    data = HEADER + extension + section(1, string(b""), string(b""), inner, one) + signed
    assert parse(data).revokes(CertificateProof(b"k", authority=b"a", serial=5))


NUMBER = (7).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (MAGIC, "cut short"),
        (MAGIC + (2).to_bytes(4, "big") + bytes(32), "format 2"),
        (HEADER + b"\x07" + string(b""), "section 7"),
        (HEADER + b"\x01\0\0\xff\xff", "cut short"),
        (HEADER + section(3, string(b"x" * 19)), "19 bytes"),
        (HEADER + section(5, string(b"x" * 20)), "20 bytes"),
        (HEADER + section(255, string(b"new"), b"\1", string(b"")), "critical extension 'new'"),
        (serials(section(0x39, string(b"new"), b"\1", string(b""))), "critical extension 'new'"),
        (serials(section(0x24, b"")), "section 0x24"),
        (serials(section(0x20, bytes(8))), "no range"),
        (serials(section(0x20, b"\1")), "cut short"),
        (serials(section(0x21, NUMBER, (6).to_bytes(8, "big"))), "no range"),
        (serials(section(0x21, NUMBER, NUMBER, b"x")), "after its end"),
        (serials(section(0x22, NUMBER, string(b"\x80"))), "negative"),
        (serials(section(0x22, NUMBER, string(b"\x01" * (2**21 + 2)))), "2097153 bytes"),
        (serials(section(0x22, b"\xff" * 8, string(b"\x02"))), "leaves the range"),
        (serials(section(0x22, bytes(8), string(b"\x01"))), "leaves the range"),
        (serials(authority=string(b"ssh-foo") + string(b"x")), "'ssh-foo' is not known"),
        (b"ssh-ed25519 AAAA", "line 1"),
        (b"\n# fine\nssh-ed25519", "line 3"),
        (b"ssh-foo " + base64.b64encode(string(b"ssh-foo") + string(b"x")), "'ssh-foo' is not known"),
        (b"ssh-rsa " + base64.b64encode(string(b"ssh-ed25519") + string(b"x" * 32)), "does not hold"),
        (b"ssh-ed25519 !!!!", "no base64"),
        (b"\0\xff\xfe", "line 1"),
        (b"#" * (MAX_LIST_BYTES + 1), "larger than"),
    ],
)
def test_a_list_that_is_not_understood_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(WireInvalid, match=reason):
        parse(data)


@pytest.mark.parametrize("kind", ["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp384", "ssh-dss"])
def test_the_plain_key_of_a_certificate_is_its_key(kind: str) -> None:
    key = asyncssh.generate_private_key(kind)
    ca = asyncssh.generate_private_key("ssh-ed25519")
    certificate = ca.generate_user_certificate(key, "id", principals=["alice"])
    assert plain_key(certificate.public_data) == plain_key(key.public_data) == key.public_data
