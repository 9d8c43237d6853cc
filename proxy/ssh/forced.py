"""Forced commands of certificates: the program that runs in place of the one that the client asked for. Pure.

The rules are those of `sshd`. Source: sshd(8) AUTHORIZED_KEYS FILE FORMAT, `command=`; sshd_config(5)
ForceCommand, Subsystem.
"""

import re
from dataclasses import dataclass

from proxy.model import Exec, Shell, Subsystem

_INTERNAL_SFTP = "internal-sftp"


@dataclass(frozen=True, slots=True)
class Forced:
    """The program that runs, and the request of the client."""

    kind: Exec | Subsystem
    original_command: str = ""
    """The value of SSH_ORIGINAL_COMMAND; empty for a shell, which has no command."""
    refusal: str = ""
    """The reason why no program runs, as a sentence for the user; else empty."""


def force(command: str, asked: Shell | Exec | Subsystem) -> Forced:
    """Return the program that replaces `asked` under a certificate that forces `command`.

    `internal-sftp` stands for the server of the subsystem `sftp`, in a certificate and in the value of
    SSH_ORIGINAL_COMMAND. Its options are refused, since some of them take rights away.
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
