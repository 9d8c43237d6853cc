"""What a client sends does not act on the terminal of an operator who looks at it."""

import contextlib
import unicodedata
from collections.abc import Iterator

import paramiko
import pytest

from tests.wire.harness import Fairlead
from tests.wire.peers import until

ESCAPES = "\x1b]0;title\x07 \x9b31m \x9d52;c;eA==\x9c \u202e \x7f"


@pytest.fixture(scope="module")
def talked_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    """Run a proxy that logs text, as on a terminal, and say harmful things to it."""
    server = Fairlead(tmp_path_factory.mktemp("talked_to"))
    server.extra_env["FAIRLEAD_LOG__FORMAT"] = "text"
    server.extra_env["FAIRLEAD_LOG__LEVEL"] = "debug"
    server.prepare()
    try:
        server.start()
        assert server.ssh(f"true '{ESCAPES}'").returncode == 0
        forward_as(server, "SSH-2.0-\x1b]0;title\x07")
        until(lambda: len(sessions(server)) == 2, "both connections are on record")
        yield server
    finally:
        server.close()


def sessions(server: Fairlead) -> list[str]:
    """Give the ids of all sessions on record."""
    return [line.split("\t")[0] for line in server.cli("session", "list", "--all").splitlines()]


def forward_as(server: Fairlead, version: str) -> None:
    """Log in with a version, and ask for a host, that OpenSSH's client never would."""
    with contextlib.closing(paramiko.Transport(("127.0.0.1", server.port))) as connection:
        connection.local_version = version
        connection.start_client(timeout=60)
        key = paramiko.Ed25519Key.from_private_key_file(str(server.key))
        connection.auth_publickey("alice+dev", key)
        with pytest.raises(paramiko.ChannelException):
            connection.open_channel("direct-tcpip", (ESCAPES, 1), ("127.0.0.1", 1), timeout=60)


def assert_harmless(text: str) -> None:
    assert [one for one in text if one not in "\n\t" and unicodedata.category(one)[0] == "C"] == []


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_the_commands_that_show_sessions_are_harmless(talked_to: Fairlead, options: tuple[str, ...]) -> None:
    ids = sessions(talked_to)
    assert ids
    shown = "".join(talked_to.cli("session", "show", id_, *options) for id_ in ids)
    assert shown.count("title") >= 3  # of the command, of the version and of the host
    assert_harmless(shown + talked_to.cli("session", "list", "--all", *options))


def test_the_text_log_is_harmless(talked_to: Fairlead) -> None:
    assert r"\x1b]0;title\x07" in talked_to.log
    assert_harmless(talked_to.log)
