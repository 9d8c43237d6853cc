"""Lists of revoked keys and certificates, in the two formats of `sshd`'s RevokedKeys. Pure.

A list is a binary KRL, as `ssh-keygen -k` writes it, or text with one public key a line. Matching follows
`ssh_krl_check_key` and `sshkey_in_file` of OpenSSH. Signatures in a KRL are skipped, as by OpenSSH since 9.4:
the permissions of the file protect it.

Source: OpenSSH PROTOCOL.krl, PROTOCOL.certkeys; sshd_config(5) RevokedKeys.
"""

import base64
import binascii
import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxy.identity.keys import KEY_FIELDS
from proxy.identity.sshwire import WireInvalid, WireReader
from proxy.model import CertificateProof, KeyProof

MAX_LIST_BYTES = 16 * 1024 * 1024
"""Room for two million serial numbers."""

_MAGIC = b"SSHKRL\n\0"
_FORMAT_VERSION = 1
_ANY_AUTHORITY = b""
_MAX_BITMAP_BYTES = 2 * 1024 * 1024 + 1
"""As bitmap.c of OpenSSH. Its `sshd` cannot read the larger ones that its `ssh-keygen` writes, and refuses
every key then; they are read here.
"""
_MAX_BITMAP_BITS = 8 * _MAX_BITMAP_BYTES
_LAST_SERIAL = 2**64 - 1

_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256, _EXTENSION = 1, 2, 3, 4, 5, 255
_SERIALS, _RANGE, _BITMAP, _KEY_IDS, _CERTIFICATE_EXTENSION = 0x20, 0x21, 0x22, 0x23, 0x39


class _Serials:
    """A set of serial numbers, 1 to 2^64 - 1, in about as much memory as the KRL's."""

    def __init__(self, ranges: Sequence[tuple[int, int]], bitmaps: Sequence[tuple[int, bytes]]) -> None:
        """Take inclusive `ranges` and `bitmaps`.

        Bit n of a big-endian bitmap stands for its offset plus n.
        """
        self._firsts, self._lasts = array("Q"), array("Q")
        for first, last in sorted(ranges):
            if self._lasts and first <= self._lasts[-1]:
                self._lasts[-1] = max(last, self._lasts[-1])
            else:
                self._firsts.append(first)
                self._lasts.append(last)
        self._bitmaps = sorted(bitmaps)
        self._offsets = array("Q", (offset for offset, _ in self._bitmaps))

    def __contains__(self, serial: int) -> bool:
        index = bisect_right(self._firsts, serial) - 1
        if index >= 0 and serial <= self._lasts[index]:
            return True
        nearest = bisect_left(self._offsets, max(0, serial - _MAX_BITMAP_BITS))
        for offset, bits in self._bitmaps[nearest : bisect_right(self._offsets, serial)]:
            byte, bit = divmod(serial - offset, 8)
            if byte < len(bits) and bits[-1 - byte] >> bit & 1:
                return True
        return False


@dataclass(slots=True)
class _Revoked:
    """Revocations of one authority while its sections are read."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    bitmaps: list[tuple[int, bytes]] = field(default_factory=list)
    key_ids: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class RevokedKeys:
    """The revocations of one list."""

    keys: frozenset[bytes] = frozenset()
    """Plain public keys in wire format."""
    sha1: frozenset[bytes] = frozenset()
    sha256: frozenset[bytes] = frozenset()
    """Digests of plain public keys."""
    certificates: "dict[bytes, tuple[_Serials, frozenset[bytes]]]" = field(default_factory=dict)
    """Serial numbers and key ids by the authority's public key; the empty key stands for any authority."""

    def revokes(self, proof: KeyProof | CertificateProof) -> bool:
        """Return whether the key, its certificate or the certificate's authority is revoked."""
        if self._revokes_key(proof.key):
            return True
        if isinstance(proof, KeyProof):
            return False
        return (
            self._revokes_key(proof.authority)
            or self._revokes_certificate(proof, proof.authority)
            or self._revokes_certificate(proof, _ANY_AUTHORITY)
        )

    def _revokes_key(self, key: bytes) -> bool:
        return (
            key in self.keys
            or (bool(self.sha1) and hashlib.sha1(key, usedforsecurity=False).digest() in self.sha1)
            or (bool(self.sha256) and hashlib.sha256(key).digest() in self.sha256)
        )

    def _revokes_certificate(self, proof: CertificateProof, authority: bytes) -> bool:
        if (found := self.certificates.get(authority)) is None:
            return False
        serials, key_ids = found
        if proof.key_id.encode() in key_ids:
            return True
        # Zero is the serial number of an authority that assigns none.
        return proof.serial != 0 and proof.serial in serials


def parse(data: bytes) -> RevokedKeys:
    """Parse a list in either format.

    Raises: WireInvalid for anything that `sshd` would refuse.
    """
    if len(data) > MAX_LIST_BYTES:
        raise WireInvalid(f"it is larger than {MAX_LIST_BYTES} bytes")
    return _parse_krl(data) if data.startswith(_MAGIC) else _parse_lines(data)


# ------------------------------------------------------------------------------------- lines of keys


def _parse_lines(data: bytes) -> RevokedKeys:
    keys = set()
    for number, line in enumerate(data.split(b"\n"), start=1):
        if (stripped := line.strip(b" \t\r")) and not stripped.startswith(b"#"):
            try:
                keys.add(_key_of(stripped))
            except ValueError as exc:
                raise WireInvalid(f"line {number}: {exc}") from None
    return RevokedKeys(keys=frozenset(keys))


def _key_of(line: bytes) -> bytes:
    """Return the plain key of `algorithm base64 [comment]`, or of a certificate in that form."""
    algorithm, encoded, *_ = [*line.split(None, 2), b"", b""]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise WireInvalid("not a public key: its second word is no base64") from None
    if WireReader(blob).string() != algorithm:
        raise WireInvalid("not a public key: the key does not hold the algorithm that the line names")
    return plain_key(blob)


def plain_key(blob: bytes) -> bytes:
    """Return the public key of a key or of a certificate, in wire format.

    Raises: WireInvalid for an unknown algorithm, and for a truncated key.
    """
    reader = WireReader(blob)
    named = reader.string().decode("ascii", "replace")
    algorithm, is_certificate = _algorithm_of(named)
    if (count := KEY_FIELDS.get(algorithm)) is None:
        raise WireInvalid(f"the key algorithm {named[:60]!r} is not known")
    if is_certificate:
        reader.string()  # the nonce
    parts = [reader.string() for _ in range(count)]
    if not is_certificate:
        reader.end()
    return b"".join(len(part).to_bytes(4, "big") + part for part in (algorithm.encode(), *parts))


def _algorithm_of(named: str) -> tuple[str, bool]:
    """Return the plain algorithm of a name, and whether the name is a certificate's."""
    for ending in ("-cert-v01@openssh.com", "-cert-v00@openssh.com"):
        if named.endswith(ending):
            plain = named.removesuffix(ending)
            return (f"{plain}@openssh.com" if plain.startswith("sk-") else plain), True
    return named, False


# ----------------------------------------------------------------------------------------------- KRL


def _parse_krl(data: bytes) -> RevokedKeys:
    reader = WireReader(data)
    reader.take(len(_MAGIC))
    if (version := reader.uint32()) != _FORMAT_VERSION:
        raise WireInvalid(f"KRL format {version} is not known, only {_FORMAT_VERSION}")
    reader.take(24)  # version of the list, time, flags
    reader.string()  # reserved
    reader.string()  # comment
    blobs: dict[int, set[bytes]] = {_KEYS: set(), _SHA1: set(), _SHA256: set()}
    certificates: defaultdict[bytes, _Revoked] = defaultdict(_Revoked)
    while reader:
        kind, section = reader.byte(), WireReader(reader.string())
        if kind == _CERTIFICATES:
            _read_certificates(section, certificates)
        elif kind in blobs:
            blobs[kind].update(section.strings(_DIGEST_BYTES.get(kind)))
        elif kind == _EXTENSION:
            _read_extension(section)
        elif kind == _SIGNATURE:
            reader.string()  # the signing key was in this section
        else:
            raise WireInvalid(f"section {kind} of the KRL is not known")
    return RevokedKeys(
        frozenset(blobs[_KEYS]),
        frozenset(blobs[_SHA1]),
        frozenset(blobs[_SHA256]),
        {
            authority: (_Serials(found.ranges, found.bitmaps), frozenset(found.key_ids))
            for authority, found in certificates.items()
        },
    )


_DIGEST_BYTES = {_SHA1: 20, _SHA256: 32}


def _read_certificates(section: WireReader, into: "defaultdict[bytes, _Revoked]") -> None:
    authority = section.string()
    section.string()  # reserved
    revoked = into[plain_key(authority) if authority else _ANY_AUTHORITY]
    while section:
        kind, content = section.byte(), WireReader(section.string())
        if (read := _SUBSECTIONS.get(kind)) is None:
            raise WireInvalid(f"certificate section {kind:#x} of the KRL is not known")
        read(content, revoked)
        content.end()


def _read_serials(content: WireReader, revoked: _Revoked) -> None:
    while content:
        revoked.ranges.append(_range(serial := content.uint64(), serial))


def _read_range(content: WireReader, revoked: _Revoked) -> None:
    revoked.ranges.append(_range(content.uint64(), content.uint64()))


def _range(first: int, last: int) -> tuple[int, int]:
    if not 0 < first <= last:
        raise WireInvalid(f"serial numbers {first} to {last} are no range of 1 to {_LAST_SERIAL}")
    return first, last


def _read_bitmap(content: WireReader, revoked: _Revoked) -> None:
    offset, bits = content.uint64(), content.string()
    if len(bits) > _MAX_BITMAP_BYTES:
        raise WireInvalid(f"a bitmap of serial numbers has more than {_MAX_BITMAP_BYTES} bytes")
    if bits and bits[0] & 0x80:
        raise WireInvalid("a bitmap of serial numbers is negative")
    bits = bits.lstrip(b"\0")
    length = int.from_bytes(bits, "big").bit_length()
    if offset + max(0, length - 1) > _LAST_SERIAL or (offset == 0 and bits and bits[-1] & 1):
        raise WireInvalid(f"a bitmap at serial number {offset} leaves the range of 1 to {_LAST_SERIAL}")
    revoked.bitmaps.append((offset, bits))


def _read_key_ids(content: WireReader, revoked: _Revoked) -> None:
    revoked.key_ids.update(content.strings())


def _read_certificate_extension(content: WireReader, revoked: _Revoked) -> None:
    del revoked
    _read_extension(content)


def _read_extension(content: WireReader) -> None:
    """Skip an extension unless it is critical, as PROTOCOL.krl requires."""
    name, critical = content.string(), content.byte()
    content.string()
    content.end()
    if critical:
        raise WireInvalid(f"the critical extension {name[:60].decode('ascii', 'replace')!r} is not known")


_SUBSECTIONS: dict[int, Callable[[WireReader, _Revoked], None]] = {
    _SERIALS: _read_serials,
    _RANGE: _read_range,
    _BITMAP: _read_bitmap,
    _KEY_IDS: _read_key_ids,
    _CERTIFICATE_EXTENSION: _read_certificate_extension,
}
