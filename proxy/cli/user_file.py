"""The parser of files of users and keys (YAML, JSON, CSV): checked entries and all problems. Pure."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from proxy.errors.stores import IdentityError
from proxy.identity.directory import UserEntry, check_name
from proxy.identity.keys import PublicKey, parse_public_key
from proxy.settings.sentences import sentence

_FORMS = {"yaml": "yaml", "yml": "yaml", "json": "json", "csv": "csv"}
_REASONS = {
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
    "model_type": "a user is a mapping of fields",
    "tuple_type": "must be a list of public keys",
}


def parse_moment(text: object) -> datetime:
    """Parse a date, which means its first moment, or a date and time; UTC unless it has an offset.

    Raises: ValueError.
    """
    if isinstance(text, date) and not isinstance(text, datetime):  # YAML reads dates by itself
        text = text.isoformat()
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text).strip())
    except ValueError:
        raise ValueError(f"{text!r} is no date such as 2031-12-31 or 2031-12-31T18:00") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _name(value: object) -> str:
    try:
        return check_name(str(value))
    except IdentityError as exc:
        raise ValueError(str(exc)) from None


def _key(value: object) -> PublicKey:
    try:
        return parse_public_key(str(value))
    except IdentityError as exc:
        raise ValueError(str(exc)) from None


_Key = Annotated[Any, BeforeValidator(_key)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, BeforeValidator(_name)]
    full_name: str | None = None
    email: str | None = None
    uid: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    expires_at: Annotated[datetime, BeforeValidator(parse_moment)] | None = None
    locked: bool | None = None
    keys: tuple[_Key, ...] = ()


def read_users(file: str, text: str, form: str = "") -> tuple[list[UserEntry], list[str]]:
    """Return the entries of a file, and its problems; `form` is yaml, json or csv, or empty to use the name.

    Raises: IdentityError when the file cannot be parsed in that format at all.
    """
    form = form or _FORMS.get(file.rpartition(".")[2].lower(), "yaml")
    if form not in _FORMS.values():
        raise IdentityError(f"--format: {form!r} is none of yaml, json, csv")
    rows = _csv_rows(file, text) if form == "csv" else _documents(file, text, form)
    entries: dict[str, UserEntry] = {}
    problems: list[str] = []
    for where, row in rows:
        try:
            parsed = _Entry.model_validate(row)
        except ValidationError as exc:
            problems += [_problem(file, where, row, error) for error in exc.errors()]
            continue
        entry = UserEntry(where=where, **{name: getattr(parsed, name) for name in _Entry.model_fields})
        known = entries.get(entry.name)
        if known is None:
            entries[entry.name] = entry
        elif form == "csv" and _adds_keys_only(entry, known):
            entries[entry.name] = replace(known, keys=(*known.keys, *entry.keys))
        else:
            problems.append(f"{file}: {where}: {entry.name} stands at {known.where} already")
    return list(entries.values()), problems


def _documents(file: str, text: str, form: str) -> Iterable[tuple[str, object]]:
    try:
        content = json.loads(text) if form == "json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as exc:
        raise IdentityError(f"{file}: {' '.join(str(exc).split())}") from None
    if isinstance(content, Mapping) and set(content) == {"users"}:
        content = content["users"]
    if not isinstance(content, list):
        raise IdentityError(f"{file}: expected a list of users")
    return [(f"user {number}", row) for number, row in enumerate(content, start=1)]


def _csv_rows(file: str, text: str) -> Iterable[tuple[str, object]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    rows: list[tuple[str, object]] = []
    try:
        for cells in reader:
            row: dict[str, Any] = {
                str(column): value for column, value in cells.items() if value not in (None, "")
            }
            if "key" in row:
                row["keys"] = [row.pop("key")]
            if row:
                rows.append((f"line {reader.line_num}", row))
    except csv.Error as exc:
        raise IdentityError(f"{file}: line {reader.line_num}: {exc}") from None
    if "name" not in (reader.fieldnames or ()):
        raise IdentityError(f"{file}: its first line names no column 'name'")
    return rows


def _adds_keys_only(entry: UserEntry, known: UserEntry) -> bool:
    """Return whether a further row of a user has no facts that differ from the first."""
    facts = ("full_name", "email", "uid", "expires_at", "locked")
    return bool(entry.keys) and all(getattr(entry, fact) in (None, getattr(known, fact)) for fact in facts)


def _problem(file: str, where: str, row: object, error: Any) -> str:
    name = row.get("name") if isinstance(row, Mapping) else None
    who = f" ({str(name)[:40]})" if name else ""
    place = ".".join(str(part + 1 if isinstance(part, int) else part) for part in error["loc"])
    reason = _REASONS.get(error["type"]) or sentence(error, place)
    return f"{file}: {where}{who}: {place + ': ' if place else ''}{reason}"
