"""Pod Security Standards: the demands of the level that a namespace enforces on the fields of a blueprint.

Only the fields of the blueprint are read; the rest of a workspace's pod passes every level.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum

from proxy.blueprints.document import Location
from proxy.blueprints.reading import Definition, Problem
from proxy.blueprints.schema import Blueprint

_BASELINE_CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
_RESTRICTED_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})


class Level(StrEnum):
    """The levels that forbid anything."""

    BASELINE = "baseline"
    RESTRICTED = "restricted"


def violations(blueprint: Blueprint, level: Level) -> Iterator[tuple[Location, str]]:
    """Yield each field that keeps a blueprint's pods out of a level, and its required value. Pure."""
    security = blueprint.security
    restricted = level is Level.RESTRICTED
    allowed = _RESTRICTED_CAPABILITIES if restricted else _BASELINE_CAPABILITIES
    for at, capability in enumerate(security.add_capabilities):
        if capability not in allowed:
            yield (
                ("security", "add_capabilities", at),
                f"{level} allows none but {', '.join(sorted(allowed))}",
            )
    if security.seccomp_profile == "Unconfined":
        yield ("security", "seccomp_profile"), f"{level} wants RuntimeDefault or localhost/<file>"
    if not restricted:
        return
    if security.is_root:
        yield ("security", "run_as_user"), "restricted wants a user other than root, such as 1000"
    if "ALL" not in security.drop_capabilities:
        yield ("security", "drop_capabilities"), "restricted wants [ALL]"
    if blueprint.allow_privilege_escalation:
        field: Location = ("sudo",) if blueprint.sudo else ("security", "allow_privilege_escalation")
        yield field, "restricted wants false"


def check(definitions: Mapping[str, Definition], level: Level) -> list[Problem]:
    """Return the violations of every blueprint that may be asked for, with the place of each. Pure."""
    return [
        Problem(one.document.file_name, one.document.where(loc), reason)
        for one in definitions.values()
        if not one.sample.abstract
        for loc, reason in violations(one.sample, level)
    ]
