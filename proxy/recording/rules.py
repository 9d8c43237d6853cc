"""Recording rules: pure decisions on whether something is recorded, and on which terms."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from proxy.model import Exec, ProgramSpec, Subsystem, User
from proxy.settings.recording import OnFailure, RecordingRule, RecordingSettings, RecordKind


class BlueprintFacts(Protocol):
    """The fields of a blueprint that matter here."""

    @property
    def name(self) -> str:
        """Name of the blueprint."""

    @property
    def shell(self) -> str | None:
        """Return the shell, if the blueprint sets it."""

    @property
    def record(self) -> Sequence[RecordKind]:
        """Return the kinds of programs that the blueprint records."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one recording."""

    input: bool
    on_failure: OnFailure
    retention_days: int | None


def kinds_of(spec: ProgramSpec) -> tuple[RecordKind, ...]:
    """Return the kinds of a program, the likeliest first; a command with a terminal has two."""
    match spec.kind:
        case Subsystem():
            return ("sftp",)
        case Exec():
            return ("exec", "shell") if spec.pty is not None else ("exec",)
        case _:
            return ("shell",)


def terms_for(
    settings: RecordingSettings, user: User, blueprint: BlueprintFacts, kinds: Sequence[RecordKind]
) -> Terms | None:
    """Return the terms of a recording; None when there is none.

    The first matching rule decides. A blueprint can only add recordings, because the user to be recorded may
    have written it.
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
    # Groups that are too old give no exemption, but their users are still recorded.
    groups = user.restricting_groups if rule.record else user.groups
    return (
        _among((user.name,), rule.users)
        and _among(groups, rule.groups)
        and _among((blueprint,), rule.blueprints)
    )


def _among(names: Collection[str], patterns: Collection[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
