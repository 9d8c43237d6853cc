"""The proxy's credentials for NATS: the files that the settings name, read at every connection."""

import base64
import re
import ssl
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy.settings.events import EventsSettings


def connect_options(settings: EventsSettings) -> dict[str, Any]:
    """Return arguments of nats-py's `connect`, from the files that the settings name.

    Raises: OSError, ValueError.
    """
    options: dict[str, Any] = {}
    if settings.encrypted:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        options["tls"] = context
    if settings.password_file is not None:
        options |= {"user": settings.user, "password": _secret(settings.password_file)}
    elif settings.token_file is not None:
        options["token"] = _secret(settings.token_file)
    elif settings.creds_file is not None:
        jwt, key = _creds(settings.creds_file)
        options["user_jwt_cb"] = lambda: jwt
        options["signature_cb"] = lambda nonce: base64.b64encode(key.sign(nonce.encode()))
    return options


def _secret(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def _creds(path: Path) -> tuple[bytes, Ed25519PrivateKey]:
    """Read a `.creds` file.

    Source: https://docs.nats.io/using-nats/developer/connecting/creds; a seed is two prefix bytes, 32 of the
    Ed25519 seed and a CRC-16, in base32 without padding.
    """
    blocks = dict(re.findall(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END", path.read_text(encoding="ascii")))
    if not {"NATS USER JWT", "USER NKEY SEED"} <= blocks.keys():
        raise ValueError(f"{path} is no .creds file")
    seed = blocks["USER NKEY SEED"]
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
        return blocks["NATS USER JWT"].encode("ascii"), Ed25519PrivateKey.from_private_bytes(raw[2:34])
    except ValueError:
        raise ValueError(f"{path} holds a damaged seed") from None
