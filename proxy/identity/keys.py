"""Public keys in OpenSSH's text form, parsed into checked values.

Pure. Private keys, certificates, options and weak keys are refused with a sentence that tells the user what
to do instead. Signatures are not verified here.

Source: RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4, OpenSSH PROTOCOL.u2f.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from proxy.errors.stores import KeyInvalid
from proxy.identity.sshwire import WireInvalid, WireReader
from proxy.model import fingerprint

MIN_RSA_BITS = 2_048
MAX_RSA_BITS = 16_384  # as OpenSSH: a larger one costs the server more to verify than the client to offer
MAX_LINE_CHARACTERS = 16_384

_CURVES: dict[str, tuple[bytes, Callable[[], ec.EllipticCurve]]] = {
    "ecdsa-sha2-nistp256": (b"nistp256", ec.SECP256R1),
    "ecdsa-sha2-nistp384": (b"nistp384", ec.SECP384R1),
    "ecdsa-sha2-nistp521": (b"nistp521", ec.SECP521R1),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", ec.SECP256R1),
}
_ED25519 = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com")

KEY_FIELDS = {
    "ssh-rsa": 2,
    "ssh-dss": 4,
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
"""Number of strings after the algorithm's name in a public key; also of DSA keys, which can be revoked."""

ALGORITHMS = ("ssh-rsa", *_ED25519, *_CURVES)
"""Algorithm names of public keys; signature algorithms of RSA have names of their own."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that passed every check of this module."""

    algorithm: str
    blob: bytes
    """The key in wire format (RFC 4253 §6.6), algorithm name included."""
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """Return `SHA256:` and unpadded base64, as ssh-keygen prints it."""
        return fingerprint(self.blob)

    def __str__(self) -> str:
        encoded = base64.b64encode(self.blob).decode()
        return f"{self.algorithm} {encoded} {self.comment}".rstrip()


def parse_public_keys(text: str) -> list[PublicKey]:
    """Parse a `.pub` or `authorized_keys` file without options: one key a line, `#` begins a comment line.

    Raises: KeyInvalid naming the line of the first unusable one, or when there is none.
    """
    _refuse_other_files(text)
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            try:
                keys.append(parse_public_key(stripped))
            except KeyInvalid as exc:
                raise KeyInvalid(f"line {number}: {exc}") from None
    if not keys:
        raise KeyInvalid("there is no public key in it")
    return keys


def parse_public_key(line: str) -> PublicKey:
    """Parse `algorithm base64 [comment]`.

    Raises: KeyInvalid with a sentence for the user.
    """
    _refuse_other_files(line)
    if len(line) > MAX_LINE_CHARACTERS:
        raise KeyInvalid(f"longer than {MAX_LINE_CHARACTERS} characters")
    algorithm, _, rest = line.strip().partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    _refuse_algorithm(algorithm)
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise KeyInvalid("the key is not base64; was it cut when it was copied?") from None
    check_blob(algorithm, blob)
    shown = "".join(character for character in comment.strip() if character.isprintable())
    return PublicKey(algorithm, blob, shown[:200])


def check_blob(algorithm: str, blob: bytes) -> None:
    """Check that `blob` is one strong key of `algorithm` and nothing else.

    Raises: KeyInvalid.
    """
    try:
        _check_fields(algorithm, WireReader(blob))
    except WireInvalid as exc:
        raise KeyInvalid(f"the key is damaged: {exc}") from None


def check_offered(blob: bytes) -> None:
    """Check that `blob` is one strong key of an algorithm in ALGORITHMS.

    Raises: KeyInvalid.
    """
    try:
        algorithm = WireReader(blob).string().decode("ascii", "replace")
    except WireInvalid as exc:
        raise KeyInvalid(f"the key is damaged: {exc}") from None
    _refuse_algorithm(algorithm)
    check_blob(algorithm, blob)


def _check_fields(algorithm: str, reader: WireReader) -> None:
    """Check the strings after the algorithm's name. Raises: KeyInvalid, WireInvalid."""
    if reader.string() != algorithm.encode():
        raise KeyInvalid(f"the key does not hold what its line says ({algorithm})")
    if algorithm == "ssh-rsa":
        _check_rsa(reader)
    elif algorithm in _ED25519:
        _check_ed25519(reader)
    else:
        _check_ecdsa(algorithm, reader)
    if algorithm.startswith("sk-"):
        reader.string()  # the application, usually "ssh:"
    reader.end()


def _refuse_other_files(text: str) -> None:
    head = text.lstrip()[:200]
    if "PRIVATE KEY-----" in head or head.startswith("PuTTY-User-Key-File"):
        raise KeyInvalid("this is a private key: keep it to yourself, and give the .pub file beside it")
    if head.startswith(("---- BEGIN SSH2", "-----BEGIN")):
        raise KeyInvalid("not an OpenSSH public key; ssh-keygen -i -f FILE converts it")


def _refuse_algorithm(algorithm: str) -> None:
    if algorithm in ALGORITHMS:
        return
    if "-cert-v0" in algorithm:
        raise KeyInvalid("this is a certificate, which cannot be added; give the plain public key")
    if algorithm == "ssh-dss":
        raise KeyInvalid("DSA keys are too weak; make another with: ssh-keygen -t ed25519")
    if "=" in algorithm or "," in algorithm or algorithm in ("no-pty", "restrict", "cert-authority"):
        raise KeyInvalid("options before a key are not supported; give the key alone")
    raise KeyInvalid(f"{algorithm[:40]!r} is no key algorithm that is known here")


def _check_rsa(reader: WireReader) -> None:
    exponent, modulus = reader.mpint(), reader.mpint()
    bits = modulus.bit_length()
    if bits < MIN_RSA_BITS:
        raise KeyInvalid(f"an RSA key of {bits} bits is too weak; {MIN_RSA_BITS} are the least")
    if bits > MAX_RSA_BITS:
        raise KeyInvalid(f"an RSA key of {bits} bits is too large; {MAX_RSA_BITS} are the most")
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64 or modulus % 2 == 0:
        raise KeyInvalid("this RSA key is damaged")


def _check_ed25519(reader: WireReader) -> None:
    point = reader.string()
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(point)
    except ValueError:
        raise KeyInvalid("this Ed25519 key is damaged") from None


def _check_ecdsa(algorithm: str, reader: WireReader) -> None:
    name, curve = _CURVES[algorithm]
    if reader.string() != name:
        raise KeyInvalid("this ECDSA key names another curve than its algorithm")
    point = reader.string()
    if point[:1] != b"\x04":  # as OpenSSH; a key with two encodings could evade a list of revoked ones
        raise KeyInvalid("this ECDSA key is damaged: its point is compressed")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(curve(), point)
    except ValueError:
        raise KeyInvalid("this ECDSA key is damaged: its point is not on the curve") from None
