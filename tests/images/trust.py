"""Certificates and tokens that a proxy and a workspace would have of each other."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

import grpc

from tests.fakes import certificates

SERVER_NAME = "ws1.test.fairlead.internal"
KEY = b"k" * 32


class Authority(certificates.Authority):
    """A certificate authority of one test run."""

    def write_for_workspace(self, directory: Path) -> None:
        """Write what a workspace's Secret holds."""
        signed = self.issue(SERVER_NAME)
        directory.mkdir()
        files = {"tls.key": signed.key, "tls.crt": signed.certificate, "client-ca.crt": self.pem}
        for name, content in {**files, "token.key": base64.b64encode(KEY)}.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o644)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what a proxy presents on every call."""
        signed = self.issue("fairlead-proxy")
        return grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(self.pem, signed.key, signed.certificate),
            grpc.access_token_call_credentials(token()),
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
