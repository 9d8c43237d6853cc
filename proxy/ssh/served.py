"""The logged-in connection, as its channels see it."""

import itertools
from dataclasses import dataclass, field

from structlog.stdlib import BoundLogger

from proxy.access.gateway import Gateway
from proxy.aio import TaskOwner
from proxy.model import ConnId, Visit
from proxy.sessions.live import LiveConnection
from proxy.settings.connection import ConnectionSettings
from proxy.settings.relay import RelaySettings
from proxy.ssh.asyncssh_ext.connection import ServerConnection
from proxy.ssh.asyncssh_ext.variables import AcceptedNames
from proxy.ssh.openings import Openings

_listener_ids = itertools.count(1)


@dataclass(slots=True)
class Served:
    """All that a channel needs of its connection; made once, at the login.

    Only `visit` changes: it is replaced when the user's groups change. An open channel keeps the visit that
    it was opened with.
    """

    conn_id: ConnId
    proxy_id: str
    conn: ServerConnection
    tasks: TaskOwner
    """Tasks of the connection; they end with it."""
    log: BoundLogger
    visit: Visit
    live: LiveConnection
    """The record of the connection."""
    gateway: Gateway
    limits: ConnectionSettings
    relay: RelaySettings
    openings: Openings
    accepted_names: AcceptedNames
    _has_logged_limit: bool = field(default=False, init=False)

    @property
    def has_room(self) -> bool:
        """Return whether one more channel may be open, counted from its request to its last close."""
        return self.conn.channels_held < self.limits.max_channels

    def log_no_room(self, target: str) -> None:
        """Log the first channel of a connection that exceeds the limit, and no further ones."""
        if not self._has_logged_limit:
            self._has_logged_limit = True
            self.log.warning("too many channels", channels=self.conn.channels_held, target=target)

    def new_listener_id(self) -> str:
        """Return an id for a listener that is unique within its workspace, for every proxy."""
        return f"{self.proxy_id}-{self.conn_id}-{next(_listener_ids)}"
