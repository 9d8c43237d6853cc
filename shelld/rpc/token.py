"""Tokens: a short-lived JWT (RFC 7519), HMAC-SHA-256 and nothing else, on every call over TCP.

Claims: `sub` the user, `aud` the workspace, `exp` and `iat` in seconds since 1970, `acct` an OS
account (optional; when present no other may be used). Verification only; proxies sign.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shelld.errors import Unauthenticated

MAX_TOKEN_BYTES = 4096
MIN_KEY_BYTES = 32
MAX_KEYS = 8
SKEW_S = 60
MAX_LIFETIME_S = 600


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a call: the user of a verified token, and the one account it is good for ("" any)."""

    user: str = ""
    account: str = ""


def read_keys(raw: bytes) -> tuple[bytes, ...]:
    """Return the keys in a key file: base64 of either alphabet, one a line, or the bytes unchanged.

    Several keys are accepted during a change of keys.

    Raises: ValueError for keys of fewer than MIN_KEY_BYTES, or for more than MAX_KEYS keys.
    """
    text = raw.strip()
    keys = tuple(_base64(line.strip()) for line in text.splitlines())
    if not keys or min(map(len, keys)) < MIN_KEY_BYTES:
        keys = (text,)  # not base64, or too short to be meant as such
    if len(keys[0]) < MIN_KEY_BYTES:
        raise ValueError(f"a token key has at least {MIN_KEY_BYTES} bytes, this one {len(keys[0])}")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"{len(keys)} keys are more than the {MAX_KEYS} that a rotation may need")
    return keys


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except binascii.Error:
        return b""


def verify(token: str, *, keys: Sequence[bytes], workspace: str, user: str, now_s: float) -> Caller:
    """Check one token, signed with any of `keys`, and return its caller; pure.

    `user` "" accepts any subject. The signature is compared first and in constant time, so that a
    forger learns nothing from the reason.

    Raises: Unauthenticated with a short reason.
    Source: RFC 7519 section 7.2, RFC 8725.
    """
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise Unauthenticated("token too long or not ASCII")
    parts = token.split(".")
    if len(parts) != 3:
        raise Unauthenticated("token malformed")
    signed, signature = f"{parts[0]}.{parts[1]}".encode(), _decode(parts[2])
    if not any([hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature) for key in keys]):
        raise Unauthenticated("token signature does not match")
    header = _object(_decode(parts[0]))
    if header.get("alg") != "HS256" or "crit" in header:
        raise Unauthenticated("token algorithm is not HS256")
    claims = _object(_decode(parts[1]))
    _check_times(claims, now_s)
    return _check_names(claims, workspace, user)


def _decode(part: str) -> bytes:
    try:
        return base64.b64decode(
            part.translate(str.maketrans("-_", "+/")) + "=" * (-len(part) % 4), validate=True
        )
    except (binascii.Error, ValueError):
        raise Unauthenticated("token malformed") from None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise Unauthenticated("token malformed") from None
    if not isinstance(value, dict):
        raise Unauthenticated("token malformed")
    return value


def _check_times(claims: dict[str, Any], now_s: float) -> None:
    issued, expires = claims.get("iat"), claims.get("exp")
    for moment in (issued, expires):
        if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment < 2**53:
            raise Unauthenticated("token without iat and exp")
    assert issued is not None and expires is not None  # noqa: PT018 - checked above
    if expires - issued > MAX_LIFETIME_S:
        raise Unauthenticated("token lives too long")
    if now_s > expires + SKEW_S:
        raise Unauthenticated("token expired")
    if issued > now_s + SKEW_S:
        raise Unauthenticated("token issued in the future")


def _check_names(claims: dict[str, Any], workspace: str, user: str) -> Caller:
    audience, subject, account = claims.get("aud"), claims.get("sub"), claims.get("acct", "")
    audiences = audience if isinstance(audience, list) else [audience]
    if workspace not in audiences:
        raise Unauthenticated("token for another workspace")
    if not isinstance(subject, str) or not subject or not isinstance(account, str):
        raise Unauthenticated("token without a user")
    if user and subject != user:
        raise Unauthenticated("token for another user")
    return Caller(subject, account)
