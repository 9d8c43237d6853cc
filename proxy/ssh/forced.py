"""`force-command` of a certificate: what runs in place of what a client asks for, as with `sshd`. Pure.

Source: sshd(8) AUTHORIZED_KEYS FILE FORMAT, `command=`; sshd_config(5) ForceCommand, Subsystem.
"""

import re
from dataclasses import dataclass

from proxy.model import Exec, Shell, Subsystem

_INTERNAL_SFTP = "internal-sftp"


@dataclass(frozen=True, slots=True)
class Forced:
    """What runs, and what the client asked for."""

    kind: Exec | Subsystem
    original_command: str = ""
    """Becomes SSH_ORIGINAL_COMMAND; empty for a shell, which has no command."""
    refusal: str = ""
    """Why nothing runs at all; a sentence for the user."""


def force(command: str, asked: Shell | Exec | Subsystem) -> Forced:
    """Return what runs in place of `asked` under a certificate that forces `command`.

    `internal-sftp` stands for the server of the subsystem `sftp`, in a certificate and in the value of
    SSH_ORIGINAL_COMMAND; its options are refused, since some of them take rights away.
    """
    match asked:
        case Exec(original):
            pass
        case Subsystem(name):
            original = _INTERNAL_SFTP if name == "sftp" else name
        case Shell():
            original = ""
    if not re.match(rf"{_INTERNAL_SFTP}(?=[ \t]|\Z)", command):
        return Forced(Exec(command), original)
    refusal = ""
    if asked != Subsystem("sftp"):
        refusal = "your certificate allows sftp only"
    elif command.strip() != _INTERNAL_SFTP:
        refusal = "your certificate gives options to internal-sftp, which are not supported here"
    return Forced(Subsystem("sftp"), original, refusal)
