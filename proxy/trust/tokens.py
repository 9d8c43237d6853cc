"""Tokens that name user, workspace and account on every call; `shelld.rpc.token` verifies them.

The key of one workspace is derived from a master key and the workspace's name, so that the key inside one
workspace cannot sign for another.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import datetime

KEY_BYTES = 32
_MAX_CACHED = 10_000


def workspace_key(master: bytes, workspace: str) -> bytes:
    """Derive the key that signs tokens for one workspace."""
    return hmac.new(master, workspace.encode(), hashlib.sha256).digest()


def key_file(keys: Sequence[bytes]) -> bytes:
    """Encode the keys that a workspace accepts, one a line, as `shelld.rpc.token.read_keys` reads them."""
    return b"".join(base64.b64encode(key) + b"\n" for key in keys)


def mint(
    key: bytes, *, workspace: str, user: str, account: str, issued_at_s: float, lifetime_s: float
) -> str:
    """Sign one token; `account` "" lets the workspace choose it.

    Source: RFC 7519, RFC 7515 section 3.1.
    """
    claims = {
        "sub": user,
        "aud": workspace,
        "iat": int(issued_at_s),
        "exp": int(issued_at_s + lifetime_s),
        **({"acct": account} if account else {}),
    }
    body = f"{_HEADER}.{_encoded(json.dumps(claims, separators=(',', ':')).encode())}"
    return f"{body}.{_encoded(hmac.new(key, body.encode(), hashlib.sha256).digest())}"


class Minter:
    """A signer with one master key that reuses a token while most of its life is left."""

    def __init__(self, master: bytes, lifetime_s: float) -> None:
        self._master = master
        self._lifetime_s = lifetime_s
        self._tokens: dict[tuple[str, str, str], tuple[float, str]] = {}

    def token(self, workspace: str, user: str, account: str, now: datetime) -> str:
        """Return a token that is valid for at least half its lifetime, by clocks that agree with this one."""
        wanted = (workspace, user, account)
        now_s = now.timestamp()
        found = self._tokens.get(wanted)
        if found is not None and found[0] <= now_s < found[0] + self._lifetime_s / 2:
            return found[1]
        if len(self._tokens) >= _MAX_CACHED:
            self._tokens.clear()
        token = mint(
            workspace_key(self._master, workspace),
            workspace=workspace,
            user=user,
            account=account,
            issued_at_s=now_s,
            lifetime_s=self._lifetime_s,
        )
        self._tokens[wanted] = (now_s, token)
        return token


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_HEADER = _encoded(b'{"alg":"HS256","typ":"JWT"}')
