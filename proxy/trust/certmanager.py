"""Certificates by cert-manager: what to ask it for, and reading what it mounted for this proxy."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from proxy.errors.upstream import TrustError
from proxy.model import TlsMaterial
from proxy.settings.trust import TrustSettings

API_VERSION = "cert-manager.io/v1"
KIND = "Certificate"


def certificate_name(workspace: str) -> str:
    """Name the Certificate of a workspace and the Secret it is put into.

    The name of a workspace holds no dot, so this is never the name of what belongs to another.
    """
    return f"{workspace}.tls"


def certificate_manifest(
    name: str, namespace: str, server_name: str, labels: dict[str, str], settings: TrustSettings
) -> dict[str, Any]:
    """Ask for the certificate of one workspace, to be put into a Secret called `name`. Pure.

    The Secret's `tls.crt` and `tls.key` are the workspace's. Its `ca.crt` is not used: some issuers give
    none and it holds one authority at most: `client_ca_file` says which authorities are trusted.

    Source: https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.Certificate
    """
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "secretName": name,
            "secretTemplate": {"labels": dict(labels)},
            "dnsNames": [server_name],
            "usages": ["digital signature", "server auth"],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "duration": f"{int(settings.server_lifetime_s)}s",
            "renewBefore": f"{int(settings.server_lifetime_s / 3)}s",
            "issuerRef": {
                "name": settings.issuer_name,
                "kind": settings.issuer_kind,
                "group": settings.issuer_group,
            },
        },
    }


class MountedIdentity:
    """This proxy's certificate in files that somebody else renews."""

    def __init__(self, certificate: Path, key: Path, roots: Path) -> None:
        self._files = (roots, certificate, key)
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._material: TlsMaterial | None = None

    @classmethod
    def of(cls, settings: TrustSettings) -> "MountedIdentity":
        """Read where the files are; settings made sure that all are named."""
        cert, key, roots = settings.client_cert_file, settings.client_key_file, settings.client_ca_file
        assert cert is not None and key is not None and roots is not None  # noqa: PT018 - checked there
        return cls(cert, key, roots)

    def material(self) -> TlsMaterial:
        """Give what the files hold now; the same object until one of them changes. Raises: TrustError.

        Files that cannot be read do not take away what was read before.
        """
        try:
            seen = tuple(_mark(file) for file in self._files)
            if self._material is None or seen != self._seen:
                roots, certificate, key = (file.read_bytes() for file in self._files)
                self._seen, self._material = seen, TlsMaterial(roots, certificate, key)
        except OSError as exc:
            if self._material is None:
                raise TrustError(f"{exc.filename}: {exc.strerror}") from exc
        return self._material

    def valid_until(self) -> datetime:
        """Return the end of the certificate. Raises: TrustError when it cannot be read, or has ended."""
        roots, file, key = self._files
        del roots, key
        try:
            certificate = x509.load_pem_x509_certificate(self.material().certificate)
        except ValueError:
            raise TrustError(f"{file}: not a certificate in PEM") from None
        if (until := certificate.not_valid_after_utc) <= datetime.now(UTC):
            raise TrustError(f"{file}: expired on {until:%Y-%m-%d %H:%M} UTC")
        return until


def _mark(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size
