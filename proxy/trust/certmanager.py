"""Certificates by cert-manager: requests to it, and the files that it mounted for this proxy."""

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
    """Return the name of the Certificate of a workspace, and of its Secret.

    A workspace name contains no dot, so this name is never that of another workspace's object.
    """
    return f"{workspace}.tls"


def certificate_manifest(
    name: str, namespace: str, server_name: str, labels: dict[str, str], settings: TrustSettings
) -> dict[str, Any]:
    """Return the request for the certificate of one workspace, with its Secret called `name`. Pure.

    The Secret's `tls.crt` and `tls.key` are the workspace's. Its `ca.crt` is not used: some issuers provide
    none, and it holds one authority at most: `client_ca_file` lists the trusted authorities.

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
    """This proxy's certificate in mounted files, which another program renews."""

    def __init__(self, certificate: Path, key: Path, roots: Path) -> None:
        self._files = (roots, certificate, key)
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._material: TlsMaterial | None = None

    @classmethod
    def of(cls, settings: TrustSettings) -> "MountedIdentity":
        """Return the identity in the files that the settings name; the settings require all of them."""
        cert, key, roots = settings.client_cert_file, settings.client_key_file, settings.client_ca_file
        assert cert is not None and key is not None and roots is not None  # noqa: PT018 - checked there
        return cls(cert, key, roots)

    def material(self) -> TlsMaterial:
        """Return the current content of the files; the same object until one of them changes.

        Files that became unreadable leave the earlier content in use. Raises: TrustError.
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
