"""Clients besides OpenSSH's, for what those do not tell or would never send."""

import asyncssh
import paramiko

from tests.wire.harness import Fairlead

USER = "alice+dev"


def asyncssh_login(
    fairlead: Fairlead, **options: object
) -> "asyncssh.misc._ACMWrapper[asyncssh.SSHClientConnection]":
    """A client that knows signals by name and shows each frame of a channel; for `async with`."""
    return asyncssh.connect(
        "127.0.0.1",
        fairlead.port,
        username=USER,
        client_keys=[str(fairlead.key)],
        known_hosts=None,
        config=None,
        **options,
    )


def paramiko_login(fairlead: Fairlead) -> paramiko.Transport:
    """A client that sends whatever it is told to; the caller closes it."""
    connection = paramiko.Transport(("127.0.0.1", fairlead.port))
    connection.start_client(timeout=60)
    connection.auth_publickey(USER, paramiko.Ed25519Key.from_private_key_file(str(fairlead.key)))
    return connection
