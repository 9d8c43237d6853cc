"""Settings of SSH connections."""

from typing import Annotated

from pydantic import Field

from proxy.settings.base import Bytes, Count, Seconds, Section


class ConnectionSettings(Section):
    """Limits of one SSH connection."""

    keepalive_interval_s: Seconds = 30
    """A request is sent after this much silence, so that address translation does not forget us."""
    keepalive_count_max: Annotated[int, Field(ge=1, le=100)] = 4
    """Unanswered requests after which the client counts as gone."""
    max_channels: Count = 512
    """Channels of one connection, from the request to the close; JetBrains opens hundreds."""
    max_dials: Count = 128
    """Connections that are being made for one client at once; more wait for their turn. A target that never
    answers holds one for as long as the workspace tries."""
    open_wait_s: Seconds = 60
    """A connection that waits longer for its turn is refused."""
    opens_per_s: Annotated[float, Field(ge=1, le=100_000)] = 200
    """Programs, forwards and listeners that one connection may begin in a second, on average; as many as
    `max_channels` at once. Each is a record and two events. More wait."""
    max_listeners: Count = 64
    """`-R` listeners of one connection."""
    max_env_bytes: Bytes = 64 * 1024
    """Names and values of the `env` requests of one channel, together. Variables beyond it are left out, and
    the user gets a notice; the same holds for `max_env_variables`."""
    max_env_variables: Annotated[int, Field(ge=1, le=10_000)] = 128
    """As many as sshd takes."""
    env_wait_s: Seconds = 5
    """An `env` request that wants an answer waits this long at most, right after the login, for the names of
    variables that the blueprint has. Without them it is answered with success."""
    max_command_bytes: Annotated[int, Field(ge=1_024, le=131_071)] = 131_071
    """Of one `exec` request. Linux takes no longer argument (MAX_ARG_STRLEN), and a command is one."""
