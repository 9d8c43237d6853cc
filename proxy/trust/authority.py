"""Fairlead's own certificate authority, for workspaces and for proxies. Pure.

A workspace's certificate holds one name, its own, for TLS servers only: it is of no use to a client or to
another workspace. A proxy's certificate is for TLS clients only. Keys are ECDSA P-256, which every TLS
library supports.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT_NAME = "fairlead-proxy"
"""The name in every proxy's certificate; shelld accepts no other."""

DOMAIN = "fairlead.internal"
"""The suffix of every workspace's server name; it is never resolved."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def server_name(workspace: str, namespace: str) -> str:
    """Return the server name in a workspace's certificate; different workspaces have different names.

    Both arguments are DNS labels. Raises: ValueError for text that is no label.
    """
    for label in (workspace, namespace):
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is no DNS label")
    return f"{workspace}.{namespace}.{DOMAIN}"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, label: str, now: datetime, lifetime: timedelta, back_date: timedelta) -> Self:
        """Create an authority that signs leaf certificates for Fairlead's names and no further authority.

        `label` makes its subject differ from its successor's. `back_date` allows for clocks that are behind.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(f"Fairlead workspaces {label}")
        builder = (
            _builder(name, key.public_key(), now - back_date, now + lifetime)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(_OUR_NAMES, critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, pair: KeyPair) -> Self:
        """Load a dumped authority.

        Raises: ValueError when it is damaged or key and certificate do not match.
        """
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = load_pem_private_key(pair.key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not _belong(certificate, key):
            raise ValueError("key and certificate of the authority do not belong together")
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """Return the certificate, for a list of trusted roots."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def expires_at(self) -> datetime:
        """Return the end of validity, aware UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def fingerprint(self) -> str:
        """Return the hexadecimal SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` does."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def dump(self) -> KeyPair:
        """Return certificate and key, the key unencrypted."""
        return KeyPair(self.pem, _pem_of(self.key))

    def issue_server(
        self, name: str, now: datetime, lifetime: timedelta, back_date: timedelta = timedelta()
    ) -> KeyPair:
        """Issue the server certificate of the workspace called `name`; see `server_name`."""
        return self._issue(name, ExtendedKeyUsageOID.SERVER_AUTH, (now - back_date, now + lifetime))

    def issue_client(self, now: datetime, lifetime: timedelta, back_date: timedelta = timedelta()) -> KeyPair:
        """Issue the client certificate of a proxy."""
        return self._issue(CLIENT_NAME, ExtendedKeyUsageOID.CLIENT_AUTH, (now - back_date, now + lifetime))

    def issued(self, certificate: x509.Certificate) -> bool:
        """Return whether this authority signed a certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _issue(
        self, name: str, purpose: x509.ObjectIdentifier, validity: tuple[datetime, datetime]
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        # A certificate is valid within the validity of its authority only, at both ends.
        not_before = max(validity[0], self.certificate.not_valid_before_utc)
        not_after = min(validity[1], self.certificate.not_valid_after_utc)
        builder = (
            _builder(_subject("Fairlead"), key.public_key(), not_before, not_after)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        return KeyPair(
            builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM),
            _pem_of(key),
        )


def bundle(authorities: Iterable[Authority]) -> bytes:
    """Join the certificates of authorities into one file of roots, in the order given."""
    return b"".join(authority.pem for authority in authorities)


def is_fresh(certificate: x509.Certificate, now: datetime) -> bool:
    """Return whether a certificate is valid and more than a third of its validity is left."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins <= now < ends - (ends - begins) / 3


def serves(pair: KeyPair, name: str, authority: Authority, now: datetime) -> bool:
    """Return whether a workspace can keep its certificate.

    It can when the pair is whole, fresh, issued to `name`, and issued by this authority.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = load_pem_private_key(pair.key, password=None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        names.get_values_for_type(x509.DNSName) == [name]
        and isinstance(key, ec.EllipticCurvePrivateKey)
        and _belong(certificate, key)
        and is_fresh(certificate, now)
        and authority.issued(certificate)
    )


_OUR_NAMES = x509.NameConstraints(
    permitted_subtrees=[x509.DNSName(DOMAIN), x509.DNSName(CLIENT_NAME)],
    excluded_subtrees=[x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))],
)


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _belong(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*public) == key.public_key().public_bytes(*public)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
