"""What a channel is for, by the words that clients really send."""

import pytest

from proxy.model import Exec, Shell, Subsystem
from proxy.sessions.kinds import kind_of
from proxy.sessions.records import Kind


def test_a_shell_and_a_subsystem() -> None:
    assert kind_of(Shell()) is Kind.SHELL
    assert kind_of(Subsystem("sftp")) is Kind.SFTP


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("scp -t /tmp/x", Kind.SCP),
        ("scp -v -r -p -d -f -- file", Kind.SCP),
        ("/usr/bin/scp -pt .", Kind.SCP),
        ("scp a b:c", Kind.EXEC),
        ("rsync --server -vlogDtpre.iLsfxCIvu . /srv", Kind.RSYNC),
        ("rsync -a a b", Kind.EXEC),
        ("git-upload-pack 'org/proj.git'", Kind.GIT),
        ("git receive-pack '/srv/x'", Kind.GIT),
        ("git status", Kind.EXEC),
        ("/usr/lib/openssh/sftp-server", Kind.SFTP),
        ("internal-sftp", Kind.SFTP),
        ("echo scp -t x", Kind.EXEC),
        ("", Kind.EXEC),
        (" " * 1_000_000, Kind.EXEC),
    ],
)
def test_commands(command: str, kind: Kind) -> None:
    assert kind_of(Exec(command)) is kind
