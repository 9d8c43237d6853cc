"""Certificates of shelld that are renewed while it runs."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from shelld.rpc import service
from shelld.settings import Tls

Fetch = Callable[[], grpc.ServerCertificateConfiguration | None]


def test_grpc_gets_certificates_only_when_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each configuration replaces the TLS context under handshakes that begin on other threads."""
    files = [tmp_path / name for name in ("tls.crt", "tls.key", "client-ca.crt")]
    for file in files:
        file.write_bytes(b"first")
    fetches = list[Fetch]()

    def credentials(_first: object, fetch: Fetch, *, require_client_authentication: bool) -> None:
        assert require_client_authentication
        fetches.append(fetch)

    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", credentials)
    service._credentials(Tls(*files, token_key=tmp_path / "token.key"))
    (fetch,) = fetches
    assert fetch() is None
    for file in files:
        file.write_bytes(b"second")
        assert fetch() is not None
        assert fetch() is None
    files[0].unlink()
    assert fetch() is None
