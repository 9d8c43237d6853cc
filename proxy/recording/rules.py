"""Is this recorded, and under which terms: pure decisions on values."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from proxy.model import Exec, ProgramSpec, Subsystem, User
from proxy.settings.recording import OnFailure, RecordingRule, RecordingSettings, RecordKind


class Blueprint(Protocol):
    """What matters here of a blueprint."""

    @property
    def name(self) -> str: ...
    @property
    def shell(self) -> str | None: ...
    @property
    def record(self) -> Sequence[RecordKind]: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How one program or forward is recorded."""

    input: bool
    on_failure: OnFailure
    retention_days: int | None


def kinds_of(spec: ProgramSpec) -> tuple[RecordKind, ...]:
    """Say as what a program counts, the likeliest first; a command with a terminal is both."""
    match spec.kind:
        case Subsystem():
            return ("sftp",)
        case Exec():
            return ("exec", "shell") if spec.pty is not None else ("exec",)
        case _:
            return ("shell",)


def terms_for(
    settings: RecordingSettings, user: User, blueprint: Blueprint, kinds: Sequence[RecordKind]
) -> Terms | None:
    """Find the terms under which something is recorded; None when it is not.

    The first rule that matches decides. A blueprint only ever adds, because some are written by the person
    whom they would record.
    """
    rule = next((rule for rule in settings.rules if _matches(rule, user, blueprint.name)), None)
    wanted = {*(rule.record if rule else ()), *blueprint.record}
    if wanted.isdisjoint(kinds):
        return None
    if rule is None:
        return Terms(False, settings.on_failure, settings.retention_days)
    days = settings.retention_days if rule.retention_days is None else rule.retention_days
    return Terms(rule.input, rule.on_failure, days)


def _matches(rule: RecordingRule, user: User, blueprint: str) -> bool:
    # Groups that are too old give no exemption, and their users are still recorded.
    groups = user.restricting_groups if rule.record else user.groups
    return (
        _among((user.name,), rule.users)
        and _among(groups, rule.groups)
        and _among((blueprint,), rule.blueprints)
    )


def _among(names: Collection[str], patterns: Collection[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
