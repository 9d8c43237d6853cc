"""What a NATS server asks for at its door: certificates, and `.creds` with their operator and account."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.fakes.certificates import Authority

_OPERATOR, _ACCOUNT, _USER, _SEED = 14 << 3, 0, 20 << 3, 18 << 3


class Nkey:
    """An Ed25519 key in the spelling of NATS: prefix, key, CRC-16, in base32."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._key = ed25519.Ed25519PrivateKey.generate()
        self.public = _base32(bytes([kind]) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        prefix = bytes([_SEED | (self._kind >> 5), (self._kind & 31) << 3])
        return _base32(prefix + self._key.private_bytes_raw())

    def jwt(self, subject: "Nkey", claims: dict[str, Any]) -> str:
        body = {"jti": "x", "iat": 1_700_000_000, "iss": self.public, "sub": subject.public, "name": "test"}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body | {"nats": claims | {"version": 2}}]
        text = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_base64url(self._key.sign(text.encode()))}"


def _base32(content: bytes) -> str:
    checked = content + binascii.crc_hqx(content, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def write_creds(file: Path) -> dict[str, Any]:
    """Write a `.creds` file; the configuration of a server whose account of it may use JetStream."""
    operator, system, account, user = Nkey(_OPERATOR), Nkey(_ACCOUNT), Nkey(_ACCOUNT), Nkey(_USER)
    names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    limits = {**dict.fromkeys(names, -1), "wildcards": True}
    stores = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    account_jwt = operator.jwt(account, {"type": "account", "limits": limits | stores})
    system_jwt = operator.jwt(system, {"type": "account", "limits": limits})
    user_jwt = account.jwt(
        user, {"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    )
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n",
        encoding="ascii",
    )
    return {
        "operator": operator.jwt(operator, {"type": "operator"}),
        "system_account": system.public,
        "resolver": "MEMORY",
        "resolver_preload": {account.public: account_jwt, system.public: system_jwt},
    }


def write_certificates(directory: Path) -> None:
    """Write ca.pem and, signed by it, {server,client}.{pem,key}; the server is 127.0.0.1."""
    authority = Authority("ca")
    (directory / "ca.pem").write_bytes(authority.pem)
    for name in ("server", "client"):
        authority.issue("127.0.0.1").write(directory, name)
