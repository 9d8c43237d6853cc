"""Output of the command line: JSON for programs, a table on a terminal, tabs in pipes.

The only way from a command to the terminal, because much of the text comes from untrusted users; see
`printable`.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from proxy.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.table import Table

    from proxy.identity.directory import OnboardingRecord, StoredKey, UserChange, UserRecord
    from proxy.sessions.records import ConnectionRecord, ProgramRecord
    from proxy.workspaces.backend import WorkspaceEvent, WorkspaceRecord


def user_row(record: "UserRecord") -> dict[str, Any]:
    """Flatten a user."""
    account = record.account
    reading = account.reading if account else None
    return {
        "name": record.user.name,
        "id": record.user.id,
        "full_name": record.user.full_name,
        "email": record.email,
        "uid": record.uid,
        "locked": record.user.locked,
        "keys": record.key_count,
        "created_at": _when(record.created_at),
        "expires_at": _when(record.user.expires_at),
        "source": account.provider if account else "static",
        "issuer": account.issuer if account else "",
        "subject": account.subject if account else "",
        "login": account.login if account else "",
        "groups": list(account.groups) if account else [],
        "refreshed_at": _when(account.refreshed_at) if account else None,
        "groups_in_effect": list(record.user.groups),
        "groups_read_at": _when(reading.read_at) if reading else None,
        "provider_failed_at": _when(reading.failed_at) if reading else None,
        "account_ended_at": _when(reading.ended_at) if reading else None,
    }


def onboarding_row(record: "OnboardingRecord") -> dict[str, Any]:
    """Flatten an entry of the waiting list."""
    return {
        "id": record.id,
        "status": record.status.value,
        "name": record.name,
        "full_name": record.full_name,
        "email": record.email,
        "provider": record.account.provider,
        "login": record.account.login,
        "issuer": record.account.issuer,
        "subject": record.account.subject,
        "groups": list(record.account.groups),
        "fingerprint": record.key.fingerprint,
        "source_address": record.source_address,
        "created_at": _when(record.created_at),
        "decided_by": record.decided_by,
        "decided_at": _when(record.decided_at),
    }


def import_row(change: "UserChange") -> dict[str, Any]:
    """Flatten the change of a user by an import."""
    return {
        "name": change.name,
        "action": change.action,
        "new_keys": [key.fingerprint for key in change.keys],
        "locked": change.locked,
    }


def key_row(stored: "StoredKey") -> dict[str, Any]:
    """Flatten a key; its `line` has the whole key."""
    return {
        "fingerprint": stored.key.fingerprint,
        "algorithm": stored.key.algorithm,
        "comment": stored.key.comment,
        "origin": stored.origin,
        "created_at": _when(stored.created_at),
        "last_used_at": _when(stored.last_used_at),
        "line": str(stored.key),
    }


def workspace_row(record: "WorkspaceRecord") -> dict[str, Any]:
    """Flatten a workspace."""
    stop = record.stop
    return {
        "name": record.name,
        "user": record.user,
        "owner": record.owner,
        "blueprint": record.blueprint,
        "user_string": record.user_string,
        "phase": record.phase.value,
        "detail": record.detail or (f"stopped by {stop.by}" if stop else ""),
        "location": record.location,
        "created_at": _when(record.created_at),
        "started_at": _when(record.started_at),
        "active_at": _when(record.active_at),
        "why": record.why or None,
        "stopped_at": _when(stop.at) if stop else None,
        "stopped_by": stop.by if stop else None,
        "stop_reason": stop.reason if stop else None,
    }


def session_row(record: "ConnectionRecord") -> dict[str, Any]:
    """Flatten a connection."""
    return {
        "id": record.id,
        "user": record.user,
        "owner": record.owner,
        "workspace": record.workspace,
        "blueprint": record.blueprint,
        "account": record.account,
        "client_type": record.client_type,
        "client_version": record.client_version,
        "client_address": record.client_address,
        "client_port": record.client_port,
        "fingerprint": record.fingerprint,
        "certificate": record.certificate,
        "proxy_id": record.proxy_id,
        "pid": record.pid,
        **_lasting(record),
    }


def program_row(record: "ProgramRecord") -> dict[str, Any]:
    """Flatten a program or a forward."""
    status = None if record.exit_status is None else str(record.exit_status)
    return {
        "id": record.id,
        "session": record.connection,
        "kind": record.kind,
        "command": record.command,
        "target": record.target,
        "pty": record.pty,
        "exit": record.exit_signal or status,
        "exit_status": record.exit_status,
        "exit_signal": record.exit_signal,
        **_lasting(record),
    }


def _lasting(record: "ConnectionRecord | ProgramRecord") -> dict[str, Any]:
    return {
        "started_at": _when(record.started_at),
        "updated_at": _when(record.updated_at),
        "ended_at": _when(record.ended_at),
        "end_reason": record.end_reason,
        "end_detail": record.end_detail,
        "ended_by": record.ended_by,
        "bytes_from_client": record.bytes_from_client,
        "bytes_to_client": record.bytes_to_client,
    }


def event_row(event: "WorkspaceEvent") -> dict[str, Any]:
    """Flatten a message of a backend."""
    return {
        "at": _when(event.at),
        "kind": event.kind,
        "count": event.count,
        "reason": event.reason,
        "message": event.message,
    }


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def count(number: int, what: str) -> str:
    """Return `1 key` or `2 keys`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def say(text: str = "", *, flush: bool = False) -> None:
    """Print one line on stdout."""
    print(printable(text, keep="\t"), flush=flush)


def warn(text: str) -> None:
    """Print a sentence on stderr."""
    print(printable(text, keep="\t\n"), file=sys.stderr)


def print_lines(text: str, *, flush: bool = False) -> None:
    """Print a text of several lines, as YAML is, or a piece of one."""
    sys.stdout.write(printable(text, keep="\t\n"))
    if flush:
        sys.stdout.flush()


def print_json(value: Any, *, indent: int | None = 2, flush: bool = False) -> None:
    """Print JSON with non-ASCII letters unchanged; on one line with `indent` None."""
    print(printable_json(value, indent), flush=flush)


def print_fields(row: Mapping[str, Any], width: int, *, without: Sequence[str] = ()) -> None:
    """Print one name and value on each line, without empty values."""
    for key, value in row.items():
        if key not in without and value not in (None, ""):
            say(f"{key.removesuffix('_at').replace('_', ' '):{width}}{value}")


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, columns: Sequence[str]) -> None:
    """Print everything as JSON, or the named columns: a table on a terminal, tabs elsewhere."""
    if as_json:
        print_json(list(rows))
        return
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(_cell(row[column]) for column in columns) + "\n" for row in rows)
        return
    from rich.console import Console

    Console().print(table_of(rows, columns))


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> "Table":
    """Return the table that `print_rows` shows on a terminal."""
    from rich.table import Table
    from rich.text import Text

    headings = [column.removesuffix("_at").replace("_", " ") for column in columns]
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    return table


def _cell(value: Any) -> str:
    """Return one line."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list):
        value = " ".join(str(part) for part in value)
    return printable("" if value is None else str(value))
