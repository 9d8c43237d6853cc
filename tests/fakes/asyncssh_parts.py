"""Parts of asyncssh for unit tests of its extensions, without a network."""

import asyncio

import asyncssh


class NoTransport(asyncio.Transport):
    """A transport that is there and carries nothing."""

    def abort(self) -> None:
        pass


async def server_options() -> asyncssh.SSHServerConnectionOptions:
    """Make the options of a server with a key of its own."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=asyncssh.SSHServer, server_host_keys=[key]
    )
