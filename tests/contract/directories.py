"""The stores that the directory suites run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.identity.directory import Directory
from proxy.identity.keys import PublicKey, parse_public_key
from proxy.identity.store import SqlDirectory


def make_key(comment: str = "") -> PublicKey:
    public = Ed25519PrivateKey.generate().public_key()
    return parse_public_key(
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " " + comment
    )


@pytest.fixture(name="directory", params=["sqlite"])
async def open_directory(tmp_path: Path) -> AsyncIterator[Directory]:
    store = await SqlDirectory.open(f"sqlite+aiosqlite:///{tmp_path}/fairlead.db", query_timeout_s=60)
    yield store
    await store.close()
