"""Certificates and tokens that a proxy and a workspace would have of each other."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SERVER_NAME = "ws1.test.fairlead.internal"
KEY = b"k" * 32


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@dataclass
class Authority:
    """A certificate authority of one test run."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _sign(key.public_key(), "test authority", key, "test authority", ca=True))

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Return key and certificate in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _sign(key.public_key(), name, self.key, "test authority", ca=False)
        return _pem(key), signed.public_bytes(serialization.Encoding.PEM)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write_for_workspace(self, directory: Path) -> None:
        """Write what a workspace's Secret holds."""
        key, certificate = self.issue(SERVER_NAME)
        directory.mkdir()
        files = {"tls.key": key, "tls.crt": certificate, "client-ca.crt": self.pem}
        for name, content in {**files, "token.key": base64.b64encode(KEY)}.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o644)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what a proxy presents on every call."""
        key, certificate = self.issue("fairlead-proxy")
        return grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(self.pem, key, certificate),
            grpc.access_token_call_credentials(token()),
        )


def _sign(
    public: ec.EllipticCurvePublicKey, name: str, by: ec.EllipticCurvePrivateKey, issuer: str, *, ca: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name.replace(" ", "-"))]), critical=False)
        .sign(by, hashes.SHA256())
    )


def token(user: str = "alice", workspace: str = "ws1") -> str:
    """Return a token as the proxy signs them."""
    now = int(time.time())
    claims = {"sub": user, "aud": workspace, "iat": now, "exp": now + 600}
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.new(KEY, ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, _base64(signature)])


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
