"""Limits of a shelld without the feature "bytes" (before version 1.4 of the protocol). Pure.

Such a shelld takes a frame with text that is not UTF-8 for malformed, so that the user would get no sentence.
"""

from collections.abc import Mapping, Set
from dataclasses import replace

from proxy import model
from proxy.errors.programs import OpenFailed, OpenFailedKind, ProgramNotStarted, ProgramNotStartedKind
from proxy.errors.upstream import Incompatible
from proxy.octets import is_utf8

_BYTES = "bytes"
_RESTART = "it does when the workspace was stopped and started"


def program_for(features: Set[str], spec: model.ProgramSpec) -> model.ProgramSpec:
    """Return `spec` as a shelld with these features can run it, perhaps with fewer variables.

    Raises: ProgramNotStarted when the command itself cannot be sent.
    """
    if _BYTES in features:
        return spec
    command = spec.kind.command if isinstance(spec.kind, model.Exec) else ""
    if not (is_utf8(command) and is_utf8(spec.original_command)):
        raise ProgramNotStarted(
            ProgramNotStartedKind.INVALID,
            f"the command is not UTF-8, which the older shelld of this workspace does not take; {_RESTART}",
        )
    return replace(spec, env={name: value for name, value in spec.env.items() if is_utf8(value)})


def variables_left_out(features: Set[str], env: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that `program_for` leaves out."""
    return [] if _BYTES in features else sorted(name for name, value in env.items() if not is_utf8(value))


def has_apps(features: Set[str]) -> bool:
    """Return whether a shelld can start apps: version 1.5 of the protocol."""
    return "apps" in features


def check_apps(features: Set[str]) -> None:
    """Refuse calls about apps that would not be understood. Raises: Incompatible."""
    if not has_apps(features):
        sentence = f"the older shelld of this workspace starts no apps; {_RESTART}"
        raise Incompatible(sentence, user_message=sentence)


def check_target(features: Set[str], target: model.Target) -> None:
    """Refuse a target that cannot be sent. Raises: OpenFailed, Incompatible."""
    if isinstance(target, model.AppTarget):
        check_apps(features)
    else:
        check_path(features, target)


def check_path(features: Set[str], address: model.Bind) -> None:
    """Refuse a path that cannot be sent. Raises: OpenFailed."""
    if _BYTES not in features and isinstance(address, model.UnixTarget) and not is_utf8(address.path):
        raise OpenFailed(
            OpenFailedKind.INVALID,
            f"{address} is not UTF-8, which the older shelld of this workspace does not take; {_RESTART}",
        )
