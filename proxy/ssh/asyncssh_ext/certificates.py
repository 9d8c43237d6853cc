"""OpenSSH user certificates: validity for a login, with the reason if not. Pure, but for reading CA files.

What a certificate permits after the login (PTY, forwarding) asyncssh enforces by its options; `ssh.forced`
handles `force-command`.

Source: OpenSSH PROTOCOL.certkeys; sshd_config(5) CASignatureAlgorithms, RequiredRSASize. Principals are
checked as `TrustedUserCAKeys` does: there must be at least one, and the user must be among them.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate, decode_ssh_certificate

from proxy.errors import SettingsError
from proxy.errors.stores import KeyInvalid
from proxy.identity.keys import KEY_FIELDS, check_offered
from proxy.identity.sshwire import WireReader
from proxy.model import CertificateProof

_USER_CERTIFICATE = 1
_AUTHORITY_SIGNATURES = frozenset(
    {
        b"ssh-ed25519",
        b"ecdsa-sha2-nistp256",
        b"ecdsa-sha2-nistp384",
        b"ecdsa-sha2-nistp521",
        b"sk-ssh-ed25519@openssh.com",
        b"sk-ecdsa-sha2-nistp256@openssh.com",
        b"rsa-sha2-512",
        b"rsa-sha2-256",
    }
)
"""As CASignatureAlgorithms of OpenSSH since 8.2: no SHA-1."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The validity of one key or certificate for a user, an address and a time."""

    reason: str = ""
    """A word for events; empty when the credential is valid."""
    sentence: str = ""
    """A sentence for the user; empty when the reason is not for the user, as for an unknown authority."""

    def __bool__(self) -> bool:
        return not self.reason


def read_authorities(files: Sequence[Path]) -> frozenset[bytes]:
    """Read the public keys of trusted authorities, in authorized_keys or `.pub` form.

    Raises: SettingsError naming the file, also for a key that is too weak.
    """
    blobs: set[bytes] = set()
    for file in files:
        try:
            keys = asyncssh.read_public_key_list(file)
        except (OSError, asyncssh.KeyImportError) as exc:
            raise SettingsError(f"identity.trusted_user_ca_keys: {file}: {exc}") from exc
        if not keys:
            raise SettingsError(f"identity.trusted_user_ca_keys: {file} holds no public key")
        for key in keys:
            try:
                check_offered(key.public_data)
            except KeyInvalid as exc:
                raise SettingsError(f"identity.trusted_user_ca_keys: {file}: {exc}") from exc
        blobs.update(key.public_data for key in keys)
    return frozenset(blobs)


def decode(blob: bytes) -> SSHOpenSSHCertificate | None:
    """Decode a certificate and verify its authority's signature; return None for any other key."""
    try:
        certificate = decode_ssh_certificate(blob)
    except asyncssh.KeyImportError:
        return None
    return None if certificate.is_x509_chain else cast(SSHOpenSSHCertificate, certificate)


def proof_of(certificate: SSHOpenSSHCertificate) -> CertificateProof:
    """Return the facts of a certificate that are recorded and compared with lists of revoked keys."""
    return CertificateProof(
        certificate.key.public_data,
        certificate.signing_key.public_data,
        certificate._serial,
        certificate._key_id,
    )


def _signature_algorithm(certificate: SSHOpenSSHCertificate) -> bytes:
    """Return the algorithm of the authority's signature, which is the last string of a certificate."""
    reader = WireReader(certificate.public_data)
    for _ in range(2 + KEY_FIELDS[certificate.key.get_algorithm()]):
        reader.string()  # algorithm, nonce, the fields of the key
    reader.take(8 + 4)  # serial number, type
    reader.string()  # key id
    reader.string()  # principals
    reader.take(8 + 8)  # validity
    *_, signature = reader.strings()
    return WireReader(signature).string()


def judge(
    certificate: SSHOpenSSHCertificate, authorities: frozenset[bytes], user: str, address: str, now: datetime
) -> Judgement:
    """Decide whether `user` may use `certificate` from `address` at `now`."""
    if certificate.signing_key.public_data not in authorities or certificate._cert_type != _USER_CERTIFICATE:
        return Judgement("certificate_unknown_authority")
    try:
        check_offered(certificate.key.public_data)
    except KeyInvalid as exc:
        return Judgement("certificate_weak_key", f"the key of your certificate is not accepted: {exc}")
    if (algorithm := _signature_algorithm(certificate)) not in _AUTHORITY_SIGNATURES:
        return Judgement(
            "certificate_weak_signature",
            f"your certificate is signed by {algorithm.decode('ascii', 'replace')}, which is not accepted",
        )
    moment = now.timestamp()
    if moment >= certificate._valid_before:
        return Judgement(
            "certificate_expired", f"your certificate expired {_when(certificate._valid_before)}"
        )
    if moment < certificate._valid_after:
        return Judgement(
            "certificate_not_yet_valid",
            f"your certificate is not valid before {_when(certificate._valid_after)}",
        )
    if user not in certificate.principals:
        whom = ", ".join(certificate.principals[:5]) or "no user"
        return Judgement("certificate_principal", f"your certificate is for {whom}, not for {user}")
    networks = cast("Sequence[Any] | None", certificate.options.get("source-address"))
    if networks and not any(ipaddress.ip_address(address) in network for network in networks):
        return Judgement("certificate_source_address", f"your certificate may not be used from {address}")
    return Judgement()


def _when(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "at a time that no calendar has"
