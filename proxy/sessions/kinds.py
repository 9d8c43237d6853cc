"""Kinds of session channels, by their request. Pure."""

import re

from proxy.model import Exec, Shell, Subsystem
from proxy.sessions.records import Kind

_COMMANDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (Kind.SCP, re.compile(r"scp\s+(-\S+\s+)*-[a-z]*[tf]\b", re.IGNORECASE)),
    (Kind.RSYNC, re.compile(r"rsync\s+--server\b")),
    (Kind.GIT, re.compile(r"git[- ](upload-pack|receive-pack|upload-archive)\b")),
    (Kind.SFTP, re.compile(r"sftp-server\b|internal-sftp\b")),
)
_PATH = re.compile(r"^\s*(\S*/)?")


def kind_of(asked: Shell | Exec | Subsystem) -> Kind:
    """Return the kind: shell, sftp, scp, rsync, git or another command, by the words that clients send."""
    match asked:
        case Shell():
            return Kind.SHELL
        case Subsystem(name):
            return Kind.SFTP if name == "sftp" else Kind.EXEC
        case Exec(command):
            program = _PATH.sub("", command[:4_096], count=1)
            return next((kind for kind, pattern in _COMMANDS if pattern.match(program)), Kind.EXEC)
