"""Encoding and decoding of events: CloudEvents 1.0 JSON, in structured mode.

Source: CloudEvents 1.0, JSON event format.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC
from typing import Any

from proxy.events.schema import Event

MAX_TEXT = 256
"""Characters of one text; a longer one is cut and ends with `…`."""
MAX_ITEMS = 64
"""Entries of one list; an ssh-agent may offer hundreds of keys."""

_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FINGERPRINT = re.compile(r"(?:SHA256|MD5):[A-Za-z0-9+/=:]{1,128}")


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """A decoded event; `data` as in docs/events.md, plus fields that a newer proxy added."""

    id: str
    source: str
    type: str
    time: str
    subject: str
    data: Mapping[str, Any]


def source_of(proxy_id: str) -> str:
    """Return the CloudEvents source of a replica."""
    return f"/fairlead/proxy/{proxy_id}"


def encode(event: Event, *, type_: str, proxy_id: str) -> bytes:
    """Encode `event` as structured CloudEvents 1.0 JSON, ASCII only, one line.

    Guarantees: no text longer than MAX_TEXT, no list longer than MAX_ITEMS, nothing unprintable. A reason or
    a method that is no word becomes `other`, a fingerprint of another shape becomes empty.
    """
    data: dict[str, Any] = {
        item.name: _value(item.name, getattr(event, item.name))
        for item in fields(event)
        if item.name not in ("id", "time")
    }
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": source_of(proxy_id),
        "type": type_,
        "time": event.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
    }
    if data["user"]:
        envelope["subject"] = data["user"]
    envelope["data"] = data | {"proxy_id": proxy_id}
    return json.dumps(envelope, separators=(",", ":")).encode("ascii")


def decode(content: bytes) -> CloudEvent | None:
    """Decode an event of Fairlead; None for anything else, from any sender."""
    try:
        envelope = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(envelope, dict) or envelope.get("specversion") != "1.0":
        return None
    texts = {name: envelope.get(name, "") for name in ("id", "source", "type", "time", "subject")}
    data = envelope.get("data", {})
    if not all(isinstance(text, str) for text in texts.values()) or not isinstance(data, dict):
        return None
    return CloudEvent(**texts, data=data) if texts["id"] and texts["type"] else None


def _value(name: str, value: object) -> Any:
    if isinstance(value, tuple):
        return [_text(name, item) for item in value[:MAX_ITEMS]]
    return value if isinstance(value, int) else _text(name, value)


def _text(name: str, value: object) -> str:
    text = str(value)
    if name in ("reasons", "methods"):
        return text if _WORD.fullmatch(text) else "other"
    if name in ("fingerprint", "fingerprints"):
        return text if _FINGERPRINT.fullmatch(text) else ""
    return printable(text)


def printable(text: str) -> str:
    """Cut `text` to MAX_TEXT characters and replace each unprintable one by U+FFFD.

    Control and direction characters and undecodable bytes are unprintable; a space is not.
    """
    cut = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else "\ufffd" for char in cut)
