"""Conversion of records into events. Pure."""

from datetime import datetime
from typing import TypedDict

from proxy.events import schema
from proxy.sessions.records import ConnectionRecord, ProgramRecord


class _Session(TypedDict):
    """Fields of every event of a session."""

    user: str
    client_address: str
    client_port: int
    client_version: str
    connection_id: str
    client_type: str
    fingerprint: str
    certificate: str
    workspace: str
    blueprint: str
    account: str
    started_at: str


class _Program(TypedDict):
    """Fields of every event of a program."""

    user: str
    connection_id: str
    program_id: str
    kind: str
    target: str


def opened(record: ConnectionRecord) -> schema.Event:
    """Return the event of a connection's beginning."""
    return schema.SessionOpened(**_session(record))


def updated(record: ConnectionRecord) -> schema.Event:
    """Return the event with a connection's byte counts so far."""
    return schema.SessionUpdated(
        **_session(record),
        bytes_from_client=record.bytes_from_client,
        bytes_to_client=record.bytes_to_client,
    )


def closed(record: ConnectionRecord) -> schema.Event:
    """Return the event of a connection's end, with the reason."""
    return schema.SessionClosed(
        **_session(record),
        bytes_from_client=record.bytes_from_client,
        bytes_to_client=record.bytes_to_client,
        ended_at=_when(record.ended_at),
        reasons=(record.end_reason,),
        actor=record.ended_by,
    )


def program_started(user: str, record: ProgramRecord) -> schema.Event:
    """Return the event of a program's beginning on a connection of `user`."""
    return schema.ProgramStarted(**_program(user, record))


def program_ended(user: str, record: ProgramRecord) -> schema.Event:
    """Return the event of a program's end."""
    return schema.ProgramEnded(
        **_program(user, record),
        bytes_from_client=record.bytes_from_client,
        bytes_to_client=record.bytes_to_client,
        exit_status=-1 if record.exit_status is None else record.exit_status,
        exit_signal=record.exit_signal,
        reasons=(record.end_reason,),
        actor=record.ended_by,
    )


def _session(record: ConnectionRecord) -> _Session:
    return {
        "user": record.user,
        "client_address": record.client_address,
        "client_port": record.client_port,
        "client_version": record.client_version,
        "connection_id": record.id,
        "client_type": record.client_type,
        "fingerprint": record.fingerprint,
        "certificate": record.certificate,
        "workspace": record.workspace,
        "blueprint": record.blueprint,
        "account": record.account,
        "started_at": _when(record.started_at),
    }


def _program(user: str, record: ProgramRecord) -> _Program:
    return {
        "user": user,
        "connection_id": record.connection,
        "program_id": record.id,
        "kind": record.kind,
        "target": record.target,
    }


def _when(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
